package replicator

import (
	"errors"

	"vixp2p/replication"
)

// refusals maps errors to the codes of design 6.7, the first match wins.
var refusals = []struct {
	err  error
	code replication.Code
}{
	{replication.ErrTooNew, replication.CodeTooNew},
	{replication.ErrRevoked, replication.CodeRevoked},
	{replication.ErrNotAllowed, replication.CodeNotAllowed},
	{replication.ErrForked, replication.CodeForked},
	{replication.ErrGap, replication.CodeGap},
	{replication.ErrNoSpace, replication.CodeNoSpace},
	{replication.ErrUnknownLog, replication.CodeUnknownLog},
	{replication.ErrSignature, replication.CodeBadRun},
	{replication.ErrTooLarge, replication.CodeBadRun},
	{replication.ErrInvalid, replication.CodeBadRun},
}

// refusalCode is why a run was not taken. What is this node's own trouble is
// CodeNoSpace, the one that the sender tries again later.
func refusalCode(err error) replication.Code {
	for _, r := range refusals {
		if errors.Is(err, r.err) {
			return r.code
		}
	}
	return replication.CodeNoSpace
}

// resultCode is the code of a committer's answer.
func resultCode(res replication.IngestResult) replication.Code {
	switch res.Code {
	case replication.Committed, replication.Duplicate:
		return replication.CodeOK
	case replication.Gap:
		return replication.CodeGap
	case replication.Forked:
		return replication.CodeForked
	}
	return refusalCode(res.Err)
}
