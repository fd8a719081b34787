package logtest

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"slices"
	"strconv"
	"testing"

	"vixp2p/replication"
	"vixp2p/replication/compress"
)

// baseTime is the millisecond that synthetic times count from.
const baseTime = 1_700_000_000_000

// Writer is a synthetic origin: it writes blocks of one log, valid ones and, where
// a test asks for it, broken ones. The same calls give the same bytes.
type Writer struct {
	Network replication.NetworkID
	Space   replication.SpaceID
	Origin  replication.OriginKey
	Epoch   replication.Epoch
	Log     replication.LogID

	key    ed25519.PrivateKey
	clock  replication.HLC // of the last operation
	blocks []*replication.Block
	prev   *replication.Genesis // PrevLog and PrevPos of the genesis block, or nil
}

// Spec says what a block is like. The zero Spec is a signed block of one put.
type Spec struct {
	// Ops are the operations (one put of a key that names the seq). Times and
	// orders that are 0 are filled in.
	Ops []replication.Op
	// Unsigned leaves the signature out; BadSignature puts a wrong one in.
	Unsigned, BadSignature bool
	// Void writes a body that does not decode, of the same count.
	Void bool
	// Zstd packs the body where that makes it smaller.
	Zstd bool
	// Header changes the header before it is hashed and signed.
	Header func(*replication.Header)
}

// NewWriter makes an origin from a seed. Its log begins with the first Add.
func NewWriter(network replication.NetworkID, space replication.SpaceID, seed uint64) *Writer {
	return NewOwnWriter(network, space, Key(seed), seed)
}

// NewOwnWriter makes an origin with a given key, whose epoch comes from a seed.
func NewOwnWriter(network replication.NetworkID, space replication.SpaceID, key ed25519.PrivateKey, seed uint64) *Writer {
	w := &Writer{Network: network, Space: space, key: key, clock: replication.HLC(baseTime << 16)}
	copy(w.Origin[:], key.Public().(ed25519.PublicKey))
	binary.BigEndian.PutUint64(w.Epoch[8:], seed+1)
	w.Log = replication.LogOf(network, space, w.Origin, w.Epoch)
	return w
}

// Key is a key made from a seed.
func Key(seed uint64) ed25519.PrivateKey {
	var s [ed25519.SeedSize]byte
	binary.BigEndian.PutUint64(s[:], seed)
	return ed25519.NewKeyFromSeed(s[:])
}

// Continue makes a writer that goes on with a log from the blocks of a run: a
// copied machine that has the origin's key.
func Continue(t testing.TB, key ed25519.PrivateKey, genesis *replication.Genesis, raw []byte) *Writer {
	t.Helper()
	w := NewOwnWriter(genesis.Network, genesis.Space, key, 0)
	w.Epoch, w.Log = genesis.Epoch, genesis.LogID()
	for len(raw) > 0 {
		b, rest, err := replication.ParseBlock(bytes.Clone(raw))
		if err != nil {
			t.Fatalf("continuing a log: %v", err)
		}
		w.blocks = append(w.blocks, b)
		w.clock = max(w.clock, b.Header.LastHLC)
		raw = raw[len(raw)-len(rest):]
	}
	return w
}

// After names the log of the epoch before in the genesis block to come.
func (w *Writer) After(log replication.LogID, pos replication.Position) *Writer {
	w.prev = &replication.Genesis{PrevLog: log, PrevPos: pos}
	return w
}

// Fork is another writer with the same key and the first n blocks: what it adds
// contradicts what w adds.
func (w *Writer) Fork(n int) *Writer {
	f := *w
	f.blocks = slices.Clone(w.blocks[:n])
	f.clock += 1000
	return &f
}

// Add writes a signed block of these operations.
func (w *Writer) Add(ops ...replication.Op) *replication.Block { return w.AddSpec(Spec{Ops: ops}) }

// AddUnsigned writes a block without a signature.
func (w *Writer) AddUnsigned(ops ...replication.Op) *replication.Block {
	return w.AddSpec(Spec{Ops: ops, Unsigned: true})
}

// AddMany writes n signed blocks of one put each.
func (w *Writer) AddMany(n int) *Writer {
	for range n {
		w.Add()
	}
	return w
}

// AddSpec writes a block.
func (w *Writer) AddSpec(spec Spec) *replication.Block {
	end := w.Tip()
	ops := slices.Clone(spec.Ops)
	if len(ops) == 0 {
		ops = []replication.Op{Put(SeqKey(end.Seq+1), SeqKey(end.Seq+1))}
	}
	for i := range ops {
		if ops[i].HLC == 0 {
			ops[i].HLC = w.clock + 1
		}
		w.clock = ops[i].HLC
		if len(ops[i].Key) > 0 && ops[i].Order == 0 {
			ops[i].Order = uint64(ops[i].HLC)
		}
	}
	raw := replication.EncodeBody(w.Log, ops)
	if spec.Void {
		raw = append([]byte{0xff}, raw...)
	}
	body, codec := raw, replication.CodecNone
	if spec.Zstd {
		body, codec = compress.Encode(raw)
	}
	h := &replication.Header{
		Log: w.Log, FirstSeq: end.Seq + 1, Count: uint64(len(ops)), Prev: end.Hash,
		BodyHash: sha256.Sum256(body), BodyLen: uint64(len(body)), RawLen: uint64(len(raw)), Codec: codec,
		FirstHLC: ops[0].HLC, LastHLC: ops[len(ops)-1].HLC,
	}
	if len(w.blocks) == 0 {
		h.Genesis = &replication.Genesis{Network: w.Network, Space: w.Space, Origin: w.Origin, Epoch: w.Epoch}
		if w.prev != nil {
			h.Genesis.PrevLog, h.Genesis.PrevPos = w.prev.PrevLog, w.prev.PrevPos
		}
	}
	if spec.Header != nil {
		spec.Header(h)
	}
	b := &replication.Block{Header: h, HeaderRaw: replication.AppendHeader(nil, h), Body: body}
	b.Hash = sha256.Sum256(b.HeaderRaw)
	if !spec.Unsigned {
		b.Sig = replication.SignBlock(w.key, b.Hash)
	}
	if spec.BadSignature {
		b.Sig[0] ^= 1
	}
	w.blocks = append(w.blocks, b)
	return b
}

// Len is the count of blocks.
func (w *Writer) Len() int { return len(w.blocks) }

// Block is the i-th block, from 0.
func (w *Writer) Block(i int) *replication.Block { return w.blocks[i] }

// Tip is the position of the last block.
func (w *Writer) Tip() replication.Position { return w.Pos(len(w.blocks)) }

// Pos is the position after n blocks.
func (w *Writer) Pos(n int) replication.Position {
	if n == 0 {
		return replication.Position{}
	}
	return w.blocks[n-1].End()
}

// Raw is the bytes of the blocks from (counted from 0) to before to.
func (w *Writer) Raw(from, to int) []byte { return w.RawTail(from, to, to) }

// RawTail is Raw where the blocks from bodies on are headers only.
func (w *Writer) RawTail(from, bodies, to int) (raw []byte) {
	for i, b := range w.blocks[from:to] {
		body := b.Body
		if from+i >= bodies {
			body = nil
		}
		raw = replication.AppendBlock(raw, b.HeaderRaw, b.Sig, body)
	}
	return raw
}

// Source is what a verifier knows who holds the first n blocks.
func (w *Writer) Source(n int) replication.RunSource {
	return replication.RunSource{Network: w.Network, Log: w.Log, Origin: &w.Origin, Space: w.Space, From: w.Pos(n)}
}

// Run verifies the blocks from to before to as one run.
func (w *Writer) Run(t testing.TB, from, to int) *replication.VerifiedRun {
	t.Helper()
	return w.RunTail(t, from, to, to)
}

// RunTail verifies RawTail as one run.
func (w *Writer) RunTail(t testing.TB, from, bodies, to int) *replication.VerifiedRun {
	t.Helper()
	run, err := replication.VerifyRun(w.Source(from), w.RawTail(from, bodies, to))
	if err != nil {
		t.Fatalf("the synthetic run of blocks %d to %d does not verify: %v", from, to, err)
	}
	return run
}

// Put is a put without superseded writes.
func Put(key, value string) replication.Op {
	return replication.Op{Kind: replication.KindPut, Key: []byte(key), Payload: []byte(value)}
}

// Delete is a delete that supersedes dots.
func Delete(key string, dots ...replication.Dot) replication.Op {
	return replication.Op{Kind: replication.KindDelete, Key: []byte(key), Supersedes: dots}
}

// App is an application's own operation.
func App(name string, payload []byte) replication.Op {
	return replication.Op{Kind: replication.KindApp, Name: name, Payload: payload}
}

// SeqKey is the key of the put that an empty Spec writes at a seq.
func SeqKey(seq uint64) string { return "key/" + strconv.FormatUint(seq, 10) }
