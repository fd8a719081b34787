package localapi

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"
)

// pausing is a fake whose List goes on after its first entry when it is told to.
type pausing struct {
	*fake
	goOn chan struct{}
}

func (p *pausing) List(ctx context.Context, space string, l List, emit func(Entry) error) error {
	first := true
	return p.fake.List(ctx, space, l, func(e Entry) error {
		if !first {
			select {
			case <-p.goOn:
			case <-ctx.Done():
			}
		}
		first = false
		return emit(e)
	})
}

// A client that reads nothing for too long loses its stream, hears why, and
// holds no place.
func TestStalledClientIsCutOff(t *testing.T) {
	// The client stalls before there is more than one small entry to read: one that
	// is only slow, on a busy machine, is not cut off before it does.
	f := &pausing{newFake(), make(chan struct{})}
	value := ValueOf([]byte(strings.Repeat("x", 1<<20)))
	const entries = 64 // more than the system buffers
	f.keys["00"] = Entry{Key: KeyOf([]byte("00")), Value: ValueOf([]byte("small"))}
	for i := range entries - 1 {
		k := fmt.Sprintf("%02d", i+1)
		f.keys[k] = Entry{Key: KeyOf([]byte(k)), Value: value}
	}
	const stall = 500 * time.Millisecond
	s, err := Start(Config{Dir: t.TempDir(), Backend: f, stall: stall})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	c, err := Dial(t.Context(), s.cfg.Dir)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.stall = stall
	n := 0
	err = c.List(t.Context(), "default", List{}, func(Entry) error {
		if n++; n > 1 {
			return nil
		}
		close(f.goOn)
		for deadline := time.Now().Add(30 * time.Second); len(s.slots) > 0; time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Error("the stream is not cut off")
				break
			}
		}
		return nil
	})
	if n >= entries || CodeOf(err) != CodeTimeout || !strings.Contains(err.Error(), "nothing read on for 500ms") {
		t.Errorf("%d entries, %v", n, err)
	}
	if _, err := c.Status(t.Context()); err != nil {
		t.Error(err)
	}
}

// A stream that has nothing to tell for longer than that goes on, and so does
// its connection.
func TestQuietStreamGoesOn(t *testing.T) {
	f := newFake()
	const stall = 300 * time.Millisecond // what a busy machine may need between the begin and the end of a write
	s, err := Start(Config{Dir: t.TempDir(), Backend: f, stall: stall})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	c, err := Dial(t.Context(), s.cfg.Dir)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	write := func() error {
		_, err := f.Write(t.Context(), "", Write{Ops: []Op{{Op: OpAppend, Kind: "note"}}})
		return err
	}
	if err := write(); err != nil {
		t.Fatal(err)
	}
	n := 0
	if err := c.Tail(t.Context(), "default", Tail{Follow: true, Count: 3}, func(Record) error {
		n++
		time.Sleep(2 * stall) // the quiet that is the matter of this test
		return write()
	}); err != nil || n != 3 {
		t.Errorf("%d records, %v", n, err)
	}
	time.Sleep(2 * stall)
	if _, err := c.Status(t.Context()); err != nil {
		t.Errorf("on the same connection: %v", err)
	}
}
