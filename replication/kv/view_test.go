package kv

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"vixp2p/replication"
)

func TestReadYourWrites(t *testing.T) {
	s := newStore(t, 1)
	v := openView(t, s, tempDir(t))
	for i := range 200 {
		write(t, s, v, put("k", fmt.Sprint(i)))
		if e := wantValue(t, v, "k", fmt.Sprint(i)); e.Conflicts != 0 {
			t.Fatalf("write %d conflicts with an own one", i)
		}
	}
	write(t, s, v, del("k"))
	wantValue(t, v, "k", "")
	settled(t, s, v)
	wantValue(t, v, "k", "")
}

func TestBatchSeesItself(t *testing.T) {
	s := newStore(t, 1)
	v := openView(t, s, tempDir(t))
	write(t, s, v, put("a", "1"), put("a", "2"), put("b", "1"), del("b"), put("c", "3"))
	for range 2 { // from the overlay and from the database
		if e := wantValue(t, v, "a", "2"); e.Conflicts != 0 {
			t.Error("two writes of one batch conflict")
		}
		wantValue(t, v, "b", "")
		wantValue(t, v, "c", "3")
		settled(t, s, v)
	}
}

func TestConditionalPut(t *testing.T) {
	s := newStore(t, 1)
	v := openView(t, s, tempDir(t))
	ctx := testContext(t)
	cas := func(value string, dots ...replication.Dot) error {
		_, err := s.Append(ctx, replication.Batch{
			Space: testSpace, Ops: []replication.Op{put("k", value)}, Resolver: v,
			If: []replication.Condition{{Key: []byte("k"), Dots: dots}},
		})
		return err
	}
	if err := cas("1"); err != nil {
		t.Fatal(err)
	}
	if err := cas("2"); !errors.Is(err, replication.ErrConflict) {
		t.Fatalf("a second create: %v", err)
	}
	e := wantValue(t, v, "k", "1")
	if err := cas("2", e.Dot); err != nil {
		t.Fatal(err)
	}
	if err := cas("3", e.Dot); !errors.Is(err, replication.ErrConflict) {
		t.Fatalf("a condition on what was replaced: %v", err)
	}
	wantValue(t, v, "k", "2")
}

func TestListInKeyOrder(t *testing.T) {
	s := newStore(t, 1)
	v := openView(t, s, tempDir(t))
	var want []string
	for i := range 700 {
		key := fmt.Sprintf("user/%03d", i)
		write(t, s, v, put(key, "x"), put(fmt.Sprintf("other/%d", i), "y"))
		if i%5 == 0 {
			write(t, s, v, del(key))
		} else {
			want = append(want, key)
		}
	}
	for range 2 {
		var got []string
		err := v.List(testContext(t), testSpace, []byte("user/"), func(e Entry) error {
			got = append(got, string(e.Key))
			return nil
		})
		if err != nil || !slices.Equal(got, want) {
			t.Fatalf("%d keys, want %d: %v", len(got), len(want), err)
		}
		settled(t, s, v)
	}
}

func TestReopenKeepsState(t *testing.T) {
	s, dir := newStore(t, 1), tempDir(t)
	v := openView(t, s, dir)
	for i := range 100 {
		write(t, s, v, put(fmt.Sprint(i), "x"))
	}
	settled(t, s, v)
	before, err := v.Summary(testContext(t), testSpace)
	if err != nil {
		t.Fatal(err)
	}
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	v = openView(t, s, dir)
	after, err := v.Summary(testContext(t), testSpace)
	if err != nil || after.Digest != before.Digest || after.Keys != 100 {
		t.Fatalf("%d keys after reopening, %v", after.Keys, err)
	}
	if v.Generation() != 1 {
		t.Errorf("generation %d after a clean close", v.Generation())
	}
}

// A rebuild that somebody asked for is no warning, and has no reason to give.
func TestLogOfAWantedRebuild(t *testing.T) {
	var log bytes.Buffer
	v := openViewWith(t, Options{
		Dir: tempDir(t), Store: newStore(t, 1), BootID: "boot", Logger: slog.New(slog.NewTextHandler(&log, nil)),
	})
	if err := v.Rebuild(testContext(t)); err != nil {
		t.Fatal(err)
	}
	if err := v.Close(); err != nil { // nobody logs any more
		t.Fatal(err)
	}
	if got := log.String(); strings.Count(got, "level=INFO") != 1 || strings.Contains(got, "WARN") || strings.Contains(got, "reason") {
		t.Errorf("the log is %q", got)
	}
}

// TestWaitAppliedAcrossSpaces: arrival numbers count over all spaces, and a space
// whose blocks are all older has applied what there is of it.
func TestWaitAppliedAcrossSpaces(t *testing.T) {
	s := newStore(t, 1)
	v := openView(t, s, tempDir(t))
	ctx := testContext(t)
	other := replication.SpaceOf(testNetwork, "other")
	write(t, s, v, put("k", "v"))
	settled(t, s, v)
	for i := range 3 {
		if _, err := s.Append(ctx, replication.Batch{Space: other, Ops: []replication.Op{put("k", fmt.Sprint(i))}, Resolver: v}); err != nil {
			t.Fatal(err)
		}
		for _, id := range []replication.SpaceID{testSpace, other, replication.SpaceOf(testNetwork, "never written")} {
			if err := v.WaitApplied(ctx, id, s.Head()); err != nil {
				t.Fatalf("after write %d: %v", i, err)
			}
		}
		if at := v.Applied(other); at != s.Head() {
			t.Errorf("the space is applied up to %d of %d", at, s.Head())
		}
	}
	// A number that is not given yet is waited for, whoever gets it.
	done := make(chan error, 1)
	next := s.Head() + 1
	go func() { done <- v.WaitApplied(ctx, testSpace, next) }()
	select {
	case err := <-done:
		t.Errorf("it did not wait for block %d: %v", next, err)
	default:
	}
	if _, err := s.Append(ctx, replication.Batch{Space: other, Ops: []replication.Op{put("k", "last")}, Resolver: v}); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestViewRests: a space that is written all the time is applied in large steps.
// Meanwhile this node's own writes are seen, and whoever waits does not wait for
// the end of the rest.
func TestViewRests(t *testing.T) {
	s := newStore(t, 1)
	v := openViewWith(t, Options{Dir: tempDir(t), Store: s, BootID: "boot", pace: time.Hour})
	write(t, s, v, put("k", "first"))
	rests(t, s, v)
	before := v.Applied(testSpace)
	for i := range 500 {
		want := fmt.Sprint(i)
		write(t, s, v, put("k", want))
		wantValue(t, v, "k", want)
	}
	if at := v.Applied(testSpace); at != before {
		t.Errorf("block %d is applied during the rest", at)
	}
	settled(t, s, v)
	if at := v.Applied(testSpace); at != s.Head() {
		t.Errorf("applied up to %d of %d", at, s.Head())
	}
	wantValue(t, v, "k", "499")
}
