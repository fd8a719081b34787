package protocols

import (
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"

	"vixp2p/replication"
)

// bothWays decodes a FrontierDiff as Decode does and by the generated code alone: what
// is accepted, and what it means, must be the same.
func bothWays(t *testing.T, name string, message []byte, minor uint32) {
	t.Helper()
	read := func(decode func(*decoder) any) (any, bool) {
		d := decoder{frame: &Frame{Major: VersionMajor, Minor: minor, Type: TypeFrontierDiff, Message: message}}
		m := decode(&d)
		return m, d.err == nil
	}
	quick, ok := read((*decoder).frontierDiff)
	generated, want := read((*decoder).anyFrontierDiff)
	if ok != want || ok && !reflect.DeepEqual(quick, generated) {
		t.Errorf("%s: accepted %v as %+v, by the generated code %v as %+v\n%x", name, ok, quick, want, generated, message)
	}
}

// wireBytes and wireVarint are fields as they are sent.
func wireBytes(num protowire.Number, v ...[]byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(nil, num, protowire.BytesType), slices.Concat(v...))
}

func wireVarint(num protowire.Number, v uint64) []byte {
	return protowire.AppendVarint(protowire.AppendTag(nil, num, protowire.VarintType), v)
}

// TestQuickDiffMeansTheSame: every way in which a message can differ from what senders
// write is taken, or refused, as the generated code would.
func TestQuickDiffMeansTheSame(t *testing.T) {
	id, zero := sampleHash(0x30), make([]byte, 32)
	space, log := wireBytes(1, id[:16]), wireBytes(1, id[:])
	pos := wireBytes(4, wireVarint(1, 7), wireBytes(2, id[:]))
	entry := wireBytes(5, log, wireVarint(3, 1), pos)
	for name, message := range map[string][]byte{
		"as it is sent":      slices.Concat(space, wireVarint(2, 1), wireVarint(3, 2), wireVarint(4, 1), entry, entry, wireVarint(16, 3)),
		"nothing":            nil,
		"no space":           entry,
		"zero space":         slices.Concat(wireBytes(1, zero[:16]), entry),
		"short space":        slices.Concat(wireBytes(1, id[:15]), entry),
		"space twice":        slices.Concat(space, wireBytes(1, id[1:17]), entry),
		"space last":         slices.Concat(entry, space),
		"round twice":        slices.Concat(space, wireVarint(2, 1), wireVarint(2, 9)),
		"round of bytes":     slices.Concat(space, wireBytes(2, id[:4])),
		"not last":           slices.Concat(space, wireVarint(4, 0)),
		"more than last":     slices.Concat(space, wireVarint(4, 300)),
		"unknown field":      slices.Concat(space, wireVarint(20, 1)),
		"a node":             slices.Concat(space, wireBytes(17, wireBytes(2, append([]byte{1}, zero[1:]...)), wireBytes(3, id[:16]))),
		"a bucket":           slices.Concat(space, entry, wireBytes(19, id[:2])),
		"a whole node":       slices.Concat(space, entry, wireBytes(18, id[:])),
		"most entries":       slices.Concat(space, slices.Repeat(entry, MaxEntries)),
		"too many entries":   slices.Concat(space, slices.Repeat(entry, MaxEntries+1)),
		"empty entry":        slices.Concat(space, wireBytes(5)),
		"entry of a varint":  slices.Concat(space, wireVarint(5, 1)),
		"no log":             slices.Concat(space, wireBytes(5, pos)),
		"short log":          slices.Concat(space, wireBytes(5, wireBytes(1, id[:31]), pos)),
		"long log":           slices.Concat(space, wireBytes(5, wireBytes(1, id[:], id[:1]), pos)),
		"log twice":          slices.Concat(space, wireBytes(5, log, wireBytes(1, zero), pos)),
		"a branch":           slices.Concat(space, wireBytes(5, log, wireBytes(2, id[:]), pos)),
		"base of 0":          slices.Concat(space, wireBytes(5, log, wireVarint(3, 0), pos)),
		"base twice":         slices.Concat(space, wireBytes(5, log, wireVarint(3, 1), wireVarint(3, 2), pos)),
		"base after pos":     slices.Concat(space, wireBytes(5, log, pos, wireVarint(3, 2))),
		"unknown in entry":   slices.Concat(space, wireBytes(5, log, pos, wireVarint(9, 1))),
		"no pos":             slices.Concat(space, wireBytes(5, log)),
		"empty pos":          slices.Concat(space, wireBytes(5, log, wireBytes(4))),
		"pos twice":          slices.Concat(space, wireBytes(5, log, pos, wireBytes(4, wireVarint(1, 9)))),
		"seq of 0":           slices.Concat(space, wireBytes(5, log, wireBytes(4, wireVarint(1, 0), wireBytes(2, id[:])))),
		"no seq":             slices.Concat(space, wireBytes(5, log, wireBytes(4, wireBytes(2, id[:])))),
		"no hash":            slices.Concat(space, wireBytes(5, log, wireBytes(4, wireVarint(1, 7)))),
		"zero hash":          slices.Concat(space, wireBytes(5, log, wireBytes(4, wireVarint(1, 7), wireBytes(2, zero)))),
		"short hash":         slices.Concat(space, wireBytes(5, log, wireBytes(4, wireVarint(1, 7), wireBytes(2, id[:31])))),
		"hash twice":         slices.Concat(space, wireBytes(5, log, wireBytes(4, wireVarint(1, 7), wireBytes(2, id[:]), wireBytes(2, zero)))),
		"unknown in pos":     slices.Concat(space, wireBytes(5, log, wireBytes(4, wireVarint(1, 7), wireBytes(2, id[:]), wireVarint(9, 1)))),
		"seq of many bytes":  slices.Concat(space, wireBytes(5, log, wireBytes(4, []byte{1 << 3, 0x87, 0x80, 0x00}, wireBytes(2, id[:])))),
		"seq beyond 64 bits": slices.Concat(space, wireBytes(5, log, wireBytes(4, append([]byte{1 << 3}, slices.Repeat([]byte{0xff}, 10)...), wireBytes(2, id[:])))),
	} {
		bothWays(t, name, message, VersionMinor)
		bothWays(t, name+", newer", message, VersionMinor+1)
	}
}

// TestQuickDiffOnChangedBytes: the same for messages of which a byte is changed, taken
// out or added anywhere.
func TestQuickDiffOnChangedBytes(t *testing.T) {
	m := &replication.FrontierDiff{Space: replication.SpaceID{1}, Round: 300, Part: 1, Last: true, Step: 2}
	for i := range 3 {
		h := sampleHash(byte(0x40 + i))
		m.Entries = append(m.Entries, replication.FrontierEntry{Log: replication.LogID(h), Base: uint64(i), Pos: replication.Position{Seq: uint64(100 + i), Hash: h}})
	}
	f, err := Encode(m)
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := quickDiff(f.Message); !ok {
		t.Fatal("what is sent is not read quickly")
	}
	rnd := rand.New(rand.NewPCG(1, 2))
	for at := range f.Message {
		for range 8 {
			b := slices.Clone(f.Message)
			switch rnd.IntN(4) {
			case 0:
				b = slices.Delete(b, at, at+1)
			case 1:
				b = slices.Insert(b, at, byte(rnd.Uint32()))
			case 2:
				b[at] ^= 1 << rnd.IntN(8)
			default:
				b = b[:at]
			}
			bothWays(t, "changed", b, VersionMinor)
		}
	}
}
