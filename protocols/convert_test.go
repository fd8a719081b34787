package protocols

import (
	"bytes"
	"errors"
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"

	p2pv1 "vixp2p/proto/vix/p2p/v1"
	"vixp2p/replication"
)

func TestMessagesRoundTrip(t *testing.T) {
	for _, s := range samples() {
		f, err := Encode(s.msg)
		if err != nil {
			t.Errorf("%s: %v", s.name, err)
			continue
		}
		got, err := Decode(f)
		if err != nil || !reflect.DeepEqual(got, s.msg) {
			t.Errorf("%s: got %+v, %v", s.name, got, err)
		}
	}
}

// Every rule that a message alone can break, broken.
func TestDecodeRefuses(t *testing.T) {
	id16, id32, id64 := make([]byte, 16), bytes.Repeat([]byte{1}, 32), make([]byte, 64)
	pos := func(seq uint64) *p2pv1.Position { return &p2pv1.Position{Seq: seq, Hash: id32} }
	entry := func() *p2pv1.FrontierEntry { return &p2pv1.FrontierEntry{Log: id32, Pos: pos(1)} }
	entries := func(n int) (out []*p2pv1.FrontierEntry) {
		for range n {
			out = append(out, &p2pv1.FrontierEntry{Log: id32})
		}
		return out
	}
	ack := func(change func(*p2pv1.AckEntry)) *p2pv1.WalAck {
		e := &p2pv1.AckEntry{Space: id16, Log: id32, Pos: pos(1)}
		change(e)
		return &p2pv1.WalAck{Entries: []*p2pv1.AckEntry{e}}
	}
	push := func(change func(*p2pv1.WalPush)) *p2pv1.WalPush {
		m := &p2pv1.WalPush{Space: id16, Log: id32, End: pos(1), Total: 4}
		change(m)
		return m
	}
	hello := func(change func(*p2pv1.Hello)) *p2pv1.Hello {
		m := &p2pv1.Hello{Nonce: id32, NetTag: id32, Instance: id16, BootNonce: id16, Attempt: 1, BlockFormat: 1}
		change(m)
		return m
	}
	nodes := func(n int, number uint32) (out []*p2pv1.FrontierNode) {
		for range n {
			out = append(out, &p2pv1.FrontierNode{Node: number, Present: append([]byte{1}, make([]byte, 31)...), Digests: id32[:16]})
		}
		return out
	}
	node := func(change func(*p2pv1.FrontierNode)) *p2pv1.FrontierDiff {
		m := &p2pv1.FrontierDiff{Space: id16, Nodes: nodes(1, 1)}
		change(m.Nodes[0])
		return m
	}
	request := func(change func(*p2pv1.JoinRequest)) *p2pv1.JoinRequest {
		m := &p2pv1.JoinRequest{Network: id32, Invite: id32, Signature: id64}
		change(m)
		return m
	}
	data := []byte("data")
	for _, c := range []struct {
		name       string
		typ        MessageType
		msg        proto.Message
		attachment []byte
	}{
		{"hello without nonce", TypeHello, hello(func(m *p2pv1.Hello) { m.Nonce = nil }), nil},
		{"hello with a short tag", TypeHello, hello(func(m *p2pv1.Hello) { m.NetTag = id16 }), nil},
		{"hello with a long instance", TypeHello, hello(func(m *p2pv1.Hello) { m.Instance = id32 }), nil},
		{"hello without boot nonce", TypeHello, hello(func(m *p2pv1.Hello) { m.BootNonce = nil }), nil},
		{"hello of attempt 0", TypeHello, hello(func(m *p2pv1.Hello) { m.Attempt = 0 }), nil},
		{"hello with block format 0", TypeHello, hello(func(m *p2pv1.Hello) { m.BlockFormat = 0 }), nil},
		{"hello with 17 features", TypeHello, hello(func(m *p2pv1.Hello) { m.Features = strings.Split(strings.Repeat("x ", 16)+"x", " ") }), nil},
		{"hello with an empty feature", TypeHello, hello(func(m *p2pv1.Hello) { m.Features = []string{""} }), nil},
		{"hello with a long feature", TypeHello, hello(func(m *p2pv1.Hello) { m.Features = []string{strings.Repeat("x", 33)} }), nil},
		{"ack without tag", TypeHelloAck, &p2pv1.HelloAck{Nonce: id32, Instance: id16, BootNonce: id16, BlockFormat: 1}, nil},
		{"finish with a long label", TypeHelloFinish, &p2pv1.HelloFinish{Label: strings.Repeat("x", MaxLabelBytes+1)}, nil},
		{"finish with a long agent", TypeHelloFinish, &p2pv1.HelloFinish{Agent: strings.Repeat("x", MaxAgentBytes+1)}, nil},
		{"finish with a long certificate", TypeHelloFinish, &p2pv1.HelloFinish{Certificate: make([]byte, MaxCertificate+1)}, nil},
		{"welcome with 33 spaces", TypeWelcome, &p2pv1.Welcome{Spaces: func() (s []*p2pv1.Space) {
			for range MaxHelloSpaces + 1 {
				s = append(s, &p2pv1.Space{Id: id16})
			}
			return s
		}()}, nil},
		{"welcome with a bad space id", TypeWelcome, &p2pv1.Welcome{Spaces: []*p2pv1.Space{{Id: id32}}}, nil},
		{"welcome with a long space name", TypeWelcome, &p2pv1.Welcome{Spaces: []*p2pv1.Space{{Id: id16, Name: strings.Repeat("x", 129)}}}, nil},
		{"bye with a long detail", TypeBye, &p2pv1.Bye{Detail: strings.Repeat("x", MaxDetailBytes+1)}, nil},
		{"bye with an attachment", TypeBye, &p2pv1.Bye{}, data},

		{"challenge without nonce", TypeJoinChallenge, &p2pv1.JoinChallenge{}, nil},
		{"challenge with a long nonce", TypeJoinChallenge, &p2pv1.JoinChallenge{Nonce: id64}, nil},
		{"join without network", TypeJoinRequest, request(func(m *p2pv1.JoinRequest) { m.Network = nil }), nil},
		{"join with a short invite", TypeJoinRequest, request(func(m *p2pv1.JoinRequest) { m.Invite = id16 }), nil},
		{"join with a long label", TypeJoinRequest, request(func(m *p2pv1.JoinRequest) { m.Label = strings.Repeat("x", MaxLabelBytes+1) }), nil},
		{"join with a short key", TypeJoinRequest, request(func(m *p2pv1.JoinRequest) { m.X25519 = id16 }), nil},
		{"join with the zero key", TypeJoinRequest, request(func(m *p2pv1.JoinRequest) { m.X25519 = make([]byte, 32) }), nil},
		{"join without signature", TypeJoinRequest, request(func(m *p2pv1.JoinRequest) { m.Signature = nil }), nil},
		{"join with a long signature", TypeJoinRequest, request(func(m *p2pv1.JoinRequest) { m.Signature = make([]byte, 65) }), nil},
		{"acceptance without chain", TypeJoinAccept, &p2pv1.JoinAccept{Root: id32}, nil},
		{"acceptance with a long chain", TypeJoinAccept, &p2pv1.JoinAccept{Chain: make([]byte, MaxCertificate+1), Root: id32}, nil},
		{"acceptance without root", TypeJoinAccept, &p2pv1.JoinAccept{Chain: data}, nil},
		{"acceptance with a long name", TypeJoinAccept, &p2pv1.JoinAccept{
			Chain: data, Root: id32, NetworkName: strings.Repeat("x", MaxNetworkNameBytes+1),
		}, nil},

		{"push without log", TypeWalPush, push(func(m *p2pv1.WalPush) { m.Log = nil }), data},
		{"push without space", TypeWalPush, push(func(m *p2pv1.WalPush) { m.Space = nil }), data},
		{"push with a short branch", TypeWalPush, push(func(m *p2pv1.WalPush) { m.Branch = id16 }), data},
		{"push with the zero branch", TypeWalPush, push(func(m *p2pv1.WalPush) { m.Branch = make([]byte, 32) }), data},
		{"push without bytes", TypeWalPush, push(func(*p2pv1.WalPush) {}), nil},
		{"push of more than its total", TypeWalPush, push(func(m *p2pv1.WalPush) { m.Total = 3 }), data},
		{"push beyond its total", TypeWalPush, push(func(m *p2pv1.WalPush) { m.Offset = 1 }), data},
		{"push with an offset that overflows", TypeWalPush, push(func(m *p2pv1.WalPush) { m.Offset = 1<<64 - 2 }), data},
		{"push of a run beyond the limit", TypeWalPush, push(func(m *p2pv1.WalPush) { m.Total = replication.MaxRunBytes + 1 }), data},
		{"push that ends where it starts", TypeWalPush, push(func(m *p2pv1.WalPush) { m.From = pos(1) }), data},
		{"push with a position without hash", TypeWalPush, push(func(m *p2pv1.WalPush) { m.End = &p2pv1.Position{Seq: 1} }), data},
		{"push from a hash without seq", TypeWalPush, push(func(m *p2pv1.WalPush) { m.From = &p2pv1.Position{Hash: id32} }), data},
		{"push that ends no pull", TypeWalPush, push(func(m *p2pv1.WalPush) { m.PullEnd = true }), data},
		{"push of nothing", TypeWalPush, &p2pv1.WalPush{}, nil},
		{"empty end of a pull with bytes", TypeWalPush, &p2pv1.WalPush{Pull: 1, PullEnd: true}, data},

		{"ack of nothing", TypeWalAck, &p2pv1.WalAck{}, nil},
		{"ack of too many", TypeWalAck, &p2pv1.WalAck{Entries: make([]*p2pv1.AckEntry, MaxEntries+1)}, nil},
		{"ack without space", TypeWalAck, ack(func(e *p2pv1.AckEntry) { e.Space = nil }), nil},
		{"ack without log", TypeWalAck, ack(func(e *p2pv1.AckEntry) { e.Log = nil; e.Pos = nil }), nil},
		{"ack without log, but with a position", TypeWalAck, ack(func(e *p2pv1.AckEntry) { e.Log = nil; e.Code = 35 }), nil},
		{"ack with a negative code", TypeWalAck, ack(func(e *p2pv1.AckEntry) { e.Code = -1 }), nil},
		{"ack with a long detail", TypeWalAck, ack(func(e *p2pv1.AckEntry) { e.Detail = strings.Repeat("x", MaxDetailBytes+1) }), nil},
		{"ack of a partial run without end", TypeWalAck, ack(func(e *p2pv1.AckEntry) { e.PartialBytes = 1 }), nil},
		{"ack of a partial run that goes back", TypeWalAck, ack(func(e *p2pv1.AckEntry) { e.PartialFrom, e.PartialEnd = pos(2), pos(2) }), nil},
		{"ack of a partial run beyond the limit", TypeWalAck, ack(func(e *p2pv1.AckEntry) {
			e.PartialEnd, e.PartialBytes = pos(2), replication.MaxRunBytes+1
		}), nil},

		{"pull without number", TypeOutboxPull, &p2pv1.OutboxPull{}, nil},
		{"pull of the zero space", TypeOutboxPull, &p2pv1.OutboxPull{Id: 1, Space: id16}, nil},
		{"digest without space", TypeFrontierDigest, &p2pv1.FrontierDigest{}, nil},
		{"digest without logs", TypeFrontierDigest, &p2pv1.FrontierDigest{Space: id16, Digest: id32}, nil},
		{"digest of logs that is empty", TypeFrontierDigest, &p2pv1.FrontierDigest{Space: id16, Logs: 1}, nil},
		{"digest with a long name", TypeFrontierDigest, &p2pv1.FrontierDigest{Space: id16, Name: strings.Repeat("x", 129)}, nil},
		{"diff without space", TypeFrontierDiff, &p2pv1.FrontierDiff{Entries: entries(1)}, nil},
		{"diff with too many entries", TypeFrontierDiff, &p2pv1.FrontierDiff{Space: id16, Entries: entries(MaxEntries + 1)}, nil},
		{"answer with levels", TypeFrontierDigest, &p2pv1.FrontierDigest{Space: id16, Reply: true, Levels: true}, nil},
		{"diff with too many nodes", TypeFrontierDiff, &p2pv1.FrontierDiff{Space: id16, Nodes: nodes(MaxNodes+1, 1)}, nil},
		{"diff with a node beyond the last", TypeFrontierDiff, &p2pv1.FrontierDiff{Space: id16, Nodes: nodes(1, 257)}, nil},
		{"diff with a node without children", TypeFrontierDiff, node(func(n *p2pv1.FrontierNode) { n.Present, n.Digests = nil, nil }), nil},
		{"diff with a node of no children", TypeFrontierDiff, node(func(n *p2pv1.FrontierNode) { n.Present, n.Digests = make([]byte, 32), nil }), nil},
		{"diff with a node with a digest too many", TypeFrontierDiff, node(func(n *p2pv1.FrontierNode) { n.Digests = id32 }), nil},
		{"diff with a node with a digest of zero", TypeFrontierDiff, node(func(n *p2pv1.FrontierNode) { n.Digests = make([]byte, 16) }), nil},
		{"diff of half a bucket", TypeFrontierDiff, &p2pv1.FrontierDiff{Space: id16, Buckets: []byte{1}}, nil},
		{"diff of a bucket twice", TypeFrontierDiff, &p2pv1.FrontierDiff{Space: id16, Buckets: []byte{1, 2, 1, 2}}, nil},
		{"diff of too many buckets", TypeFrontierDiff, &p2pv1.FrontierDiff{Space: id16, Buckets: make([]byte, 2*MaxOpenBuckets+2)}, nil},
		{"diff of no whole node", TypeFrontierDiff, &p2pv1.FrontierDiff{Space: id16, Whole: make([]byte, 32)}, nil},
		{"diff of a short set", TypeFrontierDiff, &p2pv1.FrontierDiff{Space: id16, Whole: id16}, nil},
		{"open without space", TypeFrontierOpen, &p2pv1.FrontierOpen{Step: 1, Nodes: id32}, nil},
		{"open without step", TypeFrontierOpen, &p2pv1.FrontierOpen{Space: id16, Nodes: id32}, nil},
		{"open of nothing", TypeFrontierOpen, &p2pv1.FrontierOpen{Space: id16, Step: 1}, nil},
		{"open of no node", TypeFrontierOpen, &p2pv1.FrontierOpen{Space: id16, Step: 1, Nodes: make([]byte, 32)}, nil},
		{"open of half a bucket", TypeFrontierOpen, &p2pv1.FrontierOpen{Space: id16, Step: 1, Buckets: []byte{1}}, nil},
		{"open of a bucket twice", TypeFrontierOpen, &p2pv1.FrontierOpen{Space: id16, Step: 1, Buckets: []byte{1, 2, 1, 2}}, nil},
		{"open of too many buckets", TypeFrontierOpen, &p2pv1.FrontierOpen{Space: id16, Step: 1, Buckets: make([]byte, 2*MaxOpenBuckets+2)}, nil},
		{"announce of nothing", TypeAnnounce, &p2pv1.Announce{}, nil},
		{"announce of no space", TypeAnnounce, &p2pv1.Announce{Entries: []*p2pv1.FrontierEntry{{Log: id32}}}, nil},
		{"announce of a short log", TypeAnnounce, &p2pv1.Announce{Space: id16, Entries: []*p2pv1.FrontierEntry{{Log: id16}}}, nil},
		{"prune of nothing", TypePrune, &p2pv1.Prune{}, nil},
		{"prune of a short log", TypePrune, &p2pv1.Prune{Logs: [][]byte{id16}}, nil},
		{"graft without log", TypeGraft, &p2pv1.Graft{}, nil},
		{"receipt of nothing", TypeReceipt, &p2pv1.Receipt{Network: id32, Space: id16, Holder: id32, Instance: id16, Signature: id64}, nil},
		{"receipt with a short signature", TypeReceipt, &p2pv1.Receipt{
			Network: id32, Space: id16, Holder: id32, Instance: id16, Signature: id32, Entries: []*p2pv1.FrontierEntry{entry()},
		}, nil},
		{"proof of one branch", TypeForkProof, &p2pv1.ForkProof{Space: id16, Log: id32, Origin: id32, LengthA: 4}, data},
		{"proof without length", TypeForkProof, &p2pv1.ForkProof{Space: id16, Log: id32, Origin: id32}, data},
		{"proof with a length that overflows", TypeForkProof, &p2pv1.ForkProof{Space: id16, Log: id32, Origin: id32, LengthA: 1<<64 - 1}, data},
		{"proof with a branch beyond a run", TypeForkProof, &p2pv1.ForkProof{
			Space: id16, Log: id32, Origin: id32, LengthA: replication.MaxRunBytes + 1,
		}, make([]byte, replication.MaxRunBytes+2)},
	} {
		t.Run(c.name, func(t *testing.T) {
			raw, err := proto.Marshal(c.msg)
			if err != nil {
				t.Fatal(err)
			}
			f := &Frame{Major: 1, Type: c.typ, Message: raw, Attachment: c.attachment}
			m, err := Decode(f)
			if !errors.Is(err, ErrMessage) {
				t.Errorf("got %+v, %v", m, err)
			}
			f.Minor = VersionMinor + 1 // a newer peer may add, never break
			if _, err := Decode(f); !errors.Is(err, ErrMessage) {
				t.Errorf("of a newer minor version: %v", err)
			}
		})
	}
}

// Unknown fields, at any depth, are skipped if the peer is newer and refused
// otherwise.
func TestDecodeUnknownFields(t *testing.T) {
	extra := []byte{0xa0, 0x06, 0x01} // field 100
	with := func(m proto.Message) proto.Message {
		m.ProtoReflect().SetUnknown(extra)
		return m
	}
	id32 := bytes.Repeat([]byte{1}, 32)
	for name, f := range map[string]Frame{
		"nothing": {Type: TypeJoinBegin, Message: marshal(t, with(&p2pv1.JoinBegin{}))},
		"message": {Type: TypePing, Message: marshal(t, with(&p2pv1.Ping{}))},
		"entry":   {Type: TypeAnnounce, Message: marshal(t, &p2pv1.Announce{Space: id32[:16], Entries: []*p2pv1.FrontierEntry{with(&p2pv1.FrontierEntry{Log: id32}).(*p2pv1.FrontierEntry)}})},
		"node": {Type: TypeFrontierDiff, Message: marshal(t, &p2pv1.FrontierDiff{Space: id32[:16], Nodes: []*p2pv1.FrontierNode{
			with(&p2pv1.FrontierNode{Present: append([]byte{1}, make([]byte, 31)...), Digests: id32[:16]}).(*p2pv1.FrontierNode),
		}})},
		"position": {Type: TypeGraft, Message: marshal(t, &p2pv1.Graft{Log: id32, From: with(&p2pv1.Position{Seq: 1, Hash: id32}).(*p2pv1.Position)})},
		"ack":      {Type: TypeWalAck, Message: marshal(t, &p2pv1.WalAck{Entries: []*p2pv1.AckEntry{with(&p2pv1.AckEntry{Space: id32[:16], Log: id32}).(*p2pv1.AckEntry)}})},
		"space":    {Type: TypeWelcome, Message: marshal(t, &p2pv1.Welcome{Spaces: []*p2pv1.Space{with(&p2pv1.Space{Id: id32[:16]}).(*p2pv1.Space)}})},
	} {
		f.Major = VersionMajor
		if _, err := Decode(&f); !errors.Is(err, ErrMessage) {
			t.Errorf("%s, same minor: %v", name, err)
		}
		f.Minor = VersionMinor + 1
		if _, err := Decode(&f); err != nil {
			t.Errorf("%s, newer minor: %v", name, err)
		}
	}
}

func marshal(t *testing.T, m proto.Message) []byte {
	t.Helper()
	b, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// What keeps to the limits of its fields fits a frame, whatever it holds.
func TestFullMessagesFit(t *testing.T) {
	entry := replication.FrontierEntry{Log: sampleLog(1), Branch: sampleHash(1), Base: 1<<64 - 1, Pos: samplePos(1<<64-1, 1)}
	diff := &replication.FrontierDiff{Round: 1<<64 - 1, Part: 1<<64 - 1, Last: true}
	announce := &replication.Announce{}
	for range EntriesPerDiff {
		diff.Entries = append(diff.Entries, entry)
		announce.Entries = append(announce.Entries, entry)
	}
	ack := &replication.WalAck{}
	for range acksPerFrame {
		ack.Entries = append(ack.Entries, replication.AckEntry{
			Log: entry.Log, Branch: entry.Branch, Pos: entry.Pos, Code: 1<<31 - 1, Detail: strings.Repeat("x", MaxDetailBytes),
			PartialFrom: samplePos(1<<64-2, 1), PartialEnd: entry.Pos, PartialBytes: replication.MaxRunBytes,
		})
	}
	node := replication.FrontierNode{Node: 256}
	for i := range 256 {
		node.Present.Add(byte(i))
		node.Digests = append(node.Digests, replication.ChildDigest{1})
	}
	nodes := &replication.FrontierDiff{Round: 1<<64 - 1, Part: 1<<64 - 1, Step: 1<<64 - 1, Last: true, Nodes: []replication.FrontierNode{node, node, node}}
	open := &replication.FrontierOpen{Round: 1<<64 - 1, Step: 1<<64 - 1, Nodes: node.Present, Whole: node.Present}
	for i := range MaxOpenBuckets {
		open.Buckets = append(open.Buckets, uint16(i))
	}
	prune := &replication.Prune{Logs: make([]replication.LogID, MaxEntries)}
	if replication.MaxDiffEntries > EntriesPerDiff {
		t.Errorf("the session cuts parts at %d entries", replication.MaxDiffEntries)
	}
	hello := &Hello{Attempt: 1<<64 - 1, BlockFormat: 1<<32 - 1, SentMS: 1<<64 - 1}
	for range MaxFeatures {
		hello.Features = append(hello.Features, strings.Repeat("x", MaxFeatureBytes))
	}
	finish := &HelloFinish{
		Certificate: make([]byte, MaxCertificate), Label: strings.Repeat("x", MaxLabelBytes),
		Agent: strings.Repeat("x", MaxAgentBytes), SentMS: 1<<64 - 1,
	}
	for range MaxHelloSpaces {
		finish.Spaces = append(finish.Spaces, replication.SpaceInfo{Name: strings.Repeat("x", replication.MaxSpaceNameBytes)})
	}
	request := &JoinRequest{Label: strings.Repeat("x", MaxLabelBytes), X25519: [32]byte{1}, Signature: make([]byte, 64)}
	accept := &JoinAccept{Chain: make([]byte, MaxCertificate), NetworkName: strings.Repeat("x", MaxNetworkNameBytes)}
	bye := &replication.Bye{Code: 1<<31 - 1, Detail: strings.Repeat("x", MaxDetailBytes)}
	w := NewWriter(&writes{})
	w.id = 1<<63 - 1
	for _, m := range []any{diff, nodes, open, announce, ack, prune, hello, finish, &JoinBegin{}, &JoinChallenge{}, request, accept, bye} {
		f, err := Encode(m)
		if err == nil {
			err = w.WriteFrame(f)
		}
		if err != nil {
			t.Errorf("%T: %v", m, err)
		}
	}
}

func TestCutText(t *testing.T) {
	for _, c := range []struct {
		in   string
		n    int
		want string
	}{
		{"abc", 3, "abc"},
		{"abcd", 3, "abc"},
		{"ab\u00e9", 3, "ab"},
		{"a\xffb", 99, "a\uFFFDb"},
		{"\U0001F600", 3, ""},
	} {
		got := cutText(c.in, c.n)
		if got != c.want || !utf8.ValidString(got) {
			t.Errorf("cutText(%q, %d) = %q, want %q", c.in, c.n, got, c.want)
		}
	}
}

func TestTypeOfKnowsEveryMessage(t *testing.T) {
	seen := map[MessageType]bool{}
	for _, s := range samples() {
		seen[TypeOf(s.msg)] = true
	}
	for _, l := range Limits() {
		if !seen[l.Type] {
			t.Errorf("no sample of %v", l.Type)
		}
	}
	if TypeOf("text") != 0 {
		t.Error("a string is no message")
	}
	if _, err := Encode("text"); !errors.Is(err, ErrUnknownType) {
		t.Errorf("got %v", err)
	}
}
