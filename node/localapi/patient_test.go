package localapi

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// A client that reads nothing for too long loses its stream, hears why, and
// holds no place.
func TestStalledClientIsCutOff(t *testing.T) {
	f := newFake()
	value := ValueOf([]byte(strings.Repeat("x", 1<<20)))
	const entries = 64 // more than the system buffers
	for i := range entries {
		k := fmt.Sprintf("%02d", i)
		f.keys[k] = Entry{Key: KeyOf([]byte(k)), Value: value}
	}
	const stall = 200 * time.Millisecond
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
		for deadline := time.Now().Add(30 * time.Second); len(s.slots) > 0; time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Error("the stream is not cut off")
				break
			}
		}
		return nil
	})
	if n >= entries || CodeOf(err) != CodeTimeout || !strings.Contains(err.Error(), "nothing read on for 200ms") {
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
	const stall = 20 * time.Millisecond
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
		time.Sleep(3 * stall) // the quiet that is the matter of this test
		return write()
	}); err != nil || n != 3 {
		t.Errorf("%d records, %v", n, err)
	}
	time.Sleep(3 * stall)
	if _, err := c.Status(t.Context()); err != nil {
		t.Errorf("on the same connection: %v", err)
	}
}
