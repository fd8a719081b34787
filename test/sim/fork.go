package sim

import (
	"crypto/sha256"

	"vixp2p/replication"
)

// fork signs a second block where a node's log goes on, as a resumed clone of its
// machine would, and gives it to another node.
func (w *world) fork() {
	if w.calm {
		return
	}
	cheat, victim := w.nodes[w.rng.IntN(len(w.nodes))], w.nodes[w.rng.IntN(len(w.nodes))]
	logs := sortedLogs(victim.mirror.frontier)
	for _, log := range logs {
		if cheat == victim || victim.store == nil {
			break
		}
		info, _ := victim.store.Log(log)
		if info.Origin != cheat.origin() || w.chance(0.5) {
			continue
		}
		run, err := replication.VerifyRun(
			replication.RunSource{Network: cheat.net, Log: log, Space: info.Space, Origin: &info.Origin, From: info.Tip},
			cheat.otherBranch(log, info.Tip))
		if err != nil {
			w.fail("the other branch does not verify: %v", err)
			return
		}
		w.trace("%s forks %s after %d at %s", cheat, log.Short(), info.Tip.Seq, victim)
		w.truth.forked[log] = true
		w.truth.blocks[ending{log, run.End()}] = true
		victim.store.Ingest(0, run, func(replication.IngestResult) {})
		victim.flushLater()
		return
	}
	w.after(w.some(turmoil/10), w.fork)
}

// otherBranch is a signed block after a position.
func (n *node) otherBranch(log replication.LogID, after replication.Position) []byte {
	op := replication.Op{Kind: replication.KindPut, Key: []byte("forked"), HLC: replication.HLCAt(n.w.now)}
	op.Order = uint64(op.HLC)
	body := replication.EncodeBody(log, []replication.Op{op})
	header := replication.AppendHeader(nil, &replication.Header{
		Log: log, FirstSeq: after.Seq + 1, Count: 1, Prev: after.Hash,
		BodyHash: sha256.Sum256(body), BodyLen: uint64(len(body)), RawLen: uint64(len(body)),
		FirstHLC: op.HLC, LastHLC: op.HLC,
	})
	return replication.AppendBlock(nil, header, replication.SignBlock(n.key, sha256.Sum256(header)), body)
}
