package trust

import (
	"crypto/ed25519"
	"crypto/sha256"
	"fmt"

	"vixp2p/replication"
)

// RootBlock is a whole log of the root: one signed block that makes these
// statements, as the run that a store ingests. Each call begins a log of its own,
// in a fresh random epoch, so that a root key that is used on two machines, or put
// back from a backup, never contradicts itself. now is the time on the block; it
// decides nothing.
func RootBlock(root ed25519.PrivateKey, statements []Statement, now replication.HLC, epoch replication.Epoch) ([]byte, replication.LogID, error) {
	public := root.Public().(ed25519.PublicKey)
	g := &replication.Genesis{Network: replication.NetworkOfRoot(public), Origin: replication.OriginKey(public), Epoch: epoch}
	g.Space = ControlSpace(g.Network)
	log := g.LogID()
	if len(statements) == 0 || len(statements) > replication.MaxOpsPerBlock {
		return nil, log, fmt.Errorf("%d statements of the root at once: there must be 1 to %d", len(statements), replication.MaxOpsPerBlock)
	}
	ops := make([]replication.Op, len(statements))
	for i, s := range statements {
		op, err := Op(s)
		if err != nil {
			return nil, log, err
		}
		op.HLC = now + replication.HLC(i)
		ops[i] = op
	}
	body := replication.EncodeBody(log, ops)
	if len(body) > replication.MaxRawBody {
		return nil, log, &replication.TooLargeError{What: "block of root statements", Size: len(body), Max: replication.MaxRawBody}
	}
	header := replication.AppendHeader(nil, &replication.Header{
		Log: log, FirstSeq: 1, Count: uint64(len(ops)), BodyHash: sha256.Sum256(body),
		BodyLen: uint64(len(body)), RawLen: uint64(len(body)),
		FirstHLC: ops[0].HLC, LastHLC: ops[len(ops)-1].HLC, Genesis: g,
	})
	return replication.AppendBlock(nil, header, replication.SignBlock(root, sha256.Sum256(header)), body), log, nil
}
