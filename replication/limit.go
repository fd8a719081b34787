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
