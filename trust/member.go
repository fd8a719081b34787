package trust

import (
	"bytes"
	"slices"
	"time"

	"vixp2p/replication"
)

// Member is a peer that some certificate in the control logs certifies.
type Member struct {
	Key replication.OriginKey
	// Generation is the highest in which it stands, or if it stands in none the
	// highest in which it did.
	Generation uint64
	Label      string // of the certificate that is to be shown
	// Grants are those of all its certificates of this generation, by space and
	// role, also of expired ones.
	Grants []Grant
	// Certificates are those of this generation that count, the one that is to be
	// shown last.
	Certificates []*Certificate
	Revoked      bool
}

// Member tells about one key; false if no certificate that counts certifies it.
func (s *State) Member(key replication.OriginKey) (Member, bool) {
	if len(s.generations[key]) == 0 {
		return Member{}, false
	}
	in := s.Generations(key)
	revoked := len(in) == 0
	if revoked {
		in = s.generations[key]
	}
	gen := in[len(in)-1]
	m := Member{Key: key, Generation: gen, Certificates: s.certs[peerGen{key, gen}], Revoked: revoked}
	for _, c := range m.Certificates {
		m.Grants = append(m.Grants, c.Grants...)
	}
	m.Grants = normalGrants(m.Grants)
	m.Label = m.last().Label
	return m, true
}

// Members are all of them, by key.
func (s *State) Members() []Member {
	out := make([]Member, 0, len(s.generations))
	for key := range s.generations {
		m, _ := s.Member(key)
		out = append(out, m)
	}
	slices.SortFunc(out, func(a, b Member) int { return bytes.Compare(a.Key[:], b.Key[:]) })
	return out
}

// IsAdmin tells whether one of its certificates makes it an admin.
func (m *Member) IsAdmin() bool { return slices.ContainsFunc(m.Grants, isAdminGrant) }

func (m *Member) last() *Certificate { return m.Certificates[len(m.Certificates)-1] }

// Status is what a member is at some time.
type Status string

const (
	StatusStanding Status = "standing"
	StatusExpired  Status = "expired"
	StatusEarly    Status = "not yet valid"
	StatusRevoked  Status = "revoked"
)

// Status is what the member is at a time.
func (m *Member) Status(now time.Time) Status {
	if m.Revoked {
		return StatusRevoked
	}
	early := false
	for _, c := range m.Certificates {
		if c.ValidAt(now) == nil {
			return StatusStanding
		}
		early = early || now.Unix() < c.NotBefore
	}
	if early {
		return StatusEarly
	}
	return StatusExpired
}

// Expires is when its last certificate ends, in Unix seconds; 0: never.
func (m *Member) Expires() int64 { return m.last().NotAfter }

// CertificateFor is the chain that a member is to show: of the certificates in
// the control logs that stand the newest that is valid now, or if none is the
// newest; nil if none stands. It is of the highest generation, ends last, and has
// the highest serial.
func (s *State) CertificateFor(key replication.OriginKey, now time.Time) *Chain {
	var best *Certificate
	for _, c := range s.standing(key, nil) {
		if best == nil || c.ValidAt(now) == nil || best.ValidAt(now) != nil {
			best = c
		}
	}
	if best == nil {
		return nil
	}
	return s.chain(best)
}

// chain adds the issuer's certificate to one that counts.
func (s *State) chain(c *Certificate) *Chain {
	out := &Chain{Leaf: c}
	if c.IssuerGeneration != 0 {
		for _, a := range s.certs[c.issuer()] {
			if a.IsAdmin() {
				out.Issuer = a // the last one is the one to be shown
			}
		}
	}
	return out
}

// Generations are those in which a key stands, ascending: who is to be put out is
// revoked in each.
func (s *State) Generations(key replication.OriginKey) (out []uint64) {
	for _, gen := range s.generations[key] {
		if s.revocation(peerGen{key, gen}, nil) == nil {
			out = append(out, gen)
		}
	}
	return out
}

// NextGeneration is the generation in which a key is to be certified: the one in
// which it stands, or the first that was neither revoked nor certified.
func (s *State) NextGeneration(key replication.OriginKey) uint64 {
	if m, ok := s.Member(key); ok && !m.Revoked {
		return m.Generation
	}
	last := uint64(0)
	for _, gen := range slices.Concat(s.generations[key], s.revoked[key]) {
		last = max(last, gen)
	}
	return next(last)
}

// NextVersion is the version of a revocation that is to replace what is in force.
func (s *State) NextVersion(key replication.OriginKey, generation uint64) uint64 {
	if r := s.byAnyone[peerGen{key, generation}]; r != nil {
		return next(r.Version)
	}
	return 1
}

// next is v + 1, and the highest number there is after itself: an admin that used
// it up must be revoked first.
func next(v uint64) uint64 { return max(v, v+1) }
