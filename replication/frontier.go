package replication

// FrontierEntry states the contiguous prefix of one log that a node holds
// durably.
type FrontierEntry struct {
	Log LogID
	// Branch is the hash of the first block after a fork's common position; zero
	// for the trunk, the only branch that v1 carries (design 4.8).
	Branch Hash
	// Base is the first seq still held; 0 and 1 both mean from the start.
	Base uint64
	Pos  Position
}

// FrontierRoot is the root of the trie of design 6.3 over the entries.
func FrontierRoot(entries []FrontierEntry) Hash { return NewFrontier(entries).Root() }
