package node

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"vixp2p/replication"
)

// TestRepairUnderUse: the store and the view are opened again while everything
// uses them, and nobody loses anything or sees more than a pause.
func TestRepairUnderUse(t *testing.T) {
	t.Parallel()
	a := open(t, Config{Label: "A", repairPause: time.Millisecond})
	b := open(t, Config{Label: "B", Connect: []string{hostPort(t, a)}})
	ctx, stop := context.WithCancel(deadline(t))
	defer stop()
	s := a.Space("")
	var wg sync.WaitGroup
	tailed := make(chan string, 1000)
	tail := s.Tail(ctx, Now, true)
	wg.Go(func() {
		for op, err := range tail {
			if err != nil {
				t.Errorf("tail: %v", err)
				return
			}
			tailed <- op.Key
		}
	})
	watched := make(chan string, 1000)
	watch := s.Watch(ctx, "", Now)
	wg.Go(func() {
		for ev, err := range watch {
			if err != nil {
				t.Errorf("watch: %v", err)
				return
			}
			watched <- ev.Key
		}
	})
	const n = 60
	for i := range n {
		if i%20 == 10 {
			a.damaged(&replication.DamageError{File: "test", Problem: "said by the test"})
			before := i/20 + 1
			until(t, "the repair", func() bool { _, done := a.health.snapshot(); return done == before })
		}
		put(t, a, fmt.Sprintf("k%02d", i), "v")
		if _, err := s.Get(ctx, "k00"); err != nil {
			t.Fatalf("get: %v", err)
		}
	}
	converge(t, n, a, b)
	for i := range n {
		want := fmt.Sprintf("k%02d", i)
		if got := <-tailed; got != want {
			t.Fatalf("the tail tells %s, want %s", got, want)
		}
	}
	seen := map[string]bool{}
	for len(seen) < n {
		select {
		case key := <-watched:
			seen[key] = true
		case <-ctx.Done():
			t.Fatalf("the watch told %d of %d keys", len(seen), n)
		}
	}
	stop()
	wg.Wait()
	st, err := a.Status(deadline(t))
	if err != nil || len(st.Damage) != 0 || st.Repairs != 3 {
		t.Errorf("status: %+v, %v", st, err)
	}
}

// flip changes one byte of value wherever it stands in a file of the directory.
func flip(t *testing.T, dir string, value []byte) (flipped int) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) { // of a running node
			return nil
		}
		if err != nil {
			return err
		}
		for at := 0; ; {
			i := bytes.Index(data[at:], value)
			if i < 0 {
				return nil
			}
			at += i
			f, err := os.OpenFile(path, os.O_WRONLY, 0)
			if err != nil {
				return err
			}
			_, err = f.WriteAt([]byte{^value[100]}, int64(at+100))
			if err = errors.Join(err, f.Close()); err != nil {
				return err
			}
			flipped++
			at += len(value)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return flipped
}

// TestDamageWhileRunning: a byte of a stored block flips under a running node. It
// is found at the next read, never served, told in status, and fetched back from
// the peer (G9).
func TestDamageWhileRunning(t *testing.T) {
	t.Parallel()
	var log logBuffer
	a := open(t, Config{Label: "A", Logger: log.logger()})
	b := open(t, Config{Label: "B", Connect: []string{hostPort(t, a)}})
	value := make([]byte, 200<<10)
	if _, err := rand.Read(value); err != nil {
		t.Fatal(err)
	}
	put(t, b, "before", "1")
	put(t, b, "large", string(value))
	put(t, b, "after", "2")
	put(t, a, "own", "3")
	converge(t, 4, a, b)
	if n := flip(t, filepath.Join(a.DataDir(), logDir), value); n == 0 {
		t.Fatal("the value is in no file of the log")
	}
	ctx := deadline(t)
	read := func() error {
		for op, err := range a.Space("").Tail(ctx, "", false) {
			if err != nil {
				return err
			}
			if op.Key == "large" && !bytes.Equal(op.Payload, value) {
				t.Fatalf("damaged bytes were served: %s...", hex.EncodeToString(op.Payload[96:104]))
			}
		}
		return nil
	}
	if err := read(); !errors.Is(err, ErrDamaged) {
		t.Fatalf("reading over the damage: %v", err)
	}
	until(t, "everything is back", func() bool {
		keys := 0
		for op, err := range a.Space("").Tail(ctx, "", false) {
			if err != nil {
				return false
			}
			if op.Kind == kindPut {
				keys++
			}
		}
		return keys == 4
	})
	converge(t, 4, a, b)
	if err := read(); err != nil {
		t.Errorf("after the repair: %v", err)
	}
	var findings []Finding
	if err := a.Verify(ctx, func(f Finding) { findings = append(findings, f) }); err != nil || len(findings) > 0 {
		t.Errorf("verify after the repair: %+v, %v", findings, err)
	}
	if !log.has("level=WARN", "damage") {
		t.Error("the log does not tell of the damage")
	}
	st, err := a.Status(ctx)
	if err != nil || st.Repairs == 0 || len(st.Damage) != 0 {
		t.Errorf("status after the repair: %+v, %v", st, err)
	}
	put(t, a, "own", "4")
	put(t, b, "after", "5")
	converge(t, 4, a, b)
}

// TestVerifyStartsRepair: damage that only verify meets is shown in status and
// repaired as any other.
func TestVerifyStartsRepair(t *testing.T) {
	t.Parallel()
	looked := make(chan struct{}) // closed when status was looked at: no repair before that
	look := sync.OnceFunc(func() { close(looked) })
	a := open(t, Config{Label: "A", repairPause: time.Millisecond, beforeRepair: func() { <-looked }})
	t.Cleanup(look)
	b := open(t, Config{Label: "B", Connect: []string{hostPort(t, a)}})
	value := make([]byte, 200<<10)
	if _, err := rand.Read(value); err != nil {
		t.Fatal(err)
	}
	put(t, b, "large", string(value))
	put(t, a, "own", "1")
	converge(t, 2, a, b)
	if n := flip(t, filepath.Join(a.DataDir(), logDir), value); n == 0 {
		t.Fatal("the value is in no file of the log")
	}
	ctx := deadline(t)
	status := func() Status {
		t.Helper()
		st, err := a.Status(deadline(t))
		if err != nil {
			t.Fatal(err)
		}
		return st
	}
	if st := status(); len(st.Damage) != 0 || st.Repairs != 0 {
		t.Fatalf("before verify: %+v", st)
	}
	var findings []Finding
	if err := a.Verify(ctx, func(f Finding) { findings = append(findings, f) }); err != nil || len(findings) == 0 {
		t.Fatalf("verify over the damage: %+v, %v", findings, err)
	}
	until(t, "status shows what verify found", func() bool {
		st := status()
		if st.Repairs != 0 {
			t.Fatalf("a repair before status was looked at: %+v", st)
		}
		return slices.ContainsFunc(st.Damage, func(d Damage) bool {
			return d.Log == findings[0].Log && d.Seq == findings[0].Seq && d.Problem == findings[0].Problem
		})
	})
	look()
	until(t, "the repair", func() bool { st := status(); return st.Repairs > 0 && len(st.Damage) == 0 })
	until(t, "verify finds nothing any more", func() bool {
		findings = nil
		err := a.Verify(ctx, func(f Finding) { findings = append(findings, f) })
		return err == nil && len(findings) == 0
	})
	if st := status(); len(st.Damage) != 0 || st.Lost != "" || st.Spaces["default"].Keys != 2 {
		t.Errorf("after the repair: %+v", st)
	}
	converge(t, 2, a, b)
}

// TestRepairsArePaced: damage that is found again and again does not make the
// node do nothing else.
func TestRepairsArePaced(t *testing.T) {
	t.Parallel()
	n := offline(t)
	d := &replication.DamageError{File: "test", Problem: "said by the test"}
	for range 100 {
		n.damaged(d)
	}
	until(t, "a repair", func() bool { _, done := n.health.snapshot(); return done > 0 })
	n.damaged(d)
	time.Sleep(100 * time.Millisecond)
	if _, done := n.health.snapshot(); done > 2 {
		t.Errorf("%d repairs at once", done)
	}
	put(t, n, "k", "1")
}

// TestLossStaysTold: what a node without peers lost is told by status and verify
// after every start, until its user dismisses it.
func TestLossStaysTold(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	ctx := deadline(t)
	start := func() *Node {
		n, err := Open(ctx, Config{DataDir: dir, Label: "A", Offline: true})
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	told := func(n *Node) (lost string, findings int) {
		st, err := n.Status(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if err := n.Verify(ctx, func(Finding) { findings++ }); err != nil {
			t.Fatal(err)
		}
		return st.Lost, findings
	}
	value := make([]byte, 200<<10)
	if _, err := rand.Read(value); err != nil {
		t.Fatal(err)
	}
	n := start()
	put(t, n, "large", string(value))
	if lost, findings := told(n); lost != "" || findings != 0 {
		t.Fatalf("nothing is lost, but: %q, %d findings", lost, findings)
	}
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	if flip(t, filepath.Join(dir, logDir), value) == 0 {
		t.Fatal("the value is in no file of the log")
	}
	// Whoever meets the damage first, an open or a verify, leads to the repair.
	n = start()
	if _, findings := told(n); findings == 0 {
		t.Error("verify does not tell of the damage")
	}
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		n = start()
		if lost, findings := told(n); lost == "" || findings == 0 {
			t.Errorf("after a loss: %q, %d findings", lost, findings)
		}
		if err := n.Close(); err != nil {
			t.Fatal(err)
		}
	}
	aside, err := filepath.Glob(filepath.Join(dir, logDir, "db.damaged-*"))
	if err != nil || len(aside) != 1 {
		t.Fatalf("set aside: %v, %v", aside, err)
	}
	if err := os.RemoveAll(aside[0]); err != nil {
		t.Fatal(err)
	}
	n = start()
	defer n.Close()
	if lost, findings := told(n); lost != "" || findings != 0 {
		t.Errorf("dismissed, but: %q, %d findings", lost, findings)
	}
}
