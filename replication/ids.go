package replication

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
)

// NetworkID names a set of members under one root key, or an open network by
// its name (design 2).
type NetworkID [32]byte

// SpaceID names a space of one network: the unit of replication and access.
type SpaceID [16]byte

// LogID names the operations of one origin in one space in one epoch.
type LogID [32]byte

// Hash is a SHA-256 digest; of a block it is the hash of its header bytes.
type Hash [32]byte

// OriginKey is the Ed25519 public key of the node that writes a log (RFC 8032).
type OriginKey [32]byte

// Epoch is one incarnation of an origin's log: 16 random bytes (design 4.7).
type Epoch [16]byte

// Instance is the random id of one data directory's history. A wiped, restored
// or copied directory gets a new one.
type Instance [16]byte

// Dot names one operation: the seq-th of a log, counting from 1.
type Dot struct {
	Log LogID
	Seq uint64
}

// Position is a place in a log: the last operation of a block and that block's
// hash. The zero Position stands before the first block.
type Position struct {
	Seq  uint64
	Hash Hash
}

// DefaultSpace is the name of the space that always exists.
const DefaultSpace = "default"

// MaxSpaceNameBytes is the longest space name.
const MaxSpaceNameBytes = 128

// Domain separation strings of the hashes of design 2 (v1).
const (
	domainNetwork     = "vix/network/1"
	domainOpenNetwork = "vix/open/1"
	domainSpace       = "vix/space/1"
	domainLog         = "vix/log/1"
)

// HashParts is SHA-256 over the domain and the parts, each preceded by its
// length as an unsigned varint, so that no two different lists collide.
func HashParts(domain string, parts ...[]byte) Hash {
	h := sha256.New()
	var n [binary.MaxVarintLen64]byte
	write := func(p []byte) {
		h.Write(n[:binary.PutUvarint(n[:], uint64(len(p)))])
		h.Write(p)
	}
	write([]byte(domain))
	for _, p := range parts {
		write(p)
	}
	var out Hash
	h.Sum(out[:0])
	return out
}

// NetworkOfRoot is the network under a root key.
func NetworkOfRoot(root ed25519.PublicKey) NetworkID {
	return NetworkID(HashParts(domainNetwork, root))
}

// OpenNetwork is the open network of that name: no membership, for development.
func OpenNetwork(name string) NetworkID {
	return NetworkID(HashParts(domainOpenNetwork, []byte(name)))
}

// SpaceOf names a space by its name, so that two nodes that never met mean the
// same space by the same name.
func SpaceOf(network NetworkID, name string) SpaceID {
	h := HashParts(domainSpace, network[:], []byte(name))
	return SpaceID(h[:16])
}

// LogOf names the log of an origin in a space in an epoch.
func LogOf(network NetworkID, space SpaceID, origin OriginKey, epoch Epoch) LogID {
	return LogID(HashParts(domainLog, network[:], space[:], origin[:], epoch[:]))
}

// Compare orders log ids by their bytes.
func (l LogID) Compare(o LogID) int { return bytes.Compare(l[:], o[:]) }

// Compare orders dots by log, then seq.
func (d Dot) Compare(o Dot) int {
	if c := d.Log.Compare(o.Log); c != 0 {
		return c
	}
	switch {
	case d.Seq < o.Seq:
		return -1
	case d.Seq > o.Seq:
		return 1
	}
	return 0
}

func (n NetworkID) String() string { return hex.EncodeToString(n[:]) }
func (s SpaceID) String() string   { return hex.EncodeToString(s[:]) }
func (l LogID) String() string     { return hex.EncodeToString(l[:]) }
func (h Hash) String() string      { return hex.EncodeToString(h[:]) }
func (o OriginKey) String() string { return hex.EncodeToString(o[:]) }
func (e Epoch) String() string     { return hex.EncodeToString(e[:]) }
func (i Instance) String() string  { return hex.EncodeToString(i[:]) }
func (d Dot) String() string       { return fmt.Sprintf("%s/%d", d.Log, d.Seq) }
func (p Position) String() string  { return fmt.Sprintf("%d@%s", p.Seq, p.Hash) }

// Short is the first 8 hex digits, for logs that people read.
func (l LogID) Short() string { return hex.EncodeToString(l[:4]) }

// IsZero tells the all-zero hash, which no block has.
func (h Hash) IsZero() bool { return h == Hash{} }

// ParseLogID reads the 64 hex digits of a log id.
func ParseLogID(s string) (LogID, error) {
	var l LogID
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != len(l) {
		return l, fmt.Errorf("log id %q is not 64 hex digits", s)
	}
	copy(l[:], b)
	return l, nil
}
