package replication

// A run is consecutive blocks of one log up to one that carries a signature
// (design 4.4). One valid signature at its end authenticates every block before
// it by the hash chain. A run may end in headers without bodies up to the next
// signature; then its position is that of the last block with a body.
const (
	// MaxRunBlocks and MaxRunBytes bound a run, so that it commits in one
	// transaction and fits every window whole.
	MaxRunBlocks = 256
	MaxRunBytes  = 1792 << 10 // 1.75 MiB, all its bytes as sent
)

// RunSource is what a verifier knows before it sees a run.
type RunSource struct {
	Network NetworkID
	Log     LogID
	// Origin is the log's key where the log is known; nil for an unknown log,
	// whose run must begin with the genesis block.
	Origin *OriginKey
	// Space is the log's space where it is known or expected.
	Space SpaceID
	// From is the position that the run follows.
	From Position
}

// VerifiedRun is a run whose chain, hashes and final signature hold. Only
// VerifyRun makes one: a log commits nothing else from outside (design 4.4).
type VerifiedRun struct {
	Space  SpaceID
	Log    LogID
	Origin OriginKey
	From   Position
	// Blocks have bodies. Of their signatures only the one that was verified is
	// left: the last block's, or none where Tail is not empty.
	Blocks []*Block
	// Tail is headers without bodies; the last one is signed.
	Tail []*Block

	verified bool // invariant: set by VerifyRun alone
}

// Verified tells a run that VerifyRun made from a zero value.
func (r *VerifiedRun) Verified() bool { return r != nil && r.verified }

// End is the position of the run's last operation.
func (r *VerifiedRun) End() Position { return r.Blocks[len(r.Blocks)-1].End() }

// Genesis is the genesis of a log that begins in this run, or nil.
func (r *VerifiedRun) Genesis() *Genesis { return r.Blocks[0].Header.Genesis }

// VerifyRun parses and verifies a run: limits, canonical headers, body hashes,
// the chain from src.From, the genesis rules and the signature at the end. What
// it returns aliases raw.
func VerifyRun(src RunSource, raw []byte) (*VerifiedRun, error) {
	if len(raw) > MaxRunBytes {
		return nil, invalidf("a run of %d bytes, more than %d", len(raw), MaxRunBytes)
	}
	run := &VerifiedRun{Space: src.Space, Log: src.Log, From: src.From}
	if src.Origin != nil {
		run.Origin = *src.Origin
	}
	blocks, err := parseChain(src.Log, src.From, raw)
	if err != nil {
		return nil, err
	}
	if g := blocks[0].Header.Genesis; g != nil {
		if g.Network != src.Network {
			return nil, invalidf("log %s belongs to another network", src.Log.Short())
		}
		if g.Space != src.Space {
			return nil, invalidf("log %s belongs to another space", src.Log.Short())
		}
		if src.Origin != nil && *src.Origin != g.Origin {
			return nil, invalidf("log %s has another origin", src.Log.Short())
		}
		run.Origin = g.Origin
	} else if src.Origin == nil {
		return nil, invalidf("log %s is unknown and its run does not start with a genesis block", src.Log.Short())
	}
	last := blocks[len(blocks)-1]
	if len(last.Sig) == 0 {
		return nil, invalidf("the run at %s/%d does not end in a signature", src.Log.Short(), blocks[0].Header.FirstSeq)
	}
	if !VerifyBlockSig(run.Origin, last.Hash, last.Sig) {
		return nil, &SignatureError{Log: src.Log, Seq: last.Header.LastSeq()}
	}
	for _, b := range blocks[:len(blocks)-1] {
		b.Sig = nil // not verified, so not passed on
	}
	n := len(blocks)
	for n > 0 && !blocks[n-1].HasBody() {
		n--
	}
	if n == 0 {
		return nil, invalidf("a run without any body")
	}
	for _, b := range blocks[:n] {
		if !b.HasBody() {
			return nil, invalidf("block %s/%d has no body inside a run", src.Log.Short(), b.Header.FirstSeq)
		}
	}
	run.Blocks, run.Tail = blocks[:n:n], blocks[n:]
	run.verified = true
	return run, nil
}

// parseChain reads all of raw as a chain of blocks of one log after from.
func parseChain(log LogID, from Position, raw []byte) ([]*Block, error) {
	var blocks []*Block
	at := from
	for len(raw) > 0 {
		if len(blocks) == MaxRunBlocks {
			return nil, invalidf("a run of more than %d blocks", MaxRunBlocks)
		}
		b, rest, err := ParseBlock(raw)
		if err != nil {
			return nil, err
		}
		raw = rest
		if b.Header.Log != log {
			return nil, invalidf("a block of log %s in a run of log %s", b.Header.Log.Short(), log.Short())
		}
		if b.PrevPosition() != at {
			return nil, invalidf("block %s/%d does not follow %d", log.Short(), b.Header.FirstSeq, at.Seq)
		}
		at = b.End()
		blocks = append(blocks, b)
	}
	if len(blocks) == 0 {
		return nil, invalidf("an empty run")
	}
	return blocks, nil
}

// RunCutter decides where a reader of a log ends a run: add blocks in order
// while Add says true, then keep the first Len.
type RunCutter struct {
	Max int // bytes wanted; the first signature may lie beyond it. 0 means MaxRunBytes

	blocks, bytes int
	keep          int
}

// Add takes the next block's length and whether it is signed. It returns false
// when no further block can belong to the run; that block does not count.
func (c *RunCutter) Add(encodedLen int, signed bool) bool {
	limit := c.Max
	if limit <= 0 || limit > MaxRunBytes {
		limit = MaxRunBytes
	}
	if c.keep > 0 && c.bytes+encodedLen > limit {
		return false
	}
	if c.blocks == MaxRunBlocks || c.bytes+encodedLen > MaxRunBytes {
		return false
	}
	c.blocks++
	c.bytes += encodedLen
	if signed {
		c.keep = c.blocks
	}
	return true
}

// Len is how many of the added blocks form the run; 0 if none was signed.
func (c *RunCutter) Len() int { return c.keep }

// MaxForkProofBytes bounds both branches of a ForkProof together. Headers take some
// 200 bytes, so that it is many times what two chains of MaxRunBlocks of them
// need; a fork in which an origin wrote headers that are larger by far is refused
// by whoever meets it, but cannot be shown to others.
const MaxForkProofBytes = MaxRunBytes

// ForkProof shows two signed blocks of one log at one position (design 4.8).
// Each branch is a chain of blocks, headers alone suffice, that ends in a
// signature.
type ForkProof struct {
	Log    LogID
	Origin OriginKey
	A, B   []byte
}

// Verify checks that both branches are signed by the origin and differ at some
// seq that both cover; the block that a branch follows counts as covered. The
// origin must be known to own the log.
func (p *ForkProof) Verify() error {
	if n := len(p.A) + len(p.B); n > MaxForkProofBytes {
		return invalidf("a fork proof of %d bytes, more than %d", n, MaxForkProofBytes)
	}
	var branches [2][]*Block
	for i, raw := range [][]byte{p.A, p.B} {
		first, _, err := ParseBlockHeader(raw)
		if err != nil {
			return err
		}
		chain, err := parseChain(p.Log, first.PrevPosition(), raw)
		if err != nil {
			return err
		}
		last := chain[len(chain)-1]
		if !VerifyBlockSig(p.Origin, last.Hash, last.Sig) {
			return &SignatureError{Log: p.Log, Seq: last.Header.LastSeq()}
		}
		branches[i] = chain
	}
	if !contradict(branches[0], branches[1]) && !contradict(branches[1], branches[0]) {
		return invalidf("the two branches of log %s do not contradict each other", p.Log.Short())
	}
	return nil
}

// contradict tells whether chain a holds, or follows, another block than b where
// both cover a seq.
func contradict(a, b []*Block) bool {
	from := a[0].PrevPosition()
	for _, y := range b {
		covers := func(seq uint64) bool { return y.Header.FirstSeq <= seq && seq <= y.Header.LastSeq() }
		if covers(from.Seq) && y.End() != from {
			return true
		}
		for _, x := range a {
			if x.Hash != y.Hash && (covers(x.Header.FirstSeq) || covers(x.Header.LastSeq())) {
				return true
			}
		}
	}
	return false
}
