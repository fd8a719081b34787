package protocols

import (
	"bytes"
	"time"

	"vixp2p/replication"
	"vixp2p/routing"
)

// fill makes n bytes that tell their place.
func fill(dst []byte, first byte) {
	for i := range dst {
		dst[i] = first + byte(i)
	}
}

func sampleLog(n byte) (l replication.LogID) { fill(l[:], n); return l }
func sampleHash(n byte) (h replication.Hash) { fill(h[:], n); return h }
func samplePos(seq uint64, n byte) (p replication.Position) {
	return replication.Position{Seq: seq, Hash: sampleHash(n)}
}

// sampleNode has these children.
func sampleNode(node uint16, children ...byte) replication.FrontierNode {
	n := replication.FrontierNode{Node: node}
	for i, c := range children {
		n.Present.Add(c)
		var d replication.ChildDigest
		fill(d[:], 0x30+byte(i))
		n.Digests = append(n.Digests, d)
	}
	return n
}

// sample is one message with a name for its golden vector.
type sample struct {
	name string
	msg  any
}

// samples has every message type at least once, and each at its edges.
func samples() []sample {
	var nonce, tag [32]byte
	fill(nonce[:], 0x10)
	fill(tag[:], 0x40)
	var instance replication.Instance
	fill(instance[:], 0x70)
	var boot BootNonce
	fill(boot[:], 0x90)
	var origin replication.OriginKey
	fill(origin[:], 0xd0)
	network := replication.OpenNetwork("dev")
	space := replication.SpaceOf(network, replication.DefaultSpace)
	spaces := []replication.SpaceInfo{{ID: space, Name: replication.DefaultSpace}, {ID: replication.SpaceID{0xee}}}
	entries := []replication.FrontierEntry{
		{Log: sampleLog(1), Base: 1, Pos: samplePos(300, 0xa0)},
		{Log: sampleLog(2), Branch: sampleHash(3), Base: 77, Pos: samplePos(1<<40, 0xb0)},
		{Log: sampleLog(3)},
	}
	run := bytes.Repeat([]byte("run "), 5)
	return []sample{
		{"hello", &Hello{
			Nonce: nonce, NetTag: tag, Instance: instance, Boot: boot, Attempt: 1, BlockFormat: 1,
			Features: []string{FeaturePullOnly, "x"}, SentMS: 1764000000123,
		}},
		{"hello_ack", &HelloAck{Nonce: nonce, NetTag: tag, Instance: instance, Boot: boot, BlockFormat: 1, SentMS: 1764000000124}},
		{"hello_finish", &HelloFinish{Certificate: []byte("a certificate"), Label: "A", Spaces: spaces, Agent: "vix-node/1", SentMS: 1764000000125}},
		{"welcome", &Welcome{Label: "B", Spaces: spaces[:1], Agent: "vix-node/1"}},
		{"bye", &replication.Bye{Code: replication.CodeDuplicate, Detail: "another session stays"}},
		{"bye_ok", &replication.Bye{}},
		{"ping", &replication.Ping{Nonce: 7}},
		{"pong", &replication.Pong{Nonce: 7}},
		{"wal_push", &replication.WalPush{
			Space: space, Log: sampleLog(1), From: samplePos(300, 0xa0), End: samplePos(310, 0xc0),
			Total: uint64(len(run)), Data: run,
		}},
		{"wal_push_piece", &replication.WalPush{
			Space: space, Log: sampleLog(1), Branch: sampleHash(9), End: samplePos(4, 0xc0),
			Total: 1 << 20, Offset: 1<<20 - uint64(len(run)), Pull: 3, PullEnd: true, Data: run,
		}},
		{"wal_push_pull_end", &replication.WalPush{Pull: 3, PullEnd: true}},
		{"wal_ack", &replication.WalAck{Entries: []replication.AckEntry{
			{Space: space, Log: sampleLog(1), Pos: samplePos(310, 0xc0)},
			{Space: space, Log: sampleLog(2), Code: replication.CodeForked, Detail: "another branch is held", Branch: sampleHash(9)},
		}}},
		{"wal_ack_partial", &replication.WalAck{Entries: []replication.AckEntry{
			{Space: space, Log: sampleLog(1), Pos: samplePos(300, 0xa0), PartialFrom: samplePos(300, 0xa0), PartialEnd: samplePos(310, 0xc0), PartialBytes: 4096},
			{Space: space, Log: sampleLog(2), PartialEnd: samplePos(9, 0xc0)},
		}}},
		{"wal_ack_declined", &replication.WalAck{Entries: []replication.AckEntry{
			{Space: space, Code: replication.CodeNotAllowed, Detail: "this node does not take part in the space"},
		}}},
		{"outbox_pull", &replication.OutboxPull{ID: 3, Space: space, MaxOps: 128, MaxBytes: 1 << 20}},
		{"outbox_pull_all", &replication.OutboxPull{ID: 4}},
		{"frontier_digest", &replication.FrontierDigest{Space: space, Name: replication.DefaultSpace, Round: 1, Digest: sampleHash(0x20), Logs: 3}},
		{"frontier_digest_empty_reply", &replication.FrontierDigest{Space: space, Round: 1, Reply: true}},
		{"frontier_diff", &replication.FrontierDiff{Space: space, Round: 1, Part: 2, Entries: entries}},
		{"frontier_diff_last", &replication.FrontierDiff{Space: space, Round: 1, Last: true}},
		{"frontier_digest_levels", &replication.FrontierDigest{Space: space, Round: 2, Digest: sampleHash(0x20), Logs: 3, Levels: true}},
		{"frontier_diff_root", &replication.FrontierDiff{Space: space, Round: 2, Last: true, Nodes: []replication.FrontierNode{sampleNode(0, 1, 2, 255)}}},
		{"frontier_diff_nodes", &replication.FrontierDiff{
			Space: space, Round: 2, Step: 1, Part: 1, Entries: entries[:1],
			Nodes: []replication.FrontierNode{sampleNode(1, 0), sampleNode(256, 7, 8)},
		}},
		{"frontier_diff_shared", &replication.FrontierDiff{
			Space: space, Round: 2, Last: true, Entries: entries[:1],
			Whole: sampleNode(0, 255).Present, Buckets: []uint16{0, 0x0102},
		}},
		{"frontier_open", &replication.FrontierOpen{
			Space: space, Round: 2, Step: 1, Nodes: sampleNode(0, 1, 2).Present, Whole: sampleNode(0, 255).Present,
		}},
		{"frontier_open_buckets", &replication.FrontierOpen{Space: space, Round: 2, Step: 2, Buckets: []uint16{0, 0x0102, 0xffff}}},
		{"announce", &replication.Announce{Space: space, Entries: entries[:1]}},
		{"prune", &replication.Prune{Logs: []replication.LogID{sampleLog(1), sampleLog(2)}}},
		{"prune_all", &replication.Prune{Logs: []replication.LogID{{}}}},
		{"graft", &replication.Graft{Log: sampleLog(1), From: samplePos(300, 0xa0)}},
		{"graft_all", &replication.Graft{}},
		{"receipt", &replication.Receipt{
			Network: network, Space: space, Holder: origin, Instance: instance, Counter: 5, Entries: entries[:2],
			Signature: bytes.Repeat([]byte{0x55}, 64),
		}},
		{"fork_proof", &replication.ForkProofMsg{Space: space, Proof: replication.ForkProof{
			Log: sampleLog(1), Origin: origin, A: []byte("branch A"), B: []byte("branch B, longer"),
		}}},
		{"control", &replication.Control{Data: []byte("trust state")}},
		{"control_empty", &replication.Control{}},
		{"join_begin", &JoinBegin{}},
		{"join_challenge", &JoinChallenge{Nonce: nonce}},
		{"join_request", &JoinRequest{
			Network: network, Invite: tag, Label: "C", X25519: origin, Signature: bytes.Repeat([]byte{0x55}, 64),
		}},
		{"join_request_bare", &JoinRequest{Network: network, Invite: tag, Signature: bytes.Repeat([]byte{0x55}, 64)}},
		{"join_accept", &JoinAccept{Chain: []byte("a certificate, and its issuer's"), Root: origin, NetworkName: "home"}},
		{"join_accept_nameless", &JoinAccept{Chain: []byte{1}, Root: origin}},
		{"msg_push", &MsgPush{Number: 3, Hops: 2, Data: []byte("a routed message")}},
		{"msg_answer", &MsgAnswer{Number: 3, Verdict: routing.Stored}},
		{"msg_answer_busy", &MsgAnswer{Number: 1 << 40, Verdict: routing.Busy, Retry: 1500 * time.Millisecond}},
	}
}
