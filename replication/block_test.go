package replication

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"

	"vixp2p/replication/canonical/canonicaltest"
)

// Short names of package canonicaltest.
var (
	vi, by      = canonicaltest.Varint, canonicaltest.Bytes
	join, long  = canonicaltest.Join, canonicaltest.Long
	wantInvalid = canonicaltest.WantInvalid
)

var testKey = ed25519.NewKeyFromSeed(bytes.Repeat([]byte{1}, ed25519.SeedSize))

// testGenesis is a genesis header with every field.
func testGenesis() *Header {
	g := &Genesis{
		Network: OpenNetwork("dev"), Origin: OriginKey(testKey.Public().(ed25519.PublicKey)), Epoch: Epoch{5},
		PrevLog: LogID{6}, PrevPos: Position{Seq: 9, Hash: Hash{7}}, Grant: []byte("grant"),
	}
	g.Space = SpaceOf(g.Network, DefaultSpace)
	return &Header{
		Log: g.LogID(), FirstSeq: 1, Count: 3, BodyHash: sha256.Sum256([]byte("body")), BodyLen: 4, RawLen: 10, Codec: CodecZstd,
		KeyID: bytes.Repeat([]byte{8}, 32), FirstHLC: 100, LastHLC: 107, Genesis: g,
		BranchParent: []byte("parent"), SnapshotRef: []byte("snapshot"), CausalDeps: []byte("deps"),
	}
}

// testFollower is the smallest header of a block that follows another.
func testFollower() *Header {
	return &Header{
		Log: LogID{1}, FirstSeq: 2, Count: 1, Prev: Hash{2}, BodyHash: sha256.Sum256([]byte("body")), BodyLen: 4, RawLen: 4,
	}
}

func TestHeaderRoundTrip(t *testing.T) {
	noPos := testGenesis()
	noPos.Genesis.PrevPos = Position{}
	first := testGenesis()
	first.Genesis.PrevLog, first.Genesis.PrevPos, first.Genesis.Grant = LogID{}, Position{}, nil
	far := testFollower()
	far.FirstSeq, far.Count = math.MaxUint64-MaxOpsPerBlock+1, MaxOpsPerBlock
	far.FirstHLC, far.LastHLC = 1, math.MaxUint64
	for name, h := range map[string]*Header{
		"genesis": testGenesis(), "genesis of the first epoch": first, "log before without a position": noPos,
		"follower": testFollower(), "largest numbers": far,
	} {
		raw := AppendHeader(nil, h)
		got, err := DecodeHeader(raw)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if !reflect.DeepEqual(got, h) {
			t.Errorf("%s: got %+v, want %+v", name, got, h)
		}
		if !bytes.Equal(AppendHeader(nil, got), raw) {
			t.Errorf("%s: encoded again, it is other bytes", name)
		}
		// A later version may add fields from 64 on.
		if _, err := DecodeHeader(join(raw, vi(64, 1), by(100, "new"))); err != nil {
			t.Errorf("%s with fields of a later version: %v", name, err)
		}
	}
}

// fieldsOf splits canonical bytes into fields by number.
func fieldsOf(t testing.TB, raw []byte) (nums []protowire.Number, fields map[protowire.Number][]byte) {
	t.Helper()
	fields = map[protowire.Number][]byte{}
	for len(raw) > 0 {
		num, typ, n := protowire.ConsumeTag(raw)
		m := protowire.ConsumeFieldValue(num, typ, raw[n:])
		if n < 0 || m < 0 {
			t.Fatal("not protobuf")
		}
		nums = append(nums, num)
		fields[num] = raw[:n+m]
		raw = raw[n+m:]
	}
	return nums, fields
}

// TestHeaderRules breaks each rule of a header that is otherwise valid.
func TestHeaderRules(t *testing.T) {
	// with replaces (or adds, at its place) one field; nil leaves it out.
	with := func(h *Header, num protowire.Number, f []byte) []byte {
		_, fields := fieldsOf(t, AppendHeader(nil, h))
		fields[num] = f
		var nums []protowire.Number
		for n := range fields {
			nums = append(nums, n)
		}
		slices.Sort(nums)
		var raw []byte
		for _, n := range nums {
			raw = append(raw, fields[n]...)
		}
		return raw
	}
	gen, fol := testGenesis(), testFollower()
	zero32 := strings.Repeat("\x00", 32)
	for _, tc := range []struct {
		name string
		raw  []byte
		want string
	}{
		{"empty", nil, "field 1 is missing"},
		{"version missing", with(fol, hVersion, nil), "field 1 is missing"},
		{"log missing", with(fol, hLog, nil), "field 2 is missing"},
		{"seq missing", with(fol, hFirstSeq, nil), "field 3 is missing"},
		{"count missing", with(fol, hCount, nil), "field 4 is missing"},
		{"body hash missing", with(fol, hBodyHash, nil), "field 6 is missing"},
		{"body length missing", with(fol, hBodyLen, nil), "field 7 is missing"},
		{"raw length missing", with(fol, hRawLen, nil), "field 8 is missing"},
		{"log of 31 bytes", with(fol, hLog, by(hLog, zero32[:31])), "31 bytes, not 32"},
		{"log as a number", with(fol, hLog, vi(hLog, 1)), "not bytes"},
		{"count as bytes", with(fol, hCount, by(hCount, "x")), "not a varint"},
		{"count too large", with(fol, hCount, vi(hCount, MaxOpsPerBlock+1)), "more than 4096"},
		{"seq overflows", with(with2(fol, 1, 2), hFirstSeq, vi(hFirstSeq, math.MaxUint64)), "overflows"},
		{"body too long", with(fol, hBodyLen, vi(hBodyLen, MaxBody+1)), "a body of"},
		{"raw body too long", with(fol, hRawLen, vi(hRawLen, MaxRawBody+1)), "a raw body of"},
		{"key id of 31 bytes", with(fol, hKeyID, by(hKeyID, zero32[:31])), "key id of 31 bytes"},
		{"key id of 33 bytes", with(fol, hKeyID, by(hKeyID, zero32+"x")), "33 bytes"},
		{"last HLC overflows", with(gen, hLastHLCDelta, vi(hLastHLCDelta, math.MaxUint64-99)), "last HLC overflows"},
		{"reserved field too long", with(fol, hCausalDeps, by(hCausalDeps, strings.Repeat("x", MaxReserved+1))), "more than 4096"},
		{"unknown field", with(fol, 24, vi(24, 1)), "unknown header field 24"},
		{"last unknown field", with(fol, 63, vi(63, 1)), "unknown header field 63"},
		{"too long", append(AppendHeader(nil, fol), by(64, strings.Repeat("x", MaxHeader))...), "a block header has"},

		{"follower without the block before", with(fol, hPrev, nil), "names no previous block"},
		{"block before is zero", with(fol, hPrev, by(hPrev, zero32)), "hash is zero"},
		{"follower with a network", with(fol, hNetwork, by(hNetwork, zero32)), "field 13 belongs to a genesis"},
		{"follower with a grant", with(fol, hGrant, by(hGrant, "g")), "field 20 belongs to a genesis"},

		{"genesis with a block before", with(gen, hPrev, by(hPrev, zero32[1:]+"x")), "genesis block names a previous block"},
		{"genesis without a network", with(gen, hNetwork, nil), "genesis field 13 is missing"},
		{"genesis without a space", with(gen, hSpace, nil), "genesis field 14 is missing"},
		{"genesis without an origin", with(gen, hOrigin, nil), "genesis field 15 is missing"},
		{"genesis without an epoch", with(gen, hEpoch, nil), "genesis field 16 is missing"},
		{"genesis of another log", with(gen, hLog, by(hLog, zero32)), "does not follow from its genesis"},
		{"genesis of another network", with(gen, hNetwork, by(hNetwork, zero32)), "does not follow from its genesis"},
		{"genesis of another space", with(gen, hSpace, by(hSpace, zero32[:16])), "does not follow from its genesis"},
		{"genesis of another origin", with(gen, hOrigin, by(hOrigin, zero32)), "does not follow from its genesis"},
		{"genesis of another epoch", with(gen, hEpoch, by(hEpoch, zero32[:16])), "does not follow from its genesis"},
		{"log before is zero", with(gen, hPrevLog, by(hPrevLog, zero32)), "is zero"},
		{"position before is zero", with(gen, hPrevLogHash, by(hPrevLogHash, zero32)), "is zero"},
		{"seq before without a hash", with(gen, hPrevLogHash, nil), "incomplete"},
		{"hash before without a seq", with(gen, hPrevLogSeq, nil), "incomplete"},
		{"position before without a log", with(gen, hPrevLog, nil), "incomplete"},
		{"grant too long", with(gen, hGrant, by(hGrant, strings.Repeat("g", MaxGrant+1))), "more than 4096"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := DecodeHeader(tc.raw)
			wantInvalid(t, err, tc.want)
		})
	}
}

// with2 is h with another count and first seq.
func with2(h *Header, seq, count uint64) *Header {
	c := *h
	c.FirstSeq, c.Count = seq, count
	return &c
}

func TestHeaderOfALaterVersion(t *testing.T) {
	raw := AppendHeader(nil, testFollower())
	raw[1] = FormatVersion + 1
	_, err := DecodeHeader(join(raw, vi(24, 1)))
	var v *VersionError
	if !errors.Is(err, ErrTooNew) || !errors.As(err, &v) || v.Got != FormatVersion+1 {
		t.Errorf("got %v, want an error that says it is too new", err)
	}
}

func TestEncodedHeaderStartsWithItsVersion(t *testing.T) {
	if raw := AppendHeader(nil, testGenesis()); raw[0] != 1<<3 || raw[1] != FormatVersion {
		t.Errorf("% x", raw[:4])
	}
}

func testBlock(sig, body bool) (raw []byte, h *Header) {
	h = testFollower()
	header := AppendHeader(nil, h)
	var s, b []byte
	if sig {
		s = SignBlock(testKey, sha256.Sum256(header))
	}
	if body {
		b = []byte("body")
	}
	return AppendBlock(nil, header, s, b), h
}

func TestBlockRoundTrip(t *testing.T) {
	origin := OriginKey(testKey.Public().(ed25519.PublicKey))
	for _, sig := range []bool{false, true} {
		for _, body := range []bool{false, true} {
			raw, h := testBlock(sig, body)
			b, rest, err := ParseBlock(append(bytes.Clone(raw), "rest"...))
			if err != nil {
				t.Fatal(err)
			}
			if string(rest) != "rest" || !reflect.DeepEqual(b.Header, h) || b.HasBody() != body || b.EncodedLen() != len(raw) ||
				b.Hash != sha256.Sum256(b.HeaderRaw) || VerifyBlockSig(origin, b.Hash, b.Sig) != sig {
				t.Errorf("signed %v, body %v: %+v, rest %q", sig, body, b, rest)
			}
			if !bytes.Equal(AppendBlock(nil, b.HeaderRaw, b.Sig, b.Body), raw) {
				t.Errorf("signed %v, body %v: encoded again, it is other bytes", sig, body)
			}
			if b.End() != (Position{Seq: 2, Hash: b.Hash}) || b.PrevPosition() != (Position{Seq: 1, Hash: h.Prev}) {
				t.Errorf("from %v to %v", b.PrevPosition(), b.End())
			}
		}
	}
}

// TestDroppingASignatureChangesNothingElse (design 4.1).
func TestDroppingASignatureChangesNothingElse(t *testing.T) {
	signed, _ := testBlock(true, true)
	bare, _ := testBlock(false, true)
	a, _, _ := ParseBlock(signed)
	b, _, _ := ParseBlock(bare)
	a.Sig = nil
	if !reflect.DeepEqual(a, b) {
		t.Errorf("%+v and %+v", a, b)
	}
}

func TestBlockRules(t *testing.T) {
	raw, h := testBlock(true, true)
	header := AppendHeader(nil, h)
	sig := SignBlock(testKey, sha256.Sum256(header))
	for _, tc := range []struct {
		name string
		raw  []byte
		want string
	}{
		{"empty", nil, "header is cut short"},
		{"no header", AppendBlock(nil, nil, sig, []byte("body")), "field 1 is missing"},
		{"signature of 63 bytes", AppendBlock(nil, header, sig[:63], []byte("body")), "a signature of 63 bytes"},
		{"signature of 65 bytes", AppendBlock(nil, header, append(sig, 1), []byte("body")), "more than 64"},
		{"body too short", AppendBlock(nil, header, sig, []byte("bod")), "where the header says 4"},
		{"body of other bytes", AppendBlock(nil, header, sig, []byte("bodz")), "does not match its hash"},
		{"body too long", AppendBlock(nil, header, sig, make([]byte, MaxBody+1)), "a block's body of"},
		{"header too long", AppendBlock(nil, make([]byte, MaxHeader+1), nil, nil), "a block's header of"},
		{"length not minimal", join(long(protowire.AppendVarint(nil, uint64(len(header)))), header, []byte{0, 0}), "not minimal"},
		{"cut in the body", raw[:len(raw)-1], "body is cut short"},
		{"cut in the signature", raw[:len(header)+10], "signature is cut short"},
		{"cut in the header", raw[:10], "header is cut short"},
		{"cut behind the signature", raw[:len(header)+1+65], "body is cut short"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, _, err := ParseBlock(tc.raw)
			wantInvalid(t, err, tc.want)
		})
	}
}

func TestParseBlockHeaderLeavesTheBodyUnhashed(t *testing.T) {
	_, h := testBlock(false, true)
	raw := AppendBlock(nil, AppendHeader(nil, h), nil, []byte("bodz"))
	if _, _, err := ParseBlockHeader(raw); err != nil {
		t.Error(err)
	}
}

func TestBlockSignature(t *testing.T) {
	origin := OriginKey(testKey.Public().(ed25519.PublicKey))
	hash := Hash{1, 2, 3}
	sig := SignBlock(testKey, hash)
	if !VerifyBlockSig(origin, hash, sig) {
		t.Fatal("a good signature does not verify")
	}
	if !ed25519.Verify(origin[:], SignedBytes(hash), sig) || string(SignedBytes(hash)[:12]) != "vix/block/1\x00" {
		t.Error("what is signed is not what the format says")
	}
	bad := bytes.Clone(sig)
	bad[63] ^= 0x10
	for name, ok := range map[string]bool{
		"flipped":      VerifyBlockSig(origin, hash, bad),
		"other hash":   VerifyBlockSig(origin, Hash{9}, sig),
		"other origin": VerifyBlockSig(OriginKey{9}, hash, sig),
		"short":        VerifyBlockSig(origin, hash, sig[:63]),
		"none":         VerifyBlockSig(origin, hash, nil),
		"other domain": VerifyBlockSig(origin, hash, ed25519.Sign(testKey, hash[:])),
	} {
		if ok {
			t.Errorf("%s: verifies", name)
		}
	}
}

func TestIDsFollowFromTheirParts(t *testing.T) {
	if HashParts("d", []byte("ab"), []byte("c")) == HashParts("d", []byte("a"), []byte("bc")) {
		t.Error("parts run into each other")
	}
	if HashParts("d", nil) == HashParts("d") {
		t.Error("an empty part does not count")
	}
	n := OpenNetwork("dev")
	if n == OpenNetwork("dev2") || n == NetworkOfRoot(ed25519.PublicKey("dev")) {
		t.Error("networks collide")
	}
	if SpaceOf(n, "a") == SpaceOf(n, "b") || SpaceOf(n, "a") == SpaceOf(NetworkID{}, "a") {
		t.Error("spaces collide")
	}
	id := LogOf(n, SpaceID{1}, OriginKey{1}, Epoch{1})
	got, err := ParseLogID(id.String())
	if err != nil || got != id {
		t.Errorf("%v %v", got, err)
	}
	for _, s := range []string{"", "zz", id.String()[1:], id.String() + "00"} {
		if _, err := ParseLogID(s); err == nil {
			t.Errorf("%q is a log id", s)
		}
	}
}
