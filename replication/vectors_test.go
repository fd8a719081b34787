package replication_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"vixp2p/replication"
	"vixp2p/replication/compress"
	"vixp2p/replication/logtest"
)

// The files of testdata/vectors pin the block format (design 4.1, 4.2): another
// implementation reads the same blocks if it agrees with them. Bytes are hex, 64-bit
// numbers are decimal strings (JSON readers may round larger ones). All
// are written by the origin whose seed is in ids.json.

// blockVector is one block and what is in it.
type blockVector struct {
	About     string     `json:"about"`
	Header    string     `json:"header"`
	Hash      string     `json:"hash"`      // SHA-256 of the header
	Signed    string     `json:"signed"`    // the bytes that the signature covers
	Signature string     `json:"signature"` // empty: the block is not signed
	Body      string     `json:"body"`      // as stored; empty: only the header is here
	Raw       string     `json:"raw,omitempty"`
	Block     string     `json:"block"` // the whole block as stored and sent
	Void      bool       `json:"void,omitempty"`
	Ops       []opVector `json:"ops,omitempty"`
}

type opVector struct {
	Kind       uint64      `json:"kind"`
	Critical   bool        `json:"critical,omitempty"`
	Name       string      `json:"name,omitempty"`
	Key        string      `json:"key,omitempty"`
	Payload    string      `json:"payload,omitempty"`
	HLC        uint64      `json:"hlc,string"`
	Order      uint64      `json:"order,omitempty,string"`
	Supersedes []dotVector `json:"supersedes,omitempty"`
	Flags      uint64      `json:"flags,omitempty,string"`
	Expiry     uint64      `json:"expiry,omitempty,string"`
	Content    string      `json:"content,omitempty"`
}

type dotVector struct {
	Log string `json:"log"`
	Seq uint64 `json:"seq,string"`
}

// idVector pins the ids of design 2 and what a frontier hashes to.
type idVector struct {
	Seed         string `json:"seed"` // of the Ed25519 key
	Origin       string `json:"origin"`
	OpenName     string `json:"open_name"`
	Network      string `json:"network"`
	RootNetwork  string `json:"root_network"` // of a network whose root key is the origin
	SpaceName    string `json:"space_name"`
	Space        string `json:"space"`
	Epoch        string `json:"epoch"`
	Log          string `json:"log"`
	Frontier     string `json:"frontier"`      // root of the frontier up to the follower
	FrontierNone string `json:"frontier_none"` // root of an empty frontier
}

// runVector is a run that ends in a signature, its middle blocks unsigned.
type runVector struct {
	About string `json:"about"`
	Log   string `json:"log"`
	From  string `json:"from"`       // hash of the block before; zero: the start
	Seq   uint64 `json:"seq,string"` // last seq of the block before
	End   string `json:"end"`        // hash of the last block with a body
	Run   string `json:"run"`
}

func vectorWriter() *logtest.Writer {
	return logtest.NewOwnWriter(network, space, ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, 32)), 1)
}

// vectorBlocks writes one log in which every feature of a block occurs.
func vectorBlocks() (w *logtest.Writer, names, about []string) {
	w = vectorWriter()
	before := logtest.NewOwnWriter(network, space, ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, 32)), 0).AddMany(1)
	w.After(before.Log, before.Tip())
	otherA, otherB := logtest.NewWriter(network, space, 2), logtest.NewWriter(network, space, 3)
	add := func(name, text string, spec logtest.Spec) {
		w.AddSpec(spec)
		names, about = append(names, name), append(about, text)
	}
	dot := func(seq uint64) replication.Dot { return replication.Dot{Log: w.Log, Seq: seq} }

	add("genesis", "the first block of a log, after a log of an earlier epoch, with a grant", logtest.Spec{
		Ops:    []replication.Op{logtest.Put("user/1", "Ada")},
		Header: func(h *replication.Header) { h.Genesis.Grant = []byte("grant") },
	})
	replaced := logtest.Put("user/1", "Ada Lovelace")
	replaced.Supersedes = []replication.Dot{dot(1)}
	add("follower", "two puts; the first supersedes one of the same log", logtest.Spec{
		Ops: []replication.Op{replaced, logtest.Put("user/2", "")},
	})
	add("delete", "a delete that supersedes a put of the same log", logtest.Spec{
		Ops: []replication.Op{logtest.Delete("user/2", dot(3))},
	})
	merge := logtest.Put("user/1", "merged")
	merge.Supersedes = []replication.Dot{dot(2), {Log: otherA.Log, Seq: 5}, {Log: otherA.Log, Seq: 300}, {Log: otherB.Log, Seq: 1 << 40}}
	slices.SortFunc(merge.Supersedes, replication.Dot.Compare)
	merge.Order = uint64(w.Block(2).Header.LastHLC) + 1<<20
	add("dots", "a put that supersedes writes of three logs, with an order beyond its time", logtest.Spec{Ops: []replication.Op{merge}})
	keyed := logtest.App("vix.example/event", []byte{0, 1, 2, 0xff})
	keyed.Key, keyed.Critical, keyed.Flags, keyed.Expiry, keyed.Content = []byte("topic"), true, 9, 1_800_000_000, []byte("reference")
	add("app", "operations of kind app, without and with a key and the reserved fields", logtest.Spec{
		Ops: []replication.Op{logtest.App("chat", []byte("hello")), keyed},
	})
	add("void", "a body that does not decode: stored and forwarded, and no operation of it counts", logtest.Spec{Void: true})
	add("unsigned", "a block without a signature", logtest.Spec{Unsigned: true})
	add("unknown_kind", "an operation of a kind that this version does not know, and a header with reserved fields", logtest.Spec{
		Ops: []replication.Op{{Kind: 1000, Payload: []byte("later")}},
		Header: func(h *replication.Header) {
			h.BranchParent, h.SnapshotRef, h.CausalDeps = []byte("parent"), []byte("snapshot"), []byte("deps")
		},
	})
	add("zstd", "a packed body; other packers give other bytes, so it is the last", logtest.Spec{
		Ops: []replication.Op{logtest.Put("text", strings.Repeat("one two three ", 40))}, Zstd: true,
	})
	return w, names, about
}

func toBlockVector(t *testing.T, about string, b *replication.Block, header bool) blockVector {
	v := blockVector{
		About: about, Header: hex.EncodeToString(b.HeaderRaw), Hash: b.Hash.String(),
		Signed: hex.EncodeToString(replication.SignedBytes(b.Hash)), Signature: hex.EncodeToString(b.Sig),
	}
	if header {
		v.Block = hex.EncodeToString(replication.AppendBlock(nil, b.HeaderRaw, b.Sig, nil))
		return v
	}
	v.Body = hex.EncodeToString(b.Body)
	v.Block = hex.EncodeToString(replication.AppendBlock(nil, b.HeaderRaw, b.Sig, b.Body))
	raw, err := compress.RawBody(b.Header, b.Body)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(raw, b.Body) {
		v.Raw = hex.EncodeToString(raw)
	}
	ops, err := replication.DecodeBody(b.Header, raw)
	var void *replication.VoidError
	switch {
	case errors.As(err, &void):
		v.Void = true
	case err != nil:
		t.Fatal(err)
	}
	for _, o := range ops {
		ov := opVector{
			Kind: uint64(o.Kind), Critical: o.Critical, Name: o.Name, Key: hex.EncodeToString(o.Key), Payload: hex.EncodeToString(o.Payload),
			HLC: uint64(o.HLC), Order: o.Order, Flags: o.Flags, Expiry: o.Expiry, Content: hex.EncodeToString(o.Content),
		}
		for _, d := range o.Supersedes {
			ov.Supersedes = append(ov.Supersedes, dotVector{d.Log.String(), d.Seq})
		}
		v.Ops = append(v.Ops, ov)
	}
	return v
}

// updating tells whether the test was run with -update, a flag of the transcripts
// of this package.
func updating() bool {
	f := flag.Lookup("update")
	return f != nil && f.Value.String() == "true"
}

// golden compares v with a file of testdata/vectors, or writes it with -update.
func golden[T any](t *testing.T, name string, v T) {
	t.Helper()
	file := filepath.Join("testdata", "vectors", name+".json")
	if updating() {
		text, err := json.MarshalIndent(v, "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, append(text, '\n'), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if want := readVector[T](t, file); !reflect.DeepEqual(v, want) {
		t.Errorf("%s: the format has changed:\n got %+v\nwant %+v", file, v, want)
	}
}

func readVector[T any](t testing.TB, file string) (v T) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatalf("%v (write it with -update)", err)
	}
	if err := json.Unmarshal(text, &v); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	return v
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	if len(b) == 0 {
		return nil
	}
	return b
}

// TestVectors writes the blocks again and compares each byte.
func TestVectors(t *testing.T) {
	w, names, about := vectorBlocks()
	for i, name := range names {
		if name == "zstd" && !updating() {
			continue // TestVectorsRead checks it: other versions may pack otherwise
		}
		golden(t, name, toBlockVector(t, about[i], w.Block(i), false))
	}
	golden(t, "header_only", toBlockVector(t, "the header of the delete, as it stands in the tail of a run", w.Block(2), true))
	golden(t, "ids", idVector{
		Seed: strings.Repeat("07", 32), Origin: w.Origin.String(), OpenName: "dev", Network: network.String(),
		RootNetwork: replication.NetworkOfRoot(w.Origin[:]).String(), SpaceName: replication.DefaultSpace,
		Space: space.String(), Epoch: w.Epoch.String(), Log: w.Log.String(),
		Frontier:     replication.FrontierRoot([]replication.FrontierEntry{{Log: w.Log, Base: 1, Pos: w.Pos(2)}}).String(),
		FrontierNone: replication.FrontierRoot(nil).String(),
	})
	raw := replication.AppendBlock(nil, w.Block(1).HeaderRaw, nil, w.Block(1).Body)
	raw = append(raw, w.Raw(2, 3)...)
	raw = append(raw, w.RawTail(3, 3, 4)...)
	golden(t, "run", runVector{
		About: "the follower, without its signature, the delete with its own, and the header of the next block as a tail",
		Log:   w.Log.String(), From: w.Pos(1).Hash.String(), Seq: w.Pos(1).Seq, End: w.Pos(3).Hash.String(), Run: hex.EncodeToString(raw),
	})
}

// TestVectorsRead reads the files as another implementation would.
func TestVectorsRead(t *testing.T) {
	ids := readVector[idVector](t, "testdata/vectors/ids.json")
	origin := replication.OriginKey(unhex(t, ids.Origin))
	files, err := filepath.Glob("testdata/vectors/*.json")
	if err != nil || len(files) < 12 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".json")
		if name == "ids" || name == "run" || name == "frontier" {
			continue
		}
		t.Run(name, func(t *testing.T) {
			v := readVector[blockVector](t, file)
			b, rest, err := replication.ParseBlock(unhex(t, v.Block))
			if err != nil || len(rest) != 0 {
				t.Fatalf("%d bytes left, %v", len(rest), err)
			}
			if sum := sha256.Sum256(b.HeaderRaw); hex.EncodeToString(sum[:]) != v.Hash || b.Hash.String() != v.Hash {
				t.Errorf("hash %s, want %s", b.Hash, v.Hash)
			}
			if b.Header.Log.String() != ids.Log {
				t.Errorf("log %s, want %s", b.Header.Log, ids.Log)
			}
			if v.Signature != "" && !ed25519.Verify(origin[:], unhex(t, v.Signed), unhex(t, v.Signature)) {
				t.Error("the signature does not verify")
			}
			if !b.HasBody() {
				return
			}
			if got := toBlockVector(t, v.About, b, false); !reflect.DeepEqual(got, v) {
				t.Errorf("got %+v, want %+v", got, v)
			}
		})
	}
	v := readVector[runVector](t, "testdata/vectors/run.json")
	src := replication.RunSource{
		Network: network, Space: space, Origin: &origin, Log: replication.LogID(unhex(t, v.Log)),
		From: replication.Position{Seq: v.Seq, Hash: replication.Hash(unhex(t, v.From))},
	}
	run, err := replication.VerifyRun(src, unhex(t, v.Run))
	if err != nil || run.End().Hash.String() != v.End || len(run.Blocks) != 2 || len(run.Tail) != 1 {
		t.Errorf("the run: %+v %v", run, err)
	}
}
