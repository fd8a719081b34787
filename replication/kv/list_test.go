package kv

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"vixp2p/replication"
)

// fillKeys writes n keys with a value, some of them in the database and some, if
// the view has not come to them, in the overlay.
func fillKeys(t *testing.T, s replication.Store, v *View, n int, value string) {
	t.Helper()
	for from := 0; from < n; from += 500 {
		var ops []replication.Op
		for i := from; i < min(n, from+500); i++ {
			ops = append(ops, put(fmt.Sprintf("key/%05d", i), value))
		}
		write(t, s, v, ops...)
	}
}

// TestListHoldsUpNobody: while the function that List calls does not return, the
// view can be rebuilt and closed; the list then ends with an error that tells.
func TestListHoldsUpNobody(t *testing.T) {
	for name, c := range map[string]struct {
		end  func(*View) error
		want error
	}{
		"close":   {(*View).Close, replication.ErrClosed},
		"rebuild": {func(v *View) error { return v.Rebuild(testContext(t)) }, ErrNotReady},
		"rebuild and close": {func(v *View) error {
			return errors.Join(v.Rebuild(testContext(t)), v.Close())
		}, replication.ErrClosed},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStore(t, 1)
			v := openView(t, s, tempDir(t))
			const keys = 3 * pageEntries
			fillKeys(t, s, v, keys, "x")
			settled(t, s, v)
			called, seen := make(chan struct{}), 0
			goOn, done := make(chan struct{}), make(chan error, 1)
			go func() {
				done <- v.List(testContext(t), testSpace, nil, func(Entry) error {
					if seen++; seen == 1 {
						close(called)
						<-goOn
					}
					return nil
				})
			}()
			<-called
			if err := c.end(v); err != nil {
				t.Fatal(err)
			}
			close(goOn)
			if err := <-done; !errors.Is(err, c.want) {
				t.Errorf("the list ends with %v", err)
			}
			if seen == 0 || seen > pageEntries {
				t.Errorf("it gave %d of %d keys", seen, keys)
			}
		})
	}
}

// TestListIsOneState: a list shows the state of its beginning to its end, however
// much is written and compacted between its pages.
func TestListIsOneState(t *testing.T) {
	s := newStore(t, 1)
	v := openSmall(t, s, tempDir(t))
	const keys = 2*pageEntries + 10
	fillKeys(t, s, v, keys, "first")
	seen := 0
	err := v.List(testContext(t), testSpace, []byte("key/"), func(e Entry) error {
		if seen++; seen == 1 {
			for n := range 8 {
				fillKeys(t, s, v, keys, fmt.Sprint(n, strings.Repeat("y", 2000)))
			}
			write(t, s, v, del("key/00300"), put("key/00300x", "new"))
			settled(t, s, v)
			if err := v.d.db.Flatten(2); err != nil {
				t.Fatal(err)
			}
		}
		if string(e.Value) != "first" {
			t.Errorf("%s is %.10q", e.Key, e.Value)
		}
		return nil
	})
	if err != nil || seen != keys {
		t.Errorf("%d of %d keys, %v", seen, keys, err)
	}
	v.d.mu.Lock()
	defer v.d.mu.Unlock()
	if len(v.d.marks) != 1 {
		t.Errorf("%d states are kept for nobody", len(v.d.marks))
	}
}

// TestListPages: a page is bounded in entries and bytes, also where all of it is
// in the overlay.
func TestListPages(t *testing.T) {
	for name, applied := range map[string]bool{"applied": true, "overlay": false} {
		t.Run(name, func(t *testing.T) {
			s := newStore(t, 1)
			v := openView(t, s, tempDir(t))
			value := strings.Repeat("x", 100<<10)
			for i := range 40 {
				write(t, s, v, put(fmt.Sprintf("big/%02d", i), value))
			}
			fillKeys(t, s, v, 2*pageEntries+1, "x")
			settled(t, s, v)
			over := v.overlay.under(testSpace, nil)
			if !applied { // as if nothing of it were applied
				other := newStore(t, 2)
				for i := range 40 {
					over = append(over, keyOps{fmt.Appendf(nil, "big/%02d", i), []*overlayOp{{sibling: sibling{value: []byte(value)}}}})
				}
				for i := range 2*pageEntries + 1 {
					over = append(over, keyOps{fmt.Appendf(nil, "key/%05d", i), []*overlayOp{{sibling: sibling{value: []byte("x")}}}})
				}
				for i := range over {
					over[i].ops[0].dot = replication.Dot{Log: newAuthor(9, 9).log, Seq: uint64(i) + 1}
				}
				v = openView(t, other, tempDir(t))
			}
			p, ok := v.d.pin()
			if !ok {
				t.Fatal("no snapshot")
			}
			defer p.release()
			l := lister{v: v, pin: p, space: testSpace, prefix: stateKey(testSpace, nil), over: over}
			keys, pages := 0, 0
			for !l.end {
				page, err := l.page()
				if err != nil {
					t.Fatal(err)
				}
				size := 0
				for _, e := range page {
					size += len(e.Key) + len(e.Value)
				}
				if len(page) > pageEntries || size > pageBytes+len(value)+100 {
					t.Errorf("a page of %d entries and %d bytes", len(page), size)
				}
				keys += len(page)
				pages++
			}
			if keys != 40+2*pageEntries+1 || pages < 6 {
				t.Errorf("%d keys in %d pages", keys, pages)
			}
		})
	}
}
