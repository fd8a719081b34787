package replication

import (
	"fmt"
	"math"
	"slices"

	"google.golang.org/protobuf/encoding/protowire"

	"vixp2p/replication/canonical"
)

// A body (design 4.2, v1) is a canonical message: field 1 repeated, the table of
// 32-byte log ids that dots refer to, strictly ascending; then field 2 repeated,
// one operation each:
//
//	1 kind     number*2, plus 1 if critical
//	2 name     1 to 64 bytes, of kind app only
//	3 key      1 to 4,096 bytes; put and delete have one, app may
//	4 payload
//	5 hlc      minus the reading of the operation before; 0 in the first, which
//	           has the header's first reading; at least 1 in the others
//	6 order    minus the operation's HLC (keyed operations)
//	7 dots     the superseded dots: pairs of uvarints (log, seq), ascending by
//	           (log id, seq); log 0 is this log, log i the i-th of the table
//	8 flags
//	9, 10      reserved: expiry, reference to large content
//
// A body that breaks a rule is void as a whole: its block is stored, acked and
// forwarded, and none of its operations counts (VoidError).
const (
	bodyTable protowire.Number = 1
	bodyOp    protowire.Number = 2

	opKind    protowire.Number = 1
	opName    protowire.Number = 2
	opKey     protowire.Number = 3
	opPayload protowire.Number = 4
	opHLC     protowire.Number = 5
	opOrder   protowire.Number = 6
	opDots    protowire.Number = 7
	opFlags   protowire.Number = 8
	opExpiry  protowire.Number = 9
	opContent protowire.Number = 10
)

const (
	// MaxKey is the longest key in bytes.
	MaxKey = 4096
	// MaxAppName is the longest name of an application's kind, in bytes.
	MaxAppName = 64
	// MaxSupersedes bounds the dots that one operation names.
	MaxSupersedes = 1024
	// MaxOrderLead is by how much an operation's order may exceed its HLC; from
	// here on the operation is void (design 5.1). It is 557 years: more than any
	// clock that is only wrong, one that starts in 1970 included, lies behind the
	// writes that it overwrites.
	MaxOrderLead = 1 << 60
)

// Kind is what an operation does.
type Kind uint64

const (
	KindPut    Kind = 1
	KindDelete Kind = 2
	KindApp    Kind = 3 // an application's own; named by Op.Name
)

// Op is one operation.
type Op struct {
	Kind     Kind
	Critical bool
	Name     string // of KindApp
	Key      []byte
	Payload  []byte
	HLC      HLC
	// Order ranks keyed operations (design 5.1); 0 in one without a key.
	Order uint64
	// Supersedes names the dots that this operation replaces, ascending, each
	// once.
	Supersedes []Dot
	Flags      uint64

	// Reserved in v1: carried, not acted upon.
	Expiry  uint64
	Content []byte
}

// Known tells whether this version knows the operation's kind.
func (o *Op) Known() bool { return o.Kind >= KindPut && o.Kind <= KindApp }

// OrderVoid tells whether the order is beyond what its HLC allows, so that the
// operation counts for nothing.
func (o *Op) OrderVoid() bool {
	return o.Order >= uint64(o.HLC) && o.Order-uint64(o.HLC) >= MaxOrderLead
}

// EncodeBody encodes operations for log self. The operations must be valid
// (CheckOp) and their HLCs strictly ascending.
func EncodeBody(self LogID, ops []Op) []byte { return AppendBody(nil, self, ops) }

// AppendBody is EncodeBody into a buffer.
func AppendBody(b []byte, self LogID, ops []Op) []byte {
	size, largest := 0, 0
	for i := range ops {
		n := OpSize(&ops[i])
		size, largest = size+n, max(largest, n)
	}
	b = slices.Grow(b, size)
	table := dotTable(self, ops)
	index := make(map[LogID]uint64, len(table))
	for i, l := range table {
		index[l] = uint64(i) + 1
		b = canonical.AppendBytes(b, bodyTable, table[i][:])
	}
	op := make([]byte, 0, largest)
	var dots []byte
	prev := HLC(0)
	for i := range ops {
		o := &ops[i]
		delta := uint64(0)
		if i > 0 {
			delta = uint64(o.HLC - prev)
		}
		prev = o.HLC
		dots = dots[:0]
		for _, d := range o.Supersedes {
			dots = protowire.AppendVarint(dots, index[d.Log])
			dots = protowire.AppendVarint(dots, d.Seq)
		}
		op = appendOp(op[:0], o, delta, dots)
		b = protowire.AppendTag(b, bodyOp, protowire.BytesType)
		b = protowire.AppendBytes(b, op)
	}
	return b
}

func appendOp(b []byte, o *Op, delta uint64, dots []byte) []byte {
	kind := uint64(o.Kind) << 1
	if o.Critical {
		kind |= 1
	}
	b = canonical.AppendVarint(b, opKind, kind)
	if o.Name != "" {
		b = protowire.AppendString(protowire.AppendTag(b, opName, protowire.BytesType), o.Name)
	}
	b = canonical.AppendBytes(b, opKey, o.Key)
	b = canonical.AppendBytes(b, opPayload, o.Payload)
	b = canonical.AppendVarint(b, opHLC, delta)
	if o.Order > uint64(o.HLC) {
		b = canonical.AppendVarint(b, opOrder, o.Order-uint64(o.HLC))
	}
	b = canonical.AppendBytes(b, opDots, dots)
	b = canonical.AppendVarint(b, opFlags, o.Flags)
	b = canonical.AppendVarint(b, opExpiry, o.Expiry)
	return canonical.AppendBytes(b, opContent, o.Content)
}

// opOverhead bounds what an operation's tags, lengths and numbers take: 9 tags of
// one byte, the operation's own tag and length (5), kind (5), four lengths (1 + 2
// + 3 + 3), that of the dots (3), and four numbers of up to 10 bytes.
const opOverhead = 80

// OpSize bounds from above what an operation adds to a body, in bytes, its new
// table entries included.
func OpSize(o *Op) int {
	return opOverhead + len(o.Name) + len(o.Key) + len(o.Payload) + len(o.Content) +
		len(o.Supersedes)*(32+4+2*10)
}

func dotTable(self LogID, ops []Op) []LogID {
	var table []LogID
	for i := range ops {
		for _, d := range ops[i].Supersedes {
			// Ascending dots of one log stand together.
			if d.Log != self && (len(table) == 0 || table[len(table)-1] != d.Log) {
				table = append(table, d.Log)
			}
		}
	}
	slices.SortFunc(table, LogID.Compare)
	return slices.Compact(table)
}

// CheckOp says what would make an operation void, before it is written.
func CheckOp(o *Op) error {
	keyed := o.Kind == KindPut || o.Kind == KindDelete
	switch {
	case o.Kind == 0 || o.Kind > math.MaxUint32:
		return invalidf("operation kind %d", o.Kind)
	case keyed && len(o.Key) == 0:
		return invalidf("a put or delete needs a key")
	case len(o.Key) > MaxKey:
		return &TooLargeError{What: "key", Size: len(o.Key), Max: MaxKey}
	case o.Kind == KindApp && (len(o.Name) == 0 || len(o.Name) > MaxAppName):
		return invalidf("an application's kind has a name of 1 to %d bytes, not %d", MaxAppName, len(o.Name))
	case o.Kind != KindApp && o.Name != "":
		return invalidf("only an application's kind has a name")
	case len(o.Key) == 0 && (o.Order != 0 || len(o.Supersedes) > 0):
		return invalidf("an operation without a key has an order or superseded writes")
	case len(o.Supersedes) > MaxSupersedes:
		return fmt.Errorf("an operation supersedes %d writes, more than %d: replace them in several writes: %w",
			len(o.Supersedes), MaxSupersedes, ErrTooLarge)
	}
	for i := 1; i < len(o.Supersedes); i++ {
		if o.Supersedes[i-1].Compare(o.Supersedes[i]) >= 0 {
			return invalidf("superseded writes are not strictly ascending")
		}
	}
	return nil
}

// DecodeBody reads the operations of a raw body (unpacked, decrypted) of block
// h. Slices alias raw. Any broken rule gives a *VoidError.
func DecodeBody(h *Header, raw []byte) ([]Op, error) {
	ops, err := decodeBody(h, raw)
	if err != nil {
		return nil, &VoidError{Log: h.Log, FirstSeq: h.FirstSeq, Cause: err}
	}
	return ops, nil
}

func decodeBody(h *Header, raw []byte) ([]Op, error) {
	if uint64(len(raw)) != h.RawLen {
		return nil, invalidf("a raw body of %d bytes where the header says %d", len(raw), h.RawLen)
	}
	table := []LogID{h.Log}
	ops := make([]Op, 0, min(h.Count, uint64(len(raw)/4)+1))
	hlc := h.FirstHLC
	r := canonical.NewReader(raw, canonical.SetOf(bodyTable, bodyOp))
	for {
		f, ok, err := r.Next()
		if err != nil {
			return nil, err
		}
		if !ok {
			break
		}
		switch {
		case f.Num == bodyTable:
			var l LogID
			if err := f.Fixed(l[:]); err != nil {
				return nil, err
			}
			if l == h.Log || (len(table) > 1 && table[len(table)-1].Compare(l) >= 0) {
				return nil, invalidf("the table of logs is not strictly ascending or names its own log")
			}
			table = append(table, l)
		case f.Num == bodyOp:
			data, err := f.Bytes(len(raw))
			if err != nil {
				return nil, err
			}
			if uint64(len(ops)) == h.Count {
				return nil, invalidf("more than %d operations", h.Count)
			}
			o, err := decodeOp(data, table, hlc, len(ops) == 0)
			if err != nil {
				return nil, err
			}
			hlc = o.HLC
			ops = append(ops, o)
		case f.Num < canonical.FirstFree:
			return nil, invalidf("unknown body field %d", f.Num)
		}
	}
	if uint64(len(ops)) != h.Count {
		return nil, invalidf("%d operations where the header says %d", len(ops), h.Count)
	}
	if hlc != h.LastHLC {
		return nil, invalidf("the last HLC is not the header's")
	}
	return ops, nil
}

func decodeOp(b []byte, table []LogID, prev HLC, first bool) (Op, error) {
	o := Op{HLC: prev}
	var delta, lead uint64
	r := canonical.NewReader(b, 0)
	for {
		f, ok, err := r.Next()
		if err != nil {
			return o, err
		}
		if !ok {
			break
		}
		switch f.Num {
		case opKind:
			var v uint64
			v, err = f.Varint()
			o.Kind, o.Critical = Kind(v>>1), v&1 == 1
		case opName:
			var v []byte
			v, err = f.Bytes(MaxAppName)
			o.Name = string(v)
		case opKey:
			o.Key, err = f.Bytes(MaxKey)
		case opPayload:
			o.Payload, err = f.Bytes(MaxRawBody)
		case opHLC:
			delta, err = f.Varint()
		case opOrder:
			lead, err = f.Varint()
		case opDots:
			o.Supersedes, err = decodeDots(f, table)
		case opFlags:
			o.Flags, err = f.Varint()
		case opExpiry:
			o.Expiry, err = f.Varint()
		case opContent:
			o.Content, err = f.Bytes(MaxRawBody)
		default:
			if f.Num < canonical.FirstFree {
				err = invalidf("unknown operation field %d", f.Num)
			}
		}
		if err != nil {
			return o, err
		}
	}
	if err := CheckOp(&o); err != nil {
		return o, err
	}
	if first != (delta == 0) || uint64(prev)+delta < delta {
		return o, invalidf("an HLC that does not ascend")
	}
	o.HLC = prev + HLC(delta)
	if len(o.Key) > 0 {
		if uint64(o.HLC)+lead < lead {
			return o, invalidf("an order that overflows")
		}
		o.Order = uint64(o.HLC) + lead
	} else if lead != 0 {
		return o, invalidf("an operation without a key has an order")
	}
	return o, nil
}

// decodeDots reads superseded dots; CheckOp sees to their order.
func decodeDots(f canonical.Field, table []LogID) ([]Dot, error) {
	b, err := f.Bytes(MaxRawBody)
	if err != nil {
		return nil, err
	}
	dots := make([]Dot, 0, min(len(b)/2, MaxSupersedes))
	for len(b) > 0 {
		i, n := canonical.MinimalVarint(b)
		if n < 0 || i >= uint64(len(table)) {
			return nil, invalidf("a superseded write of a log that is not in the table")
		}
		b = b[n:]
		seq, n := canonical.MinimalVarint(b)
		if n < 0 || seq == 0 {
			return nil, invalidf("a superseded write without a seq")
		}
		b = b[n:]
		if len(dots) == MaxSupersedes {
			return nil, invalidf("more than %d superseded writes", MaxSupersedes)
		}
		dots = append(dots, Dot{Log: table[i], Seq: seq})
	}
	return dots, nil
}
