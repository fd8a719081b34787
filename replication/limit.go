package replication

// LogLimit is how far a log counts by the trust state (design 9.1 to 9.4).
type LogLimit struct {
	// Allowed: some grant lets the origin write there. Else nothing of the log is
	// taken, and nothing of it counts.
	Allowed bool
	// Cut is the last position that counts of a log of a revoked peer, zero for
	// none; nil: all of it counts, also what comes yet. Where it lies inside a
	// block, or names another hash than the block that is held, the block before
	// is the last that counts.
	Cut *Position
	// Err says why something does not count: ErrNotAllowed or ErrRevoked; nil
	// where all does.
	Err error
}

// Limiter tells how far a log counts, by its genesis block. It is pure and quick,
// and must not keep or change what it is given.
type Limiter func(g *Genesis) LogLimit

// Unlimited is the limit of a log of which everything counts.
var Unlimited = LogLimit{Allowed: true}

// Entire tells whether all of the log counts, also what comes yet.
func (l *LogLimit) Entire() bool { return l.Allowed && l.Cut == nil }

// Counts tells whether the block that ends at a position counts. Of a chain that
// is a prefix.
func (l *LogLimit) Counts(end Position) bool {
	return l.Allowed && (l.Cut == nil || end.Seq < l.Cut.Seq || end == *l.Cut)
}

// Refusal is Err, never nil.
func (l *LogLimit) Refusal() error {
	switch {
	case l.Err != nil:
		return l.Err
	case l.Allowed:
		return ErrRevoked
	}
	return ErrNotAllowed
}

// Place is Cut where that is the reason why the log does not count entire, a copy.
func (l *LogLimit) Place() *Position {
	if !l.Allowed || l.Cut == nil {
		return nil
	}
	at := *l.Cut
	return &at
}

// Within returns the part of a run that counts: the headers of the blocks beyond
// become its tail, so that the signature at the end still proves what is left. It
// is the run itself if all of it counts, nil if nothing does.
func (r *VerifiedRun) Within(l *LogLimit) *VerifiedRun {
	n := 0
	for n < len(r.Blocks) && l.Counts(r.Blocks[n].End()) {
		n++
	}
	switch n {
	case 0:
		return nil
	case len(r.Blocks):
		return r
	}
	part := *r
	part.Blocks, part.Tail = r.Blocks[:n:n], nil
	for _, b := range r.Blocks[n:] {
		head := *b
		head.Body = nil
		part.Tail = append(part.Tail, &head)
	}
	part.Tail = append(part.Tail, r.Tail...)
	return &part
}
