package trust

import (
	"bytes"
	"cmp"

	"google.golang.org/protobuf/encoding/protowire"

	"vixp2p/replication"
	"vixp2p/replication/canonical"
)

// SpaceStatement declares a space.
type SpaceStatement struct {
	Name string // 1 to replication.MaxSpaceNameBytes, not beginning with ReservedPrefix
	// Encrypted tells that its blocks are sealed (design 9.6). Of declarations
	// that disagree, encrypted wins. replication.DefaultSpace cannot be.
	Encrypted bool
}

// NetworkStatement names the network. Only the root's count.
type NetworkStatement struct {
	Name    string
	Version uint64 // 1 or more; the highest counts
}

// MaxNetworkName is the longest name of a network, in bytes.
const MaxNetworkName = 64

// KeysStatement hands out a content key of an encrypted space: the key, wrapped
// for each of those that may read. What the parts mean is design 9.6's business;
// here they are only carried.
type KeysStatement struct {
	Space      replication.SpaceID
	ID         [32]byte // commits to the key
	Generation uint64   // 1 or more; writers use the key with the highest (Generation, ID)
	Wraps      []Wrap   // 1 to MaxWraps, strictly ascending by recipient
}

// Wrap is a content key sealed to one recipient.
type Wrap struct {
	Recipient [32]byte // X25519 public key
	Sealed    []byte   // 1 to MaxSealed bytes
}

const (
	// MaxWraps bounds the recipients of one statement; more go into another.
	MaxWraps = 1024
	// MaxSealed bounds a wrapped key in bytes.
	MaxSealed = 256
)

// Field numbers (v1).
const (
	sName      protowire.Number = 1
	sEncrypted protowire.Number = 2

	nName    protowire.Number = 1
	nVersion protowire.Number = 2

	kSpace      protowire.Number = 1
	kID         protowire.Number = 2
	kGeneration protowire.Number = 3
	kWrap       protowire.Number = 4

	kwRecipient protowire.Number = 1
	kwSealed    protowire.Number = 2
)

// Encode is the payload of the operation.
func (s *SpaceStatement) Encode() []byte {
	b := canonical.AppendBytes(nil, sName, []byte(s.Name))
	if s.Encrypted {
		b = canonical.AppendVarint(b, sEncrypted, 1)
	}
	return b
}

func decodeSpace(b []byte) (*SpaceStatement, error) {
	s := &SpaceStatement{}
	err := decodeFields("space", b, 0, canonical.SetOf(sName), func(f canonical.Field) (err error) {
		switch f.Num {
		case sName:
			s.Name, err = text(f, replication.MaxSpaceNameBytes)
		case sEncrypted:
			_, err = numberUpTo(f, 1)
			s.Encrypted = true
		default:
			err = errUnknownField
		}
		return err
	})
	if err == nil {
		err = s.check()
	}
	return s, err
}

func (s *SpaceStatement) check() error {
	if s.Encrypted && s.Name == replication.DefaultSpace {
		return canonical.Invalidf("the space %s is never encrypted: members write in it before they have heard of any declaration", s.Name)
	}
	return checkSpaceName(s.Name)
}

// Encode is the payload of the operation.
func (n *NetworkStatement) Encode() []byte {
	b := canonical.AppendBytes(nil, nName, []byte(n.Name))
	return canonical.AppendVarint(b, nVersion, n.Version)
}

func decodeNetwork(b []byte) (*NetworkStatement, error) {
	n := &NetworkStatement{}
	err := decodeFields("network", b, 0, canonical.SetOf(nName, nVersion), func(f canonical.Field) (err error) {
		switch f.Num {
		case nName:
			n.Name, err = text(f, MaxNetworkName)
		case nVersion:
			n.Version, err = f.Varint()
		default:
			err = errUnknownField
		}
		return err
	})
	if err == nil {
		err = n.check()
	}
	return n, err
}

func (n *NetworkStatement) check() error {
	if n.Name == "" || n.Version == 0 {
		return canonical.Invalidf("a network needs a name and its statement a version")
	}
	return checkText("network name", n.Name, MaxNetworkName)
}

// Encode is the payload of the operation.
func (k *KeysStatement) Encode() []byte {
	b := appendID(nil, kSpace, k.Space[:])
	b = appendID(b, kID, k.ID[:])
	b = canonical.AppendVarint(b, kGeneration, k.Generation)
	for _, w := range k.Wraps {
		in := appendID(nil, kwRecipient, w.Recipient[:])
		in = canonical.AppendBytes(in, kwSealed, w.Sealed)
		b = canonical.AppendBytes(b, kWrap, in)
	}
	return b
}

func decodeKeys(b []byte) (*KeysStatement, error) {
	k := &KeysStatement{}
	err := decodeFields("keys", b, canonical.SetOf(kWrap), canonical.SetOf(kSpace, kID, kGeneration, kWrap), func(f canonical.Field) (err error) {
		switch f.Num {
		case kSpace:
			err = fixedID(f, k.Space[:])
		case kID:
			err = fixedID(f, k.ID[:])
		case kGeneration:
			k.Generation, err = f.Varint()
		case kWrap:
			if len(k.Wraps) == MaxWraps {
				return canonical.Invalidf("more than %d wrapped keys", MaxWraps)
			}
			var w Wrap
			w, err = decodeWrap(f)
			k.Wraps = append(k.Wraps, w)
		default:
			err = errUnknownField
		}
		return err
	})
	if err == nil {
		err = k.check()
	}
	return k, err
}

func decodeWrap(f canonical.Field) (w Wrap, err error) {
	err = decodeInner("wrapped key", f, 0, canonical.SetOf(kwRecipient, kwSealed), func(f canonical.Field) (err error) {
		switch f.Num {
		case kwRecipient:
			err = fixedID(f, w.Recipient[:])
		case kwSealed:
			var b []byte
			b, err = f.Bytes(MaxSealed)
			w.Sealed = bytes.Clone(b)
		default:
			err = errUnknownField
		}
		return err
	})
	return w, err
}

func (k *KeysStatement) check() error {
	if isZero(k.Space[:]) || isZero(k.ID[:]) || k.Generation == 0 {
		return canonical.Invalidf("wrapped keys need a space, a key id and a generation")
	}
	if len(k.Wraps) == 0 || len(k.Wraps) > MaxWraps {
		return canonical.Invalidf("%d wrapped keys: there must be 1 to %d in one statement", len(k.Wraps), MaxWraps)
	}
	for i, w := range k.Wraps {
		if isZero(w.Recipient[:]) || len(w.Sealed) == 0 || len(w.Sealed) > MaxSealed {
			return canonical.Invalidf("a wrapped key without a recipient, or not of 1 to %d bytes", MaxSealed)
		}
		if i > 0 && bytes.Compare(k.Wraps[i-1].Recipient[:], w.Recipient[:]) >= 0 {
			return canonical.Invalidf("the recipients of wrapped keys are not strictly ascending")
		}
	}
	return nil
}

func compareWraps(a, b Wrap) int {
	return cmp.Or(bytes.Compare(a.Recipient[:], b.Recipient[:]), bytes.Compare(a.Sealed, b.Sealed))
}
