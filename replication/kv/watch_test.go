package kv

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"vixp2p/replication"
	"vixp2p/replication/memlog"
)

// next awaits an event.
func next(t *testing.T, w *Watcher) Event {
	t.Helper()
	e, err := w.Next(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func watch(t *testing.T, v *View, prefix string, from replication.Cursor) *Watcher {
	t.Helper()
	w, err := v.Watch(testContext(t), testSpace, []byte(prefix), from)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func TestWatchTellsWhatBecameOfAKey(t *testing.T) {
	s := newStore(t, 1)
	v := openView(t, s, tempDir(t))
	write(t, s, v, put("a", "before"))
	settled(t, s, v)
	w := watch(t, v, "", replication.Cursor{}) // from now on
	write(t, s, v, put("a", "1"))
	if e := next(t, w); e.Kind != EventPut || string(e.Key) != "a" || string(e.Value) != "1" {
		t.Errorf("a put gives %+v", e)
	}
	write(t, s, v, del("a"))
	if e := next(t, w); e.Kind != EventDelete || string(e.Key) != "a" {
		t.Errorf("a delete gives %+v", e)
	}
	other := newAuthor(2, 1)
	o := put("b", "theirs")
	o.HLC = replication.HLCAt(time.Now().Add(time.Second))
	o.Order = uint64(o.HLC)
	write(t, s, v, put("b", "ours"))
	next(t, w)
	ingest(t, s, other, replication.Position{}, other.block([]replication.Op{o}, nil))
	if e := next(t, w); e.Kind != EventConflict || string(e.Value) != "theirs" || e.Conflicts != 1 {
		t.Errorf("a conflict gives %+v", e)
	}
}

func TestWatchOneEventPerKeyOfABlock(t *testing.T) {
	s := newStore(t, 1)
	v := openView(t, s, tempDir(t))
	write(t, s, v, put("x/1", "a"), put("y/1", "a"), put("x/2", "a"), put("x/1", "b"), del("x/2"))
	w := watch(t, v, "x/", v.Begin())
	if e := next(t, w); e.Kind != EventPut || string(e.Key) != "x/1" || string(e.Value) != "b" {
		t.Errorf("first event %+v", e)
	}
	if e := next(t, w); e.Kind != EventDelete || string(e.Key) != "x/2" {
		t.Errorf("second event %+v", e)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if e, err := w.Next(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("a third event %+v, %v", e, err)
	}
}

// TestWatchResumesAnywhere stops and resumes a watcher after every event, over
// reopened views, and wants exactly the events of one that never stopped.
func TestWatchResumesAnywhere(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	h := makeHistory(rnd, shapes["sparse"])
	store := openStore(t, 100, &memlog.Disk{})
	newFeeder(h, rnd).feed(t, store, 1<<20)
	dir := tempDir(t)
	v := openView(t, store, dir)
	settled(t, store, v)

	// The end of the history: a key that occurs nowhere else.
	last := newAuthor(50, 1)
	o := put("zzz", "end")
	o.HLC, o.Order = 1<<50, 1<<50
	ingest(t, store, last, replication.Position{}, last.block([]replication.Op{o}, nil))

	var want []string
	whole := watch(t, v, "", v.Begin())
	for {
		e := next(t, whole)
		want = append(want, fmt.Sprint(e.Kind, string(e.Key), e.Cursor))
		if string(e.Key) == "zzz" {
			break
		}
	}
	at, reopened := v.Begin(), 0
	for i := range want {
		if i%40 == 7 {
			if err := v.Close(); err != nil {
				t.Fatal(err)
			}
			v = openView(t, store, dir)
			reopened++
		}
		e := next(t, watch(t, v, "", at))
		if got := fmt.Sprint(e.Kind, string(e.Key), e.Cursor); got != want[i] {
			t.Fatalf("event %d is %s, want %s", i, got, want[i])
		}
		at = e.Cursor
	}
	if reopened == 0 || len(want) < 50 {
		t.Errorf("%d events and %d reopened views show little", len(want), reopened)
	}
}

func TestWatchResets(t *testing.T) {
	s := newStore(t, 1)
	v := openView(t, s, tempDir(t))
	write(t, s, v, put("a", "1"))
	settled(t, s, v)
	w := watch(t, v, "", v.Begin())
	old := next(t, w).Cursor
	if err := v.Rebuild(testContext(t)); err != nil {
		t.Fatal(err)
	}
	foreign := old
	foreign.Generation, foreign.Instance = v.Generation(), replication.Instance{9}
	beyond := v.Begin()
	beyond.Arrival = 99
	watchers := map[string]*Watcher{
		"a live watcher":               w,
		"a cursor before a rebuild":    watch(t, v, "", old),
		"a cursor of another instance": watch(t, v, "", foreign),
		"a cursor beyond the end":      watch(t, v, "", beyond),
	}
	for name, w := range watchers {
		e := next(t, w)
		if e.Kind != EventReset || e.Cursor.Generation != v.Generation() || e.Cursor.Arrival == 0 {
			t.Errorf("%s gives %+v", name, e)
		}
	}
	write(t, s, v, put("b", "2"))
	for name, w := range watchers {
		if e := next(t, w); e.Kind != EventPut || string(e.Key) != "b" {
			t.Errorf("%s then gives %+v", name, e)
		}
	}
}

// TestWatchWaits: an event that comes while Next waits wakes it.
func TestWatchWaits(t *testing.T) {
	s := newStore(t, 1)
	v := openView(t, s, tempDir(t))
	w := watch(t, v, "", replication.Cursor{})
	got := make(chan Event, 1)
	go func() {
		e, err := w.Next(testContext(t))
		if err != nil {
			t.Error(err)
		}
		got <- e
	}()
	write(t, s, v, put("a", "1"))
	if e := <-got; string(e.Key) != "a" {
		t.Errorf("event %+v", e)
	}
}

// TestCloseEndsWatchers: a Next that waits when its view is closed, or that is about to,
// hears of that: what follows is told by another view.
func TestCloseEndsWatchers(t *testing.T) {
	s := newStore(t, 1)
	for range 20 {
		v := openView(t, s, tempDir(t))
		ctx := testContext(t)
		var begun, done sync.WaitGroup
		for range 50 {
			w := watch(t, v, "", replication.Cursor{})
			begun.Add(1)
			done.Go(func() {
				begun.Done()
				if _, err := w.Next(ctx); !errors.Is(err, replication.ErrClosed) {
					t.Errorf("after Close: %v", err)
				}
			})
		}
		begun.Wait()
		if err := v.Close(); err != nil {
			t.Fatal(err)
		}
		done.Wait()
		if t.Failed() {
			return
		}
	}
}
