package node

import (
	"context"
	"net"
	"syscall"
	"testing"
	"time"

	"vixp2p/replication"
)

// What is said once is not said again.
func TestPauseReason(t *testing.T) {
	for _, c := range []struct {
		code         replication.Code
		detail, want string
	}{
		{replication.CodeForked, "", "forked"},
		{replication.CodeForked, "at 7", "forked: at 7"},
		{replication.CodeNoSpace, "disk full: /data has 1.0 MiB free", "disk full: /data has 1.0 MiB free"},
	} {
		if got := pauseReason(replication.LogPaused{Code: c.code, Detail: c.detail}); got != c.want {
			t.Errorf("%s, %q: %q, not %q", c.code, c.detail, got, c.want)
		}
	}
}

// A port of the local API that is taken is told in one sentence.
func TestPortOfTheAPIIsTaken(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	at := ln.Addr().String()
	n, err := Open(t.Context(), Config{DataDir: t.TempDir(), Offline: true, API: at})
	if err == nil {
		n.Close()
	}
	want := "the local API cannot listen on " + at + ", which another program uses: stop that program, or give another address with --api (port 0 = any free one)"
	if err == nil || err.Error() != want {
		t.Errorf("%v", err)
	}
}

// Of several addresses of a peer the one that refuses tells why it is away, as long as
// it does.
func TestRefusalTellsMoreThanSilence(t *testing.T) {
	now := time.Now()
	m := &mesh{book: newPeerBook(), now: func() time.Time { return now }}
	m.book.update("B", func(*peerRecord) {})
	refused, silent := wrapDial("tcp://10.0.0.1:1", syscall.ECONNREFUSED), wrapDial("tcp://10.0.0.2:1", context.DeadlineExceeded)
	for i, step := range []struct {
		err, want error
		after     time.Duration
	}{{silent, silent, 0}, {refused, refused, 0}, {silent, refused, 0}, {silent, refused, refusedTells / 2}, {silent, silent, refusedTells}, {silent, silent, 0}} {
		now = now.Add(step.after)
		m.note("B", step.err)
		if got := m.book.snapshot()["B"].LastError; got != step.want.Error() {
			t.Errorf("step %d: %s", i, got)
		}
	}
}
