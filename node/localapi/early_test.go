package localapi

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
)

// Whoever waits for other members hears at once that its write or message is
// durable here, whatever becomes of the wait.
func TestDurableIsToldBeforeTheWaitEnds(t *testing.T) {
	f, c, dir := start(t)
	put := []Op{{Op: OpPut, Key: []byte("k"), Value: []byte("v")}}
	var heard []Written
	durable := func(w Written) { heard = append(heard, w) }
	out, err := c.Write(t.Context(), DefaultSpace, Write{Ops: put, Replicas: 1, Durable: durable})
	if err != nil || len(heard) != 1 || heard[0] != (Written{Log: "ab", Seq: 1}) || out != (Written{Log: "ab", Seq: 1, Replicas: 1}) {
		t.Errorf("Write = %+v, %v; before: %+v", out, err, heard)
	}
	_, err = c.Write(t.Context(), DefaultSpace, Write{Ops: put, Replicas: 2, Durable: durable})
	var failed *Error
	if len(heard) != 2 || !errors.As(err, &failed) || failed.Code != CodeReplicas || failed.Written == nil || failed.Written.Replicas != 1 {
		t.Errorf("too few members: %v; before: %+v", err, heard)
	}
	if _, err := c.Write(t.Context(), DefaultSpace, Write{Ops: put, Durable: durable}); err != nil || len(heard) != 2 {
		t.Errorf("without a wait: %v; before: %+v", err, heard)
	}
	f.writes = func(Write) error { return Errorf(CodeNoSpace, "disk full") }
	if _, err := c.Write(t.Context(), DefaultSpace, Write{Ops: put, Replicas: 1, Durable: durable}); CodeOf(err) != CodeNoSpace || len(heard) != 2 {
		t.Errorf("a write that failed: %v; before: %+v", err, heard)
	}
	f.writes = nil

	var stored []Sent
	for peer, delivered := range map[string]bool{"p1": true, "p2": false} {
		sent, err := c.Send(t.Context(), Send{Peer: peer, Stored: func(s Sent) { stored = append(stored, s) }})
		if sent.Delivered != delivered || (err == nil) != delivered {
			t.Errorf("Send to %s = %+v, %v", peer, sent, err)
		}
	}
	if len(stored) != 2 || stored[0].Delivered || stored[0].ID != "aa" {
		t.Errorf("stored: %+v", stored)
	}
	if status, out := raw(t, dir, http.MethodPut, "/v1/kv?key=k&replicas=1&early=1", "v"); status != http.StatusOK || !strings.HasPrefix(out, `{"log":"ab","seq":4,"replicas":0}`+"\n"+`{"log":"ab","seq":4,"replicas":1}`) {
		t.Errorf("by hand: %d %s", status, out)
	}
}

// A node that stops meanwhile leaves no doubt about what was durable before.
func TestNodeStopsWhileAWriteWaits(t *testing.T) {
	dir := t.TempDir()
	s, err := Start(Config{Dir: dir, Backend: waiter{newFake()}, PeerID: "12D3KooWFake", Version: "test"})
	if err != nil {
		t.Fatal(err)
	}
	c, err := Dial(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	begun, closed := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(closed)
		<-begun
		s.Close()
	}()
	defer func() { <-closed }()
	_, err = c.Write(t.Context(), DefaultSpace, Write{Ops: []Op{{Op: OpDelete, Key: []byte("k")}}, Replicas: 1, Durable: func(Written) { close(begun) }})
	if CodeOf(err) != CodeClosed || !strings.Contains(err.Error(), "is durable there") {
		t.Errorf("Write = %v", err)
	}
}

// waiter is a Backend whose writes wait for members that never come.
type waiter struct{ *fake }

func (waiter) Write(ctx context.Context, _ string, w Write) (Written, error) {
	w.Durable(Written{Log: "ab", Seq: 1})
	<-ctx.Done()
	return Written{}, ctx.Err()
}
