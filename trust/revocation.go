package trust

import (
	"bytes"
	"cmp"
	"slices"

	"google.golang.org/protobuf/encoding/protowire"

	"vixp2p/replication"
	"vixp2p/replication/canonical"
)

const (
	// MaxCutLogs bounds the logs that one revocation lists, in all spaces
	// together, so that it fits a block.
	MaxCutLogs = 8192
	// MaxCutSpaces bounds its spaces.
	MaxCutSpaces = 1024
)

// Revocation takes from a peer, in one generation, what its certificates of that
// generation gave it (design 9.4): it has no session any more, and its logs count
// only up to the cuts.
type Revocation struct {
	Subject    replication.OriginKey
	Generation uint64 // 0: Subject is the public key of an invite
	Version    uint64 // 1 or more; the highest counts
	// Cuts are ascending by space. In a space that is listed, a log of the peer
	// counts up to its cut, and one that is not listed counts for nothing. In a
	// space that is not listed its logs stand entire, but for the control space,
	// which counts as listed.
	Cuts []SpaceCut
}

// SpaceCut is the cuts in one space, ascending by log.
type SpaceCut struct {
	Space replication.SpaceID
	Logs  []LogCut
}

// LogCut is the last operation of a log that counts, at the end of a block.
type LogCut struct {
	Log replication.LogID
	Pos replication.Position
}

// Field numbers of a revocation, a space in it and a log in that (v1).
const (
	rSubject    protowire.Number = 1
	rGeneration protowire.Number = 2
	rVersion    protowire.Number = 3
	rSpace      protowire.Number = 4

	rsSpace protowire.Number = 1
	rsLog   protowire.Number = 2

	rlLog  protowire.Number = 1
	rlSeq  protowire.Number = 2
	rlHash protowire.Number = 3
)

// Encode is the payload of the operation.
func (r *Revocation) Encode() []byte {
	b := appendID(nil, rSubject, r.Subject[:])
	b = canonical.AppendVarint(b, rGeneration, r.Generation)
	b = canonical.AppendVarint(b, rVersion, r.Version)
	for _, s := range r.Cuts {
		in := appendID(nil, rsSpace, s.Space[:])
		for _, l := range s.Logs {
			cut := appendID(nil, rlLog, l.Log[:])
			cut = canonical.AppendVarint(cut, rlSeq, l.Pos.Seq)
			cut = appendID(cut, rlHash, l.Pos.Hash[:])
			in = canonical.AppendBytes(in, rsLog, cut)
		}
		b = canonical.AppendBytes(b, rSpace, in)
	}
	return b
}

func decodeRevocation(b []byte) (*Revocation, error) {
	r := &Revocation{}
	logs := 0
	err := decodeFields("revocation", b, canonical.SetOf(rSpace), canonical.SetOf(rSubject, rVersion), func(f canonical.Field) (err error) {
		switch f.Num {
		case rSubject:
			err = fixedID(f, r.Subject[:])
		case rGeneration:
			r.Generation, err = f.Varint()
		case rVersion:
			r.Version, err = f.Varint()
		case rSpace:
			var s SpaceCut
			if s, err = decodeSpaceCut(f, MaxCutLogs-logs); err == nil {
				logs += len(s.Logs)
				r.Cuts = append(r.Cuts, s)
			}
		default:
			err = errUnknownField
		}
		return err
	})
	if err == nil {
		err = r.check()
	}
	return r, err
}

func decodeSpaceCut(f canonical.Field, room int) (s SpaceCut, err error) {
	err = decodeInner("cuts of a space", f, canonical.SetOf(rsLog), canonical.SetOf(rsSpace), func(f canonical.Field) (err error) {
		switch f.Num {
		case rsSpace:
			err = fixedID(f, s.Space[:])
		case rsLog:
			if len(s.Logs) == room {
				return canonical.Invalidf("more than %d logs", MaxCutLogs)
			}
			var l LogCut
			l, err = decodeLogCut(f)
			s.Logs = append(s.Logs, l)
		default:
			err = errUnknownField
		}
		return err
	})
	return s, err
}

func decodeLogCut(f canonical.Field) (l LogCut, err error) {
	err = decodeInner("cut of a log", f, 0, canonical.SetOf(rlLog, rlSeq, rlHash), func(f canonical.Field) (err error) {
		switch f.Num {
		case rlLog:
			err = fixedID(f, l.Log[:])
		case rlSeq:
			l.Pos.Seq, err = f.Varint()
		case rlHash:
			err = fixedID(f, l.Pos.Hash[:])
		default:
			err = errUnknownField
		}
		return err
	})
	return l, err
}

func (r *Revocation) check() error {
	switch {
	case isZero(r.Subject[:]) || r.Version == 0:
		return canonical.Invalidf("a revocation needs a subject and a version")
	case r.Generation == 0 && len(r.Cuts) > 0:
		return canonical.Invalidf("the revocation of an invite has cuts")
	case len(r.Cuts) > MaxCutSpaces:
		return canonical.Invalidf("a revocation lists %d spaces, more than %d", len(r.Cuts), MaxCutSpaces)
	}
	logs := 0
	for i, s := range r.Cuts {
		if isZero(s.Space[:]) || i > 0 && bytes.Compare(r.Cuts[i-1].Space[:], s.Space[:]) >= 0 {
			return canonical.Invalidf("the spaces of a revocation are not strictly ascending")
		}
		for k, l := range s.Logs {
			if l.Pos.Seq == 0 || l.Pos.Hash.IsZero() || isZero(l.Log[:]) {
				return canonical.Invalidf("a cut without a log or position: a log that counts for nothing is left out")
			}
			if k > 0 && s.Logs[k-1].Log.Compare(l.Log) >= 0 {
				return canonical.Invalidf("the logs of a revocation are not strictly ascending")
			}
		}
		logs += len(s.Logs)
	}
	if logs > MaxCutLogs {
		return canonical.Invalidf("a revocation lists %d logs, more than %d", logs, MaxCutLogs)
	}
	return nil
}

func (r *Revocation) peer() peerGen { return peerGen{r.Subject, r.Generation} }

// cut tells up to where a log counts in a space; false if the space is not listed.
func (r *Revocation) cut(space replication.SpaceID, log replication.LogID) (replication.Position, bool) {
	i, ok := slices.BinarySearchFunc(r.Cuts, space, func(s SpaceCut, id replication.SpaceID) int {
		return bytes.Compare(s.Space[:], id[:])
	})
	if !ok {
		return replication.Position{}, false
	}
	logs := r.Cuts[i].Logs
	k, ok := slices.BinarySearchFunc(logs, log, func(l LogCut, id replication.LogID) int { return l.Log.Compare(id) })
	if !ok {
		return replication.Position{}, true
	}
	return logs[k].Pos, true
}

// merge is what two revocations of one peer generation say together: the higher
// version, or at equal versions the lower of the cuts. It is commutative,
// associative and idempotent, and changes neither; nil is the one that says
// nothing.
func (r *Revocation) merge(o *Revocation) *Revocation {
	switch {
	case r == nil || o != nil && o.Version > r.Version:
		return o
	case o == nil || o.Version < r.Version:
		return r
	}
	out := &Revocation{Subject: r.Subject, Generation: r.Generation, Version: r.Version}
	a, b := r.Cuts, o.Cuts
	for len(a) > 0 || len(b) > 0 {
		c := 0
		switch {
		case len(b) == 0:
			c = -1
		case len(a) == 0:
			c = 1
		default:
			c = bytes.Compare(a[0].Space[:], b[0].Space[:])
		}
		switch {
		case c < 0:
			out.Cuts, a = append(out.Cuts, a[0]), a[1:]
		case c > 0:
			out.Cuts, b = append(out.Cuts, b[0]), b[1:]
		default:
			out.Cuts = append(out.Cuts, SpaceCut{Space: a[0].Space, Logs: lowerCuts(a[0].Logs, b[0].Logs)})
			a, b = a[1:], b[1:]
		}
	}
	return out
}

// lowerCuts keeps the logs that both lists name, each with its lower position.
func lowerCuts(a, b []LogCut) (out []LogCut) {
	for len(a) > 0 && len(b) > 0 {
		switch c := a[0].Log.Compare(b[0].Log); {
		case c < 0:
			a = a[1:]
		case c > 0:
			b = b[1:]
		default:
			out = append(out, LogCut{Log: a[0].Log, Pos: lowerPosition(a[0].Pos, b[0].Pos)})
			a, b = a[1:], b[1:]
		}
	}
	return out
}

// lowerPosition is the one with the lower seq; of two branches the lower hash, so
// that all choose alike.
func lowerPosition(a, b replication.Position) replication.Position {
	if c := cmp.Or(cmp.Compare(a.Seq, b.Seq), bytes.Compare(a.Hash[:], b.Hash[:])); c <= 0 {
		return a
	}
	return b
}

// Held is a position of a log of the peer to be revoked that some node states to
// hold.
type Held struct {
	Space replication.SpaceID
	Log   replication.LogID
	Pos   replication.Position
}

// Revoke builds the revocation that keeps what the stated positions cover: in each
// of the spaces, each log up to its highest position. A peer that wrote more logs
// than a revocation can list loses the shortest of them: these are returned.
func Revoke(subject replication.OriginKey, generation, version uint64, spaces []replication.SpaceID, held []Held) (*Revocation, []Held) {
	type place struct {
		space replication.SpaceID
		log   replication.LogID
	}
	highest := map[place]Held{}
	for _, h := range held {
		p := place{h.Space, h.Log}
		if h.Pos.Seq == 0 || h.Pos.Hash.IsZero() || !slices.Contains(spaces, h.Space) {
			continue
		}
		old, ok := highest[p]
		if !ok || h.Pos.Seq > old.Pos.Seq || h.Pos.Seq == old.Pos.Seq && lowerPosition(h.Pos, old.Pos) == h.Pos {
			highest[p] = h
		}
	}
	kept := make([]Held, 0, len(highest))
	for _, h := range highest {
		kept = append(kept, h)
	}
	slices.SortFunc(kept, func(a, b Held) int {
		return cmp.Or(-cmp.Compare(a.Pos.Seq, b.Pos.Seq), bytes.Compare(a.Space[:], b.Space[:]), a.Log.Compare(b.Log))
	})
	var lost []Held
	if len(kept) > MaxCutLogs {
		kept, lost = kept[:MaxCutLogs], kept[MaxCutLogs:]
	}
	r := &Revocation{Subject: subject, Generation: generation, Version: version}
	listed := slices.Clone(spaces)
	slices.SortFunc(listed, func(a, b replication.SpaceID) int { return bytes.Compare(a[:], b[:]) })
	for _, space := range slices.Compact(listed) {
		cut := SpaceCut{Space: space}
		for _, h := range kept {
			if h.Space == space {
				cut.Logs = append(cut.Logs, LogCut{Log: h.Log, Pos: h.Pos})
			}
		}
		slices.SortFunc(cut.Logs, func(a, b LogCut) int { return a.Log.Compare(b.Log) })
		r.Cuts = append(r.Cuts, cut)
	}
	return r, lost
}
