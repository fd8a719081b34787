package replicator_test

import (
	"bytes"
	"crypto/ed25519"
	"testing"

	"vixp2p/replication"
	"vixp2p/replication/replicator"
)

// script is a peer that the test plays itself, message by message.
type script struct {
	t    *testing.T
	peer *replicator.Peer // the node's session with it
	c    *conn
	// account holds what the node received from it.
	account *replicator.Account
}

// play attaches a scripted peer to a node.
func play(n *node, name string, change ...func(*replicator.PeerInfo)) *script {
	n.t.Helper()
	ca, cb := newConns()
	ca.account = n.r.Budget().Open()
	info := replicator.PeerInfo{ID: name, Key: replication.OriginKey{name[0]}, Instance: replication.Instance{name[0]}}
	for _, c := range change {
		c(&info)
	}
	p, err := n.r.Attach(info, ca)
	if err != nil {
		n.t.Fatal(err)
	}
	return &script{t: n.t.(*testing.T), peer: p, c: cb, account: ca.account}
}

func (s *script) say(msgs ...replication.Message) {
	s.t.Helper()
	if err := s.c.Write(msgs...); err != nil {
		s.t.Fatal(err)
	}
}

// hear returns the next message of a type and skips others.
func hear[M replication.Message](s *script) M {
	s.t.Helper()
	for {
		m, _, err := s.c.Read()
		if err != nil {
			s.t.Fatal(err)
		}
		if want, ok := m.(M); ok {
			return want
		}
	}
}

// settle answers the node's question: this peer holds these positions.
func (s *script) settle(entries ...replication.FrontierEntry) {
	s.t.Helper()
	q := hear[*replication.FrontierDigest](s)
	root := replication.FrontierRoot(entries)
	s.say(&replication.FrontierDigest{Space: space, Round: q.Round, Reply: true, Digest: root, Logs: uint64(len(entries))})
	if root != q.Digest {
		s.say(&replication.FrontierDiff{Space: space, Round: q.Round, Last: true, Entries: entries})
	}
}

func (s *script) ack(log replication.LogID, pos replication.Position) {
	s.t.Helper()
	s.say(&replication.WalAck{Entries: []replication.AckEntry{{Space: space, Log: log, Pos: pos}}})
}

// origin writes blocks by hand.
type origin struct {
	key ed25519.PrivateKey
	log replication.LogID
	pos replication.Position
	gen *replication.Genesis
	hlc replication.HLC
}

func newOrigin(seed byte) *origin {
	o := &origin{key: ed25519.NewKeyFromSeed(bytes.Repeat([]byte{seed}, 32)), hlc: 1 << 20}
	o.gen = &replication.Genesis{Network: network, Space: space, Epoch: replication.Epoch{seed}, Grant: []byte("grant")}
	copy(o.gen.Origin[:], o.key.Public().(ed25519.PublicKey))
	o.log = o.gen.LogID()
	return o
}

// block appends a signed block of one op.
func (o *origin) block(payload string) (from, end replication.Position, raw []byte) {
	from = o.pos
	o.hlc++
	body := replication.EncodeBody(o.log, []replication.Op{{
		Kind: replication.KindApp, Name: "note", Payload: []byte(payload), HLC: o.hlc,
	}})
	h := &replication.Header{
		Log: o.log, FirstSeq: from.Seq + 1, Count: 1, Prev: from.Hash,
		BodyHash: replication.Hash(sha(body)), BodyLen: uint64(len(body)), RawLen: uint64(len(body)),
		FirstHLC: o.hlc, LastHLC: o.hlc,
	}
	if from.Seq == 0 {
		h.Genesis = o.gen
	}
	header := replication.AppendHeader(nil, h)
	hash := replication.Hash(sha(header))
	o.pos = replication.Position{Seq: from.Seq + 1, Hash: hash}
	raw = replication.AppendBlock(nil, header, replication.SignBlock(o.key, hash), body)
	return from, o.pos, raw
}

func (o *origin) push(payload string) *replication.WalPush {
	from, end, raw := o.block(payload)
	return &replication.WalPush{Space: space, Log: o.log, From: from, End: end, Total: uint64(len(raw)), Data: raw}
}
