package mailbox_test

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"vixp2p/node/mailbox"
	"vixp2p/replication"
	"vixp2p/routing"
)

var started = time.UnixMilli(1764000000123)

func text(t testing.TB, n int, size int) *routing.Message {
	t.Helper()
	return textFrom(t, 7, n, size)
}

// textFrom is a text of the sender of a number.
func textFrom(t testing.TB, sender byte, n int, size int) *routing.Message {
	t.Helper()
	key := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{sender}, 32))
	h := routing.Header{
		Kind: routing.Text, ID: routing.ID{1, byte(n), byte(n >> 8)}, From: routing.PeerKey(key.Public().(ed25519.PublicKey)), To: routing.PeerKey{9},
		Created: uint64(started.UnixMilli()), Lifetime: 1000, TTL: 8,
	}
	m, err := routing.New(routing.Network{1}, key, h, func([]byte) ([]byte, error) { return bytes.Repeat([]byte{byte(n)}, size), nil })
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func open(t testing.TB, o mailbox.Options) (*mailbox.Box, routing.State) {
	t.Helper()
	b, state, err := mailbox.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return b, state
}

func apply(t testing.TB, b *mailbox.Box, ops ...routing.StoreOp) {
	t.Helper()
	if err := b.Apply(ops); err != nil {
		t.Fatal(err)
	}
}

func TestEverythingIsThereAgain(t *testing.T) {
	o := mailbox.Options{Dir: t.TempDir()}
	b, state := open(t, o)
	if len(state.Held)+len(state.Seen) != 0 || b.Recovered() != "" {
		t.Fatalf("a new box holds %+v, %q", state, b.Recovered())
	}
	m1, m2 := text(t, 1, 100), text(t, 2, 16000)
	changed := b.Changed()
	apply(t, b, routing.PutHeld{Held: routing.Held{Msg: m1, Hops: 3, Via: routing.PeerKey{5}, Order: 1}}, routing.PutHeld{Held: routing.Held{Msg: m2, Order: 2}},
		routing.PutSeen{Key: m1.Key(), Until: started}, routing.PutSeen{Key: m2.Key(), Until: started})
	select {
	case <-changed:
		t.Error("nothing came into the inbox")
	default:
	}
	apply(t, b, routing.PutInbox{Msg: m1, Text: []byte("one")}, routing.PutInbox{Msg: m2, Text: nil}, routing.SetHops{Key: m1.Key(), Hops: 2, Via: routing.PeerKey{6}},
		routing.DropHeld{Key: m2.Key()}, routing.DropSeen{Key: m2.Key()}, routing.DropHeld{Key: m2.Key()}, routing.SetHops{Key: m2.Key()})
	<-changed
	if err := b.MarkRead(1); err != nil {
		t.Fatal(err)
	}
	id := b.ID()
	for range 2 {
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
		b, state = open(t, o)
		if b.ID() != id || b.Recovered() != "" || b.Last() != 2 {
			t.Errorf("another history: %s, %q, last %d", b.ID(), b.Recovered(), b.Last())
		}
		if len(state.Held) != 1 || !bytes.Equal(state.Held[0].Msg.Raw, m1.Raw) || state.Held[0].Hops != 2 || state.Held[0].Via != (routing.PeerKey{6}) || state.Held[0].Order != 1 {
			t.Errorf("held %+v", state.Held)
		}
		if len(state.Seen) != 1 || state.Seen[0].Key != m1.Key() || !state.Seen[0].Until.Equal(started) {
			t.Errorf("seen %+v", state.Seen)
		}
		list, err := b.Inbox(0, 10)
		if err != nil || len(list) != 2 || string(list[0].Text) != "one" || list[0].From != m1.From || list[0].ID != m1.ID || !list[0].Created.Equal(started) || list[1].Arrival != 2 {
			t.Errorf("inbox %+v, %v", list, err)
		}
		if list, err := b.Inbox(1, 1); err != nil || len(list) != 1 || list[0].Arrival != 2 {
			t.Errorf("after the first: %+v, %v", list, err)
		}
		if raw, err := b.Held(m1.Key()); err != nil || !bytes.Equal(raw, m1.Raw) {
			t.Errorf("read %x, %v", raw, err)
		}
		if raw, err := b.Held(m2.Key()); err != nil || raw != nil {
			t.Errorf("what was dropped: %x, %v", raw, err)
		}
		if s := b.Sizes(); s != (mailbox.Sizes{Inbox: 2, Unread: 1, InboxBytes: 3}) {
			t.Errorf("sizes %+v", s)
		}
	}
}

func TestInboxKeepsWhatWasNotRead(t *testing.T) {
	b, _ := open(t, mailbox.Options{Dir: t.TempDir(), InboxCount: 3, InboxBytes: 100})
	in := func(n int) { // each of another sender
		apply(t, b, routing.PutInbox{Msg: textFrom(t, byte(n), n, 100), Text: make([]byte, 20)})
	}
	stranger := textFrom(t, 100, 1, 100).From
	for n := range 3 {
		if !b.Room(stranger, 20) {
			t.Fatalf("no room for %d", n)
		}
		in(n)
	}
	if b.Room(stranger, 0) {
		t.Error("room for a fourth, and none was read")
	}
	if err := b.MarkRead(2); err != nil {
		t.Fatal(err)
	}
	if !b.Room(stranger, 40) || b.Room(stranger, 81) {
		t.Error("what was read counts still, or bytes do not count")
	}
	in(3)
	list, err := b.Inbox(0, 10)
	if err != nil || len(list) != 3 || list[0].Arrival != 2 {
		t.Errorf("the oldest that was read did not go: %+v, %v", list, err)
	}
	if err := b.MarkRead(1); err != nil {
		t.Error(err)
	}
	if s := b.Sizes(); s.Unread != 2 || s.InboxBytes != 60 {
		t.Errorf("sizes %+v", s)
	}
	if err := b.MarkRead(1 << 60); err != nil || b.Sizes().Unread != 0 {
		t.Errorf("read beyond the end: %v", err)
	}
	in(4)
	if b.Sizes().Unread != 1 {
		t.Error("what comes later counts as read")
	}
}

// One sender has a quarter of the inbox, in texts and in bytes, also after the box
// was opened again; the others have the rest.
func TestOneSenderDoesNotFillTheInbox(t *testing.T) {
	for name, c := range map[string]struct{ size, fit int }{"texts": {1, 10}, "bytes": {100, 5}} {
		t.Run(name, func(t *testing.T) {
			o := mailbox.Options{Dir: t.TempDir(), InboxCount: 40, InboxBytes: 2000}
			b, _ := open(t, o)
			greedy, other := textFrom(t, 1, 0, 100).From, textFrom(t, 2, 0, 100).From
			n := 0
			for ; n < 100 && b.Room(greedy, c.size); n++ {
				apply(t, b, routing.PutInbox{Msg: textFrom(t, 1, n, 100), Text: make([]byte, c.size)})
			}
			if n != c.fit {
				t.Errorf("%d texts of one sender, not %d", n, c.fit)
			}
			for range 2 {
				if b.Room(greedy, c.size) || !b.Room(other, c.size) {
					t.Errorf("room for the greedy: %v, for another: %v", b.Room(greedy, c.size), b.Room(other, c.size))
				}
				b.Close()
				b, _ = open(t, o)
			}
			if err := b.MarkRead(1); err != nil {
				t.Fatal(err)
			}
			if !b.Room(greedy, c.size) {
				t.Error("what was read counts")
			}
			if b.Room(greedy, 501) || !b.Room(other, 501) {
				t.Error("the first text of a sender is bounded, or the others are not")
			}
		})
	}
}

func TestFullDisk(t *testing.T) {
	free := uint64(1 << 30)
	b, _ := open(t, mailbox.Options{Dir: t.TempDir(), ReserveBytes: 1 << 20, FreeBytes: func(string) (uint64, error) { return free, nil }})
	m := text(t, 1, 100)
	apply(t, b, routing.PutHeld{Held: routing.Held{Msg: m}})
	free = 1000
	err := b.Apply([]routing.StoreOp{routing.PutSeen{Key: m.Key()}, routing.DropHeld{Key: m.Key()}})
	if !errors.Is(err, replication.ErrNoSpace) {
		t.Fatalf("on a full disk: %v", err)
	}
	if raw, err := b.Held(m.Key()); raw == nil || err != nil {
		t.Errorf("half of it was done: %v", err)
	}
	apply(t, b, routing.DropHeld{Key: m.Key()}) // what gives room back is done
	if _, _, err := mailbox.Open(mailbox.Options{Dir: t.TempDir(), ReserveBytes: 1 << 20, FreeBytes: func(string) (uint64, error) { return free, nil }}); !errors.Is(err, replication.ErrNoSpace) {
		t.Errorf("a new one on a full disk: %v", err)
	}
}

func TestLaterVersion(t *testing.T) {
	o := mailbox.Options{Dir: t.TempDir()}
	b, _ := open(t, o)
	b.Close()
	if err := b.Apply(nil); !errors.Is(err, replication.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
	path := filepath.Join(o.Dir, mailbox.FileName)
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	mailbox.Reversion(raw, 3)
	if err := os.WriteFile(path, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := mailbox.Open(o); !errors.Is(err, replication.ErrTooNew) {
		t.Errorf("a later format: %v", err)
	}
	// The first format had its batches at once.
	if err := os.WriteFile(path, append([]byte("vmb1"), make([]byte, 10000)...), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := mailbox.Open(o); err == nil || !strings.Contains(err.Error(), "before the first release") {
		t.Errorf("the first format: %v", err)
	}
}

// A crash may leave any part of the last batch: it never was, and all before is
// there.
func TestTornEnd(t *testing.T) {
	o := mailbox.Options{Dir: t.TempDir()}
	path := filepath.Join(o.Dir, mailbox.FileName)
	b, _ := open(t, o)
	apply(t, b, routing.PutInbox{Msg: text(t, 1, 100), Text: []byte("first")})
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	apply(t, b, routing.PutInbox{Msg: text(t, 2, 100), Text: []byte("second")}, routing.PutSeen{Key: text(t, 2, 100).Key(), Until: started})
	b.Close()
	after, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for n := len(before); n < len(after); n++ {
		torn := bytes.Clone(after[:n])
		if n%2 == 0 { // the length was made durable before the content
			torn = append(torn, make([]byte, len(after)-n)...)
		}
		if err := os.WriteFile(path, torn, 0o600); err != nil {
			t.Fatal(err)
		}
		b, state := open(t, o)
		list, err := b.Inbox(0, 10)
		if err != nil || b.Recovered() != "" || len(list) != 1 || string(list[0].Text) != "first" || len(state.Seen) != 0 {
			t.Fatalf("cut at %d of %d: %+v, %v, %q", n, len(after), list, err, b.Recovered())
		}
		apply(t, b, routing.PutInbox{Msg: text(t, 3, 100), Text: []byte("third")})
		b.Close()
		b, _ = open(t, o)
		if list, err := b.Inbox(0, 10); err != nil || len(list) != 2 || string(list[1].Text) != "third" || b.Recovered() != "" {
			t.Fatalf("cut at %d, then written: %+v, %v, %q", n, list, err, b.Recovered())
		}
		b.Close()
	}
}

// What is of no use any more does not stay: the file stays short.
func TestFileStaysShort(t *testing.T) {
	o := mailbox.Options{Dir: t.TempDir()}
	path := filepath.Join(o.Dir, mailbox.FileName)
	b, _ := open(t, o)
	keep := text(t, 9999, 5000)
	apply(t, b, routing.PutHeld{Held: routing.Held{Msg: keep, Hops: 2, Order: 7}}, routing.PutInbox{Msg: keep, Text: []byte("kept")})
	for n := range 300 {
		m := text(t, n, 16000)
		apply(t, b, routing.PutHeld{Held: routing.Held{Msg: m}})
		apply(t, b, routing.DropHeld{Key: m.Key()})
		if raw, err := b.Held(keep.Key()); err != nil || !bytes.Equal(raw, keep.Raw) {
			t.Fatalf("after %d messages: %v", n, err)
		}
	}
	if fi, err := os.Stat(path); err != nil || fi.Size() > 3<<19 {
		t.Errorf("5 MB went through a file of %d bytes (%v)", fi.Size(), err)
	}
	id := b.ID()
	b.Close()
	b, state := open(t, o)
	list, err := b.Inbox(0, 10)
	if err != nil || b.ID() != id || b.Recovered() != "" || len(state.Held) != 1 || state.Held[0].Hops != 2 || state.Held[0].Order != 7 || len(list) != 1 || string(list[0].Text) != "kept" {
		t.Errorf("left: %+v, %+v, %v, %q", state, list, err, b.Recovered())
	}
}

// Whatever byte of the file is wrong: what is read is what was written, and what
// cannot be read is told, unless it is the end, which a crash may leave.
func TestDamage(t *testing.T) {
	dir := t.TempDir()
	o := mailbox.Options{Dir: dir}
	b, _ := open(t, o)
	want := map[routing.Key][]byte{}
	const batches, each = 20, 3
	for n := range batches {
		var ops []routing.StoreOp
		for i := range each {
			m := text(t, n*each+i, 100+n*20)
			want[m.Key()] = m.Raw
			ops = append(ops, routing.PutHeld{Held: routing.Held{Msg: m, Order: uint64(n)}}, routing.PutSeen{Key: m.Key(), Until: started},
				routing.PutInbox{Msg: m, Text: fmt.Appendf(nil, "text %d", n*each+i+1)})
		}
		apply(t, b, ops...)
	}
	b.Close()
	path := filepath.Join(dir, mailbox.FileName)
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(1, 2))
	for try := range 300 {
		bad := bytes.Clone(good)
		switch try % 3 {
		case 0: // one bit
			at := rng.IntN(len(bad))
			bad[at] ^= 1 << rng.IntN(8)
		case 1: // a page of noise
			page := rng.IntN(len(bad)/512) * 512
			for i := range 512 {
				bad[page+i] = byte(rng.Uint32())
			}
		case 2: // a part is missing
			at := rng.IntN(len(bad) - 1)
			n := 1 + rng.IntN(len(bad)-at-1)
			bad = append(bad[:at:at], bad[at+n:]...)
		}
		if err := os.WriteFile(path, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		b, state, err := mailbox.Open(o)
		if err != nil {
			t.Fatalf("try %d: %v", try, err)
		}
		for _, h := range state.Held {
			if !bytes.Equal(h.Msg.Raw, want[h.Msg.Key()]) {
				t.Fatalf("try %d: a message that was not written", try)
			}
		}
		list, err := b.Inbox(0, 1000)
		if err != nil {
			t.Fatalf("try %d: %v", try, err)
		}
		newest := uint64(0)
		for _, e := range list {
			newest = max(newest, e.Arrival)
			if string(e.Text) != fmt.Sprintf("text %d", e.Arrival) {
				t.Fatalf("try %d: a text that was not written: %+v", try, e)
			}
		}
		// A gap before something that is there is told.
		if uint64(len(list)) != newest && b.Recovered() == "" {
			t.Fatalf("try %d: %d of %d are there and nothing is told", try, len(list), newest)
		}
		if b.Recovered() != "" {
			if kept, err := os.ReadFile(path + ".damaged"); err != nil || !bytes.Equal(kept, bad) {
				t.Fatalf("try %d: the damaged file was not kept (%v)", try, err)
			}
		}
		if try%3 == 1 && len(list) < (batches-3)*each {
			t.Fatalf("try %d: 512 bytes of noise cost all but %d of %d", try, len(list), batches*each)
		}
		apply(t, b, routing.PutInbox{Msg: text(t, 1000, 100), Text: []byte("new")})
		b.Close()
		b, _, err = mailbox.Open(o)
		if err != nil || b.Recovered() != "" {
			t.Fatalf("try %d: damage is left: %v", try, err)
		}
		b.Close()
	}
}

// Damage that comes while the box is open does not pass as data, is in nobody's
// way, is told, and is gone when the file is written anew, which is at once.
func TestDamageWhileOpen(t *testing.T) {
	o := mailbox.Options{Dir: t.TempDir()}
	var log bytes.Buffer
	o.Log = slog.New(slog.NewTextHandler(&log, nil))
	b, _ := open(t, o)
	path := filepath.Join(o.Dir, mailbox.FileName)
	spoil := func(mark string) {
		raw, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		at := bytes.Index(raw, []byte(mark))
		if at < 0 {
			t.Fatalf("%s is not in the file", mark)
		}
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteAt([]byte{'?'}, int64(at)); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
	m := text(t, 1, 5000)
	apply(t, b, routing.PutHeld{Held: routing.Held{Msg: m}}, routing.PutSeen{Key: m.Key(), Until: started},
		routing.PutInbox{Msg: m, Text: []byte("text one")}, routing.PutInbox{Msg: text(t, 2, 100), Text: []byte("text two")}, routing.PutInbox{Msg: text(t, 3, 100), Text: []byte("text three")})
	apply(t, b, routing.PutInbox{Msg: text(t, 4, 100), Text: []byte("text four")})
	spoil("text two")
	if list, err := b.Inbox(0, 3); err != nil || len(list) != 3 || string(list[0].Text) != "text one" || string(list[1].Text) != "text three" || string(list[2].Text) != "text four" {
		t.Fatalf("with a damaged text in the way: %+v, %v", list, err)
	}
	if told := b.Recovered(); !strings.Contains(told, "1 messages in the inbox and 0 on their way were damaged") {
		t.Errorf("told %q", told)
	}
	if !strings.Contains(log.String(), m.From.String()) {
		t.Errorf("the log does not say whose it was: %s", log.String())
	}
	if kept, err := os.ReadFile(path + ".damaged"); err != nil || !bytes.Contains(kept, []byte("?ext two")) {
		t.Errorf("the damaged file was not kept: %v", err)
	}
	spoil(string(m.Raw[:50]))
	if _, err := b.Held(m.Key()); !errors.Is(err, mailbox.ErrDamaged) {
		t.Errorf("a message: %v", err)
	}
	if raw, err := b.Held(m.Key()); raw != nil || err != nil {
		t.Errorf("it was not given up: %v", err)
	}
	// What nobody reads does not keep the file from being written anew.
	spoil("text four")
	for n := range 300 {
		m := text(t, 100+n, 16000)
		apply(t, b, routing.PutHeld{Held: routing.Held{Msg: m}})
		apply(t, b, routing.DropHeld{Key: m.Key()})
	}
	if fi, err := os.Stat(path); err != nil || fi.Size() > 3<<19 {
		t.Errorf("the file has %d bytes (%v)", fi.Size(), err)
	}
	if told := b.Recovered(); !strings.Contains(told, "2 messages in the inbox and 1 on their way were damaged") {
		t.Errorf("told %q", told)
	}
	b.Close()
	b, state := open(t, o)
	list, err := b.Inbox(0, 10)
	if err != nil || b.Recovered() != "" || len(list) != 2 || len(state.Seen) != 1 || b.Last() != 4 {
		t.Errorf("after that: %+v, %+v, %v, %q", list, state, err, b.Recovered())
	}
}
