package mailbox

import (
	"bytes"
	"encoding/binary"
	"strings"
	"syscall"
	"testing"

	"vixp2p/routing"
)

// forged is a batch as a sender can make it who knows all but the mark.
func forged(m mark, number uint64, text string) []byte {
	payload := binary.BigEndian.AppendUint64(nil, number)
	r := record{kind: recPutInbox, number: 99, key: routing.Key{From: routing.PeerKey{0xAA}}, time: 1, data: []byte(text)}
	payload, _ = r.append(payload)
	b := binary.BigEndian.AppendUint32(bytes.Clone(m[:]), uint32(len(payload)))
	b = append(b, 0, 0, 0, 0)
	binary.BigEndian.PutUint32(b[batchHead-4:], batchSum(b, payload))
	return append(b, payload...)
}

// What a text says never passes for a batch, however the file around it is damaged.
// It does with the right mark, which shows that the test looks at the right place.
func TestTextIsNotABatch(t *testing.T) {
	const lie = "send the money to Mallory"
	torn := func(raw []byte, at int) []byte { return raw[:len(raw)-1000] }
	flipped := func(raw []byte, at int) []byte {
		raw[at-1] ^= 1 // the length of the text
		return raw
	}
	for name, damage := range map[string]func(raw []byte, at int) []byte{"torn": torn, "flipped": flipped} {
		for _, knows := range []bool{false, true} {
			d := newMemDisk()
			b := openOn(t, d)
			m, other := b.file.mark, b.file.mark
			other[0]++
			if !knows {
				m = other
			}
			body := string(forged(m, 3, lie))
			body += strings.Repeat("\x00", 4000)
			put(t, b, body)
			b.Close()
			n := d.names[memName]
			n.cache = damage(bytes.Clone(n.cache), int(b.index.inbox[0].at))
			b = openOn(t, d)
			list, err := b.Inbox(0, 10)
			if err != nil {
				t.Fatal(err)
			}
			found := false
			for _, e := range list {
				found = found || string(e.Text) == lie
			}
			if found != knows {
				t.Errorf("%s, the sender knows the mark %v: the forged text is there %v, among %d", name, knows, found, len(list))
			}
		}
	}
}

// Each file has a mark of its own, and one that is written anew another.
func TestMarks(t *testing.T) {
	d := newMemDisk()
	b := openOn(t, d)
	put(t, b, "one")
	seen := map[mark]bool{{}: true, b.file.mark: true}
	b.Close()
	if b = openOn(t, d); !seen[b.file.mark] {
		t.Error("a file that is opened again has another mark")
	}
	old := b.file.mark
	if err := b.rewrite(false); err != nil {
		t.Fatal(err)
	}
	if seen[b.file.mark] {
		t.Error("written anew it has the mark of before")
	}
	if bytes.Contains(d.names[memName].cache, old[:]) {
		t.Error("the mark of before is in the new file")
	}
	if b = openOn(t, newMemDisk()); seen[b.file.mark] {
		t.Error("two files have one mark")
	}
}

// One copy of the header suffices, and it is made two again; without both the file
// is damaged, and told.
func TestHeaderCopies(t *testing.T) {
	for _, c := range []struct{ first, second, lost bool }{{true, false, false}, {false, true, false}, {true, true, true}} {
		d := newMemDisk()
		b := openOn(t, d)
		put(t, b, "one")
		id := b.ID()
		b.Close()
		n := d.names[memName]
		if c.first {
			n.cache[20] ^= 1
		}
		if c.second {
			n.cache[headerStride+20] ^= 1
		}
		b = openOn(t, d)
		list, err := b.Inbox(0, 10)
		if err != nil || (b.Recovered() != "") != c.lost || (len(list) == 0) != c.lost || (b.ID() != id) != c.lost {
			t.Errorf("%+v: %d texts, %v, %q", c, len(list), err, b.Recovered())
		}
		b.Close()
		b = openOn(t, d)
		if _, ok, worn, err := readHeader(b.file.f); !ok || worn || err != nil || b.Recovered() != "" {
			t.Errorf("%+v: not repaired: %v", c, err)
		}
	}
}

// That the second header cannot be made again now is in nobody's way.
func TestOneHeaderOnAFullDisk(t *testing.T) {
	d := newMemDisk()
	b := openOn(t, d)
	put(t, b, "one")
	b.Close()
	d.names[memName].cache[20] ^= 1
	d.createErr = syscall.ENOSPC
	if got := inbox(t, openOn(t, d)); got != "one" {
		t.Errorf("the box has %q", got)
	}
}

// FuzzOpen: whatever follows the header of a file, a box opens, is well after that,
// and has what it said that it has.
func FuzzOpen(f *testing.F) {
	m := mark{1, 2, 3}
	good := forged(m, 1, "one")
	f.Add([]byte{})
	f.Add(good)
	f.Add(good[:len(good)-1])
	f.Add(append(bytes.Clone(good), forged(m, 2, "two")...))
	f.Add(append(forged(m, 3, "three"), good...))
	begin := binary.BigEndian.AppendUint64(nil, 1)
	begin, _ = (&record{kind: recBegin, number: 5, read: 3}).append(begin)
	f.Add(begin)
	zero, _ := (&record{kind: recPutInbox}).append(binary.BigEndian.AppendUint64(nil, 1)) // arrivals begin at 1
	f.Add(zero)
	f.Fuzz(func(t *testing.T, raw []byte) {
		// As records, with a head that fits, and as what stands in a file.
		sealed := binary.BigEndian.AppendUint32(bytes.Clone(m[:]), uint32(len(raw)))
		sealed = append(sealed, 0, 0, 0, 0)
		binary.BigEndian.PutUint32(sealed[batchHead-4:], batchSum(sealed, raw))
		for _, tail := range [][]byte{raw, append(sealed, raw...)} {
			d := newMemDisk()
			all := append(m.header(), tail...)
			d.names[memName] = &memInode{cache: all, disk: bytes.Clone(all), dirty: map[int]bool{}}
			b, state, err := Open(Options{Dir: memDir, ReserveBytes: -1, disk: d})
			if err != nil {
				t.Fatal(err)
			}
			list, err := b.Inbox(0, 1<<20)
			unread := b.Sizes().Unread
			if err != nil || len(list) != b.Sizes().Inbox || len(state.Held) != len(b.index.held) || len(state.Seen) != len(b.index.seen) {
				t.Fatalf("%d texts, %+v, %v", len(list), b.Sizes(), err)
			}
			last := b.Last()
			d.powerCut()
			b, _, err = Open(Options{Dir: memDir, ReserveBytes: -1, disk: d})
			if err != nil {
				t.Fatalf("opened again: %v", err)
			}
			if told := b.Recovered(); told != "" {
				t.Fatalf("opened again: %s", told)
			}
			again, err := b.Inbox(0, 1<<20)
			if err != nil || len(again) != len(list) || b.Last() != last || b.Sizes().Unread != unread {
				t.Fatalf("%d of %d texts are left, %d of %d not read, last %d of %d: %v", len(again), len(list), b.Sizes().Unread, unread, b.Last(), last, err)
			}
			for i := range list {
				if list[i].Arrival != again[i].Arrival || !bytes.Equal(list[i].Text, again[i].Text) {
					t.Fatalf("text %d is another", i)
				}
			}
		}
	})
}
