package compress

import "vixp2p/replication"

const (
	// minBody is the least that a Packer tries, in bytes: of a shorter body hardly
	// anything is saved, and its writer waits.
	minBody = 512
	// leastPart is the part of a body that packing must save to be worth that every
	// reader unpacks it: an eighth.
	leastPart = 8
	// maxMisses bounds how long it rests: 2^6 bodies.
	maxMisses = 6
)

// Packer packs bodies one after the other where that pays. After one that did not it
// leaves some as they are, twice as many each time, up to 64: what a program writes
// next is mostly of the kind that it wrote before. The zero value is ready; it is not
// for concurrent use.
type Packer struct {
	misses int // in a row
	rest   int // bodies that are left as they are
}

// Pack packs a raw body, or returns raw itself.
func (p *Packer) Pack(raw []byte) (body []byte, codec replication.Codec) {
	if len(raw) < minBody {
		return raw, replication.CodecNone
	}
	if p.rest > 0 {
		p.rest--
		return raw, replication.CodecNone
	}
	body, codec = Encode(raw)
	if codec == replication.CodecNone || len(body) > len(raw)-len(raw)/leastPart {
		p.misses = min(p.misses+1, maxMisses)
		p.rest = 1 << p.misses
		return raw, replication.CodecNone
	}
	p.misses = 0
	return body, codec
}
