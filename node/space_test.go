package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
)

func offline(t *testing.T) *Node { return open(t, Config{Label: "A", Offline: true}) }

func TestReadsAndWrites(t *testing.T) {
	n := offline(t)
	s, ctx := n.Space(""), deadline(t)
	w, err := s.Put(ctx, "k", []byte("1"))
	if err != nil || w.Seq != 1 || len(w.Log) != 64 {
		t.Fatalf("put: %+v, %v", w, err)
	}
	e, err := s.Get(ctx, "k")
	if err != nil || string(e.Value) != "1" || e.Seq != 1 || e.Log != w.Log || e.Origin != n.ID() {
		t.Fatalf("get: %+v, %v", e, err)
	}
	if _, err := s.PutIf(ctx, "k", []byte("2"), e); err != nil {
		t.Errorf("put on what was read: %v", err)
	}
	if _, err := s.PutIf(ctx, "k", []byte("3"), e); !errors.Is(err, ErrConflict) {
		t.Errorf("put on what is no longer there: %v", err)
	}
	if _, err := s.PutIf(ctx, "new", []byte("1"), Entry{}); err != nil {
		t.Errorf("put on an absent key: %v", err)
	}
	if _, err := s.PutIf(ctx, "new", []byte("2"), Entry{}); !errors.Is(err, ErrConflict) {
		t.Errorf("put on a key that should be absent: %v", err)
	}
	if _, err := s.Delete(ctx, "k"); err != nil {
		t.Error(err)
	}
	if _, err := s.Get(ctx, "k"); !errors.Is(err, ErrNotFound) {
		t.Errorf("get after delete: %v", err)
	}
}

func TestBatchIsATransaction(t *testing.T) {
	n := offline(t)
	s, ctx := n.Space(""), deadline(t)
	w, err := s.Batch(ctx, func(b *Batch) error {
		for i := range 10 {
			b.Put(fmt.Sprint("k", i), []byte("v"))
		}
		b.Delete("k0")
		return nil
	})
	if err != nil || w.Seq != 11 {
		t.Fatalf("batch: %+v, %v", w, err)
	}
	_, err = s.Batch(ctx, func(b *Batch) error {
		b.Put("k1", []byte("changed"))
		b.PutIf("k2", []byte("changed"), Entry{})
		return nil
	})
	if !errors.Is(err, ErrConflict) {
		t.Errorf("a batch with a condition that fails: %v", err)
	}
	stop := errors.New("stop")
	if _, err := s.Batch(ctx, func(b *Batch) error { b.Put("k1", nil); return stop }); !errors.Is(err, stop) {
		t.Errorf("a batch that its function gives up: %v", err)
	}
	if e, err := s.Get(ctx, "k1"); err != nil || string(e.Value) != "v" {
		t.Errorf("something of a failed batch happened: %+v, %v", e, err)
	}
	var keys []string
	for e, err := range s.List(ctx, "k") {
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, e.Key)
	}
	want := []string{"k1", "k2", "k3", "k4", "k5", "k6", "k7", "k8", "k9"}
	if !slices.Equal(keys, want) {
		t.Errorf("list: %v, want %v", keys, want)
	}
	for _, err := range s.List(ctx, "") {
		if err != nil {
			t.Error(err)
		}
		break // ending early is fine
	}
}

func TestBadWrites(t *testing.T) {
	s, ctx := offline(t).Space(""), deadline(t)
	for _, c := range []struct {
		name string
		do   func() (*Write, error)
		want error
	}{
		{"an empty key", func() (*Write, error) { return s.Put(ctx, "", nil) }, ErrInvalid},
		{"a long key", func() (*Write, error) { return s.Put(ctx, strings.Repeat("k", 4097), nil) }, ErrTooLarge},
		{"a large value", func() (*Write, error) { return s.Put(ctx, "k", make([]byte, 1<<20+1)) }, ErrTooLarge},
		{"an empty kind", func() (*Write, error) { return s.Append(ctx, "", nil) }, ErrInvalid},
		{"a long kind", func() (*Write, error) { return s.Append(ctx, strings.Repeat("k", 65), nil) }, ErrInvalid},
		{"an empty batch", func() (*Write, error) { return s.Batch(ctx, func(*Batch) error { return nil }) }, ErrInvalid},
		{"a space name", func() (*Write, error) { return s.n.Space("a\nb").Put(ctx, "k", nil) }, nil},
	} {
		if w, err := c.do(); err == nil || c.want != nil && !errors.Is(err, c.want) {
			t.Errorf("%s: %+v, %v, want %v", c.name, w, err, c.want)
		}
	}
	canceled, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := s.Put(canceled, "k", nil); !errors.Is(err, context.Canceled) {
		t.Errorf("a put that was given up before it began: %v", err)
	}
}

// TestWatch: events in order and without gaps, from now, from a cursor, from the
// start, and after the history has changed.
func TestWatch(t *testing.T) {
	n := offline(t)
	s, ctx := n.Space(""), deadline(t)
	put(t, n, "user/0", "before")
	ranged, done := context.WithCancel(ctx)
	defer done()
	events := s.Watch(ranged, "user/", "") // from this moment on
	put(t, n, "user/1", "a")
	put(t, n, "other", "b")
	put(t, n, "user/2", "c")
	if _, err := s.Delete(ctx, "user/1"); err != nil {
		t.Fatal(err)
	}
	put(t, n, "user/end", "")
	var got []Event
	for ev, err := range events {
		if err != nil {
			t.Fatal(err)
		}
		if got = append(got, ev); ev.Key == "user/end" {
			done() // ends the range without an error
		}
	}
	var keys []string
	for _, e := range got {
		keys = append(keys, e.Key)
	}
	// The state is as new as the event or newer, so that the first may be told as
	// deleted already.
	want := []string{"user/1", "user/2", "user/1", "user/end"}
	if !slices.Equal(keys, want) || got[2].Kind != EventDelete {
		t.Fatalf("events %v, want %v", got, want)
	}
	first := func(from Cursor) Event {
		t.Helper()
		for ev, err := range s.Watch(ctx, "user/", from) {
			if err != nil {
				t.Fatal(err)
			}
			return ev
		}
		t.Fatal("no event")
		return Event{}
	}
	if ev := first(got[1].Cursor); ev.Key != "user/1" || ev.Kind != EventDelete {
		t.Errorf("after the second event comes %+v", ev)
	}
	if ev := first(Start); ev.Key != "user/0" {
		t.Errorf("the first event of all is %+v", ev)
	}
	if err := n.RebuildView(ctx); err != nil {
		t.Fatal(err)
	}
	var kinds []string
	for ev, err := range s.Watch(ctx, "user/", got[3].Cursor) {
		if err != nil {
			t.Fatal(err)
		}
		if kinds = append(kinds, string(ev.Kind)+" "+ev.Key); ev.Key == "user/end" {
			break
		}
	}
	if kinds[0] != "reset " || kinds[1] != "put user/0" {
		t.Errorf("a cursor of before a rebuild gives %v", kinds)
	}
	for _, err := range s.Watch(ctx, "", "nonsense") {
		if !errors.Is(err, ErrInvalid) {
			t.Errorf("a bad cursor: %v", err)
		}
	}
}

func TestTail(t *testing.T) {
	n := offline(t)
	s, ctx := n.Space(""), deadline(t)
	_, err := s.Batch(ctx, func(b *Batch) error {
		b.Put("k", []byte("1"))
		b.Append("chat", []byte("hello"))
		b.Delete("k")
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Append(ctx, "chat", []byte("bye")); err != nil {
		t.Fatal(err)
	}
	tell := func(op Operation) string { return fmt.Sprintf("%d %s %s %s", op.Seq, op.Kind, op.Key, op.Payload) }
	var all []Operation
	for op, err := range s.Tail(ctx, "", false) {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, op)
	}
	want := []string{"1 put k 1", "2 chat  hello", "3 delete k ", "4 chat  bye"}
	if len(all) != len(want) {
		t.Fatalf("%d operations: %+v", len(all), all)
	}
	for i, op := range all {
		if tell(op) != want[i] || op.Origin != n.ID() {
			t.Errorf("operation %d is %q of %s, want %q", i, tell(op), op.Origin, want[i])
		}
	}
	// From each cursor exactly the rest comes.
	for i := range all {
		var rest []string
		for op, err := range s.Tail(ctx, all[i].Cursor, false) {
			if err != nil {
				t.Fatal(err)
			}
			rest = append(rest, tell(op))
		}
		if !slices.Equal(rest, want[i+1:]) {
			t.Errorf("after operation %d comes %v, want %v", i, rest, want[i+1:])
		}
	}
	next := s.Tail(ctx, Now, true)
	if _, err := s.Append(ctx, "chat", []byte("next")); err != nil {
		t.Fatal(err)
	}
	for op, err := range next {
		if err != nil || tell(op) != "5 chat  next" {
			t.Errorf("from now on comes %q, %v", tell(op), err)
		}
		break
	}
	foreign := Cursor(strings.Repeat("0", 32) + ".0.1.1")
	for _, err := range s.Tail(ctx, foreign, false) {
		if !errors.Is(err, ErrCursorReset) {
			t.Errorf("a cursor of another history: %v", err)
		}
	}
}

func TestSpacesAreApart(t *testing.T) {
	n := offline(t)
	ctx := deadline(t)
	put(t, n, "k", "default")
	if _, err := n.Space("notes").Put(ctx, "k", []byte("notes")); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"default": "default", "notes": "notes"} {
		if e, err := n.Space(name).Get(ctx, "k"); err != nil || string(e.Value) != want {
			t.Errorf("%s: %+v, %v", name, e, err)
		}
	}
	if got := n.Spaces(); !slices.Equal(got, []string{"default", "notes"}) {
		t.Errorf("spaces: %v", got)
	}
	// A space in which nothing happens does not hold anything up.
	if _, err := n.Space("notes").Put(ctx, "k2", []byte("later")); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"default", "notes", "never written"} {
		if _, _, err := n.Space(name).Digest(ctx); err != nil {
			t.Errorf("digest of %s: %v", name, err)
		}
		n.Space(name).Watch(ctx, "", Now)
	}
	st, err := n.Status(ctx)
	if err != nil || st.Spaces["notes"].Ops != 2 || st.Spaces["notes"].Keys != 2 || st.Spaces["notes"].Logs != 1 {
		t.Errorf("status: %+v, %v", st.Spaces, err)
	}
}

// TestKindsThatAreRefused: an application's kind cannot pass for a write of a key,
// and can be shown.
func TestKindsThatAreRefused(t *testing.T) {
	t.Parallel()
	n := offline(t)
	s, ctx := n.Space(""), deadline(t)
	for _, kind := range []string{"", "put", "delete", "\xff", "a\nb", "\x00", "\u202e", " a", strings.Repeat("x", 65)} {
		if _, err := s.Append(ctx, kind, nil); !errors.Is(err, ErrInvalid) {
			t.Errorf("append of kind %q: %v", kind, err)
		}
		_, err := s.Batch(ctx, func(b *Batch) error { b.Put("k", nil); b.Append(kind, nil); return nil })
		if !errors.Is(err, ErrInvalid) {
			t.Errorf("a batch with kind %q: %v", kind, err)
		}
	}
	for _, kind := range []string{"Put", "put ausgef\u00fchrt", strings.Repeat("x", 64)} {
		if _, err := s.Append(ctx, kind, nil); err != nil {
			t.Errorf("append of kind %q: %v", kind, err)
		}
	}
	ops := 0
	for _, err := range s.Tail(ctx, "", false) {
		if ops++; err != nil {
			t.Fatal(err)
		}
	}
	if ops != 3 {
		t.Errorf("%d operations, want 3", ops)
	}
}
