package replication_test

import (
	"crypto/sha256"
	"encoding/hex"
	"testing"
	"time"

	"vixp2p/replication"
)

// trieVector is a frontier and the nodes of its trie as a session states them.
type trieVector struct {
	About   string        `json:"about"`
	Entries []trieEntry   `json:"entries"`
	Root    string        `json:"root"` // the digest
	Nodes   []trieNodeHex `json:"nodes"`
}

type trieEntry struct {
	Log    string `json:"log"`
	Bucket string `json:"bucket"` // the first two bytes of SHA-256(log)
	Seq    uint64 `json:"seq,string"`
	Hash   string `json:"hash"`
}

type trieNodeHex struct {
	Node    uint16   `json:"node"` // as in FrontierNode
	Present string   `json:"present"`
	Digests []string `json:"digests"`
}

// TestVectorOfTrie pins the digests between the root and the entries.
func TestVectorOfTrie(t *testing.T) {
	v := trieVector{About: "six logs that are SHA-256 of one byte, and three that are a text and zeros; two of these share a bucket"}
	var entries []replication.FrontierEntry
	add := func(log replication.LogID, seq uint64) {
		sum, hash := sha256.Sum256(log[:]), replication.Hash(sha256.Sum256([]byte{byte(seq)}))
		entries = append(entries, replication.FrontierEntry{Log: log, Base: 1, Pos: replication.Position{Seq: seq, Hash: hash}})
		v.Entries = append(v.Entries, trieEntry{log.String(), hex.EncodeToString(sum[:2]), seq, hash.String()})
	}
	for i := range byte(6) {
		add(sha256.Sum256([]byte{i}), uint64(i)+1)
	}
	for i, name := range []string{"L4170", "L4750", "L276"} { // buckets 98db, 98db, 9887
		var log replication.LogID
		copy(log[:], name)
		add(log, 1<<40+uint64(i))
	}
	for _, n := range statedNodes(t, replication.NewFrontier(entries)) {
		h := trieNodeHex{Node: n.Node, Present: hex.EncodeToString(n.Present[:])}
		for _, d := range n.Digests {
			h.Digests = append(h.Digests, hex.EncodeToString(d[:]))
		}
		v.Nodes = append(v.Nodes, h)
	}
	v.Root = replication.FrontierRoot(entries).String()
	golden(t, "frontier", v)
}

// statedNodes asks a session that holds a frontier for all nodes.
func statedNodes(t *testing.T, f *replication.Frontier) (nodes []replication.FrontierNode) {
	t.Helper()
	s := replication.NewSession(replication.SessionConfig{PeerLevels: true, WholeEntries: 1})
	var do func(ev replication.Event)
	do = func(ev replication.Event) {
		for _, e := range append([]replication.Effect(nil), s.Step(time.Unix(0, 0), ev)...) {
			switch e := e.(type) {
			case replication.LoadFrontier:
				do(replication.LocalFrontier{Space: space, Frontier: f})
			case replication.Send:
				if m, ok := e.Msg.(*replication.FrontierDiff); ok {
					nodes = append(nodes, m.Nodes...)
				}
			}
		}
	}
	do(replication.Started{Spaces: []replication.SpaceInfo{{ID: space}}})
	do(replication.Received{Msg: &replication.FrontierDigest{Space: space, Round: 1, Digest: replication.Hash{1}, Levels: true}})
	if len(nodes) != 1 {
		t.Fatalf("%d nodes in answer to a question", len(nodes))
	}
	do(replication.Received{Msg: &replication.FrontierOpen{Space: space, Round: 1, Step: 1, Nodes: nodes[0].Present}})
	return nodes
}
