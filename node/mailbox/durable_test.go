package mailbox

import (
	"errors"
	"os"
	"strings"
	"syscall"
	"testing"

	"vixp2p/replication"
	"vixp2p/routing"
)

// letter is a text of a sender, and its message as far as a box looks at it.
func letter(from byte, n int, text string) routing.PutInbox {
	return routing.PutInbox{Msg: &routing.Message{Header: routing.Header{From: routing.PeerKey{from}, ID: routing.ID{byte(n), byte(n >> 8)}}}, Text: []byte(text)}
}

func openOn(t testing.TB, d *memDisk) *Box {
	t.Helper()
	b, _, err := Open(Options{Dir: memDir, ReserveBytes: -1, disk: d})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func put(t testing.TB, b *Box, text string) {
	t.Helper()
	if err := b.Apply([]routing.StoreOp{letter(1, int(b.Last())+1, text)}); err != nil {
		t.Fatal(err)
	}
}

// inbox are the texts in a box that is well.
func inbox(t testing.TB, b *Box) string {
	t.Helper()
	list, err := b.Inbox(0, 1000)
	if err != nil || b.Recovered() != "" {
		t.Fatalf("%v, %q", err, b.Recovered())
	}
	var all []string
	for _, e := range list {
		all = append(all, string(e.Text))
	}
	return strings.Join(all, " ")
}

// What a killed process left in memory alone is durable once it is read again.
func TestWhatAKillLeftIsDurableWhenItIsRead(t *testing.T) {
	d := newMemDisk()
	b := openOn(t, d)
	put(t, b, "one")
	d.onWrite = func() { d.dead = true }
	if err := b.Apply([]routing.StoreOp{letter(1, 2, strings.Repeat("long ", 3000))}); err == nil {
		t.Fatal("a dead process stored a text")
	}
	d.onWrite, d.dead = nil, false
	b = openOn(t, d)
	seen := inbox(t, b)
	if len(seen) < 15000 {
		t.Fatalf("the second text is not in the page cache: the test shows nothing: %d bytes", len(seen))
	}
	d.powerCut()
	if left := inbox(t, openOn(t, d)); left != seen {
		t.Errorf("%d bytes of texts were read and may have been acknowledged, and %d are left after a power cut", len(seen), len(left))
	}
}

// What a failed sync was to store never was, nothing is stored after it, and a box
// that is opened again has all that was confirmed and stores again.
func TestAfterAFailedSync(t *testing.T) {
	for name, cannotCut := range map[string]bool{"it is cut off": false, "it cannot be cut off": true} {
		t.Run(name, func(t *testing.T) {
			d := newMemDisk()
			b := openOn(t, d)
			put(t, b, "one")
			d.syncErr = &os.PathError{Op: "sync", Path: FileName, Err: syscall.ENOSPC}
			if cannotCut {
				b.file.f = stuck{b.file.f}
			}
			long := strings.Repeat("long ", 3000)
			err := b.Apply([]routing.StoreOp{letter(1, 2, long)})
			if !errors.Is(err, replication.ErrNoSpace) {
				t.Errorf("a sync that found no room: %v", err)
			}
			if got := inbox(t, b); got != "one" {
				t.Errorf("the box has %q", got)
			}
			if b.Broken() == nil {
				t.Error("the box passes for well")
			}
			if err := b.Apply([]routing.StoreOp{letter(1, 3, "three")}); err == nil {
				t.Error("stored after a failed sync")
			}
			b.Close()
			// While there is no room it does not open.
			if _, _, err := Open(Options{Dir: memDir, ReserveBytes: -1, disk: d}); !errors.Is(err, replication.ErrNoSpace) {
				t.Errorf("opened while nothing can be confirmed: %v", err)
			}
			d.syncErr = nil
			b = openOn(t, d)
			want := "one"
			if cannotCut {
				want = "one " + long
			}
			if got := inbox(t, b); got != want {
				t.Errorf("opened again it has %d bytes, not %d", len(got), len(want))
			}
			put(t, b, "four")
			d.powerCut()
			if got := inbox(t, openOn(t, d)); got != want+" four" {
				t.Errorf("after a power cut it has %d bytes, not %d", len(got), len(want)+5)
			}
		})
	}
}

// stuck cannot be cut.
type stuck struct{ file }

func (stuck) Truncate(int64) error { return errors.New("it cannot be cut") }

// Wherever the process dies, what was confirmed is there after a power cut too, and
// what is there was written; so is what the next process stores.
func TestKilledAtEveryWrite(t *testing.T) {
	texts := []string{"one", "two", strings.Repeat("x", 9000), "four"}
	for after := 1; ; after++ {
		d := newMemDisk()
		writes, confirmed := 0, 0
		d.onWrite = func() {
			if writes++; writes == after {
				d.dead = true
			}
		}
		b, _, err := Open(Options{Dir: memDir, ReserveBytes: -1, disk: d})
		for _, text := range texts {
			if err == nil {
				if err = b.Apply([]routing.StoreOp{letter(1, confirmed, text)}); err == nil {
					confirmed++
				}
			}
		}
		if err == nil {
			if after < len(texts) {
				t.Errorf("all was done in %d writes", after)
			}
			return
		}
		d.dead, d.onWrite = false, nil
		for _, cut := range []bool{false, true} {
			if cut {
				d.powerCut()
			}
			b := openOn(t, d)
			got := strings.TrimSpace(strings.TrimSuffix(inbox(t, b), "last"))
			least := strings.Join(texts[:confirmed], " ")
			most := strings.Join(texts[:min(confirmed+1, len(texts))], " ")
			if got != least && got != most {
				t.Fatalf("killed at write %d, power cut %v: %d texts were confirmed, and there are %d bytes of them", after, cut, confirmed, len(got))
			}
			if cut && !strings.HasSuffix(inbox(t, b), "last") {
				t.Fatalf("killed at write %d: what the next process stored is lost in a power cut", after)
			}
			put(t, b, "last")
		}
	}
}

// A new file counts only when its name is durable: what is written to it would be
// lost with the name.
func TestTheNameIsDurable(t *testing.T) {
	d := newMemDisk()
	d.dirErr = errors.New("the directory cannot be synced")
	if _, _, err := Open(Options{Dir: memDir, ReserveBytes: -1, disk: d}); !errors.Is(err, d.dirErr) {
		t.Errorf("opened without a durable name: %v", err)
	}
	d.dirErr = nil
	b := openOn(t, d)
	put(t, b, "one")
	d.dirErr = errors.New("the directory cannot be synced")
	b.spoiled = true // so that it is written anew
	put(t, b, "two") // the change is durable under either name
	if !errors.Is(b.Broken(), d.dirErr) {
		t.Errorf("broken: %v", b.Broken())
	}
	if _, err := b.Inbox(0, 1); !errors.Is(err, d.dirErr) {
		t.Errorf("what is read after that: %v", err)
	}
	d.dirErr = nil
	d.powerCut()
	if got := inbox(t, openOn(t, d)); got != "one two" {
		t.Errorf("the box has %q", got)
	}
}

// A place that the disk does not give back costs the text there; if the file cannot
// be written anew, that is tried again later.
func TestBadSector(t *testing.T) {
	d := newMemDisk()
	b := openOn(t, d)
	for _, text := range []string{"one", "two", "three"} {
		put(t, b, text)
	}
	at := b.index.inbox[1].at
	d.bad = func(off int64, size int) bool { return off <= at && at < off+int64(size) && size > 0 }
	d.syncErr = errors.New("no more")
	list, err := b.Inbox(0, 10)
	if err != nil || len(list) != 2 || string(list[0].Text)+string(list[1].Text) != "onethree" {
		t.Fatalf("read %+v, %v", list, err)
	}
	if b.Broken() != nil || !b.spoiled {
		t.Errorf("broken %v, spoiled %v", b.Broken(), b.spoiled)
	}
	d.syncErr = nil
	put(t, b, strings.Repeat("x", minRetry))
	put(t, b, "five")
	if b.spoiled || b.tooSoon != 0 || !strings.Contains(b.Recovered(), "1 messages in the inbox and 0") {
		t.Errorf("spoiled %v, too soon below %d, %q", b.spoiled, b.tooSoon, b.Recovered())
	}
	d.bad = nil
	b.Close()
	if got := inbox(t, openOn(t, d)); len(got) != len("one three five ")+minRetry {
		t.Errorf("%d bytes of texts", len(got))
	}
	if _, err := b.Inbox(0, 1); !errors.Is(err, replication.ErrClosed) {
		t.Errorf("a closed box: %v", err)
	}
}
