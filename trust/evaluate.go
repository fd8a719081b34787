package trust

import (
	"bytes"
	"cmp"
	"crypto/ed25519"
	"slices"

	"vixp2p/replication"
)

// Evaluate is the trust state that control logs amount to (design 9.1). It is a
// pure function of the set of their blocks: neither the order of the logs, nor
// that of their blocks, nor repetitions matter, nor whether blocks that a cut
// voids are among them. It goes by strata, each of which reads only those above:
//
//  1. what the root states, in any log of its own: who is an admin, in which
//     generation, and which of those are revoked, with the cuts of their control
//     logs;
//  2. what the admins state in the blocks of their control logs that those cuts
//     leave;
//  3. the members: what the certificates of 1 and 2 give, less what the
//     revocations of 1 and 2 take.
//
// Logs of anybody else in the control space count for nothing.
func Evaluate(root ed25519.PublicKey, logs []ControlLog) *State {
	network := replication.NetworkOfRoot(root)
	s := &State{
		root: replication.OriginKey(root), network: network, control: ControlSpace(network),
		certs: map[peerGen][]*Certificate{}, known: map[replication.Hash]*Certificate{},
		byRoot: map[peerGen]*Revocation{}, byAnyone: map[peerGen]*Revocation{},
		generations: map[replication.OriginKey][]uint64{}, revoked: map[replication.OriginKey][]uint64{},
		invites: map[inviteKey]invited{}, spaces: map[replication.SpaceID]Space{}, keys: map[keyID]map[string]Wrap{},
	}
	for i := range logs {
		if logs[i].Origin == s.root {
			for _, b := range logs[i].Blocks {
				s.state(peerGen{s.root, 0}, b.Statements)
			}
		}
	}
	admins := s.adminLogs(logs)
	for _, l := range admins {
		for _, b := range l.blocks {
			s.state(l.admin, b.Statements)
		}
	}
	s.settle()
	return s
}

// adminLog is what is left of one log of an admin.
type adminLog struct {
	admin  peerGen
	blocks []ControlBlock
}

// adminLogs are the logs of admins, cut. An admin is one by the root's statements,
// or where these do not say so by what its logs' grants show: the root signed it,
// wherever it stands. Nothing is read of a log of which the cuts leave nothing,
// because a node that holds nothing of it has not got its grant either.
func (s *State) adminLogs(logs []ControlLog) (out []adminLog) {
	var shown []*Certificate
	for i := range logs {
		l := &logs[i]
		gen, ok := GrantGeneration(l.Grant)
		if !ok || l.Origin == s.root {
			continue
		}
		admin := peerGen{l.Origin, gen}
		blocks := l.Blocks
		if r := s.byRoot[admin]; r != nil {
			cut, _ := r.cut(s.control, l.Log)
			blocks = slices.DeleteFunc(slices.Clone(blocks), func(b ControlBlock) bool { return b.End > cut.Seq })
		}
		if len(blocks) == 0 {
			continue
		}
		out = append(out, adminLog{admin, blocks})
		if !s.isAdmin(admin) {
			if c := s.shownByLog(l.Grant, admin); c != nil && c.IsAdmin() {
				shown = append(shown, c)
			}
		}
	}
	for _, c := range shown {
		s.addCertificate(c)
	}
	return slices.DeleteFunc(out, func(l adminLog) bool { return !s.isAdmin(l.admin) })
}

// shownByLog is the certificate in a grant, if the root issued it for this peer.
func (s *State) shownByLog(grant []byte, peer peerGen) *Certificate {
	c, err := DecodeChain(grant)
	if err != nil || c.Verify(s.root[:]) != nil || c.Leaf.peer() != peer || c.Issuer != nil {
		return nil
	}
	return c.Leaf
}

// state takes in the statements of one block of the root (generation 0) or of an
// admin.
func (s *State) state(by peerGen, statements []Statement) {
	for _, st := range statements {
		switch st := st.(type) {
		case *Certificate:
			if st.sig != nil && st.issuer() == by && st.Network == s.network && st.Subject != s.root {
				s.addCertificate(st)
			}
		case *Revocation:
			s.addRevocation(by, st)
		case *Invite:
			s.addInvite(by, st)
		case *SpaceStatement:
			id := replication.SpaceOf(s.network, st.Name)
			s.spaces[id] = Space{ID: id, Name: st.Name, Encrypted: st.Encrypted || s.spaces[id].Encrypted}
		case *NetworkStatement:
			if by.key == s.root {
				s.addName(st)
			}
		case *KeysStatement:
			s.addKeys(st)
		}
	}
}

func (s *State) addCertificate(c *Certificate) {
	if old := s.known[c.id]; old != nil {
		// The same statement signed twice: all keep the same one.
		if bytes.Compare(c.sig, old.sig) < 0 {
			list := s.certs[c.peer()]
			list[slices.Index(list, old)] = c
			s.known[c.id] = c
		}
		return
	}
	s.known[c.id] = c
	s.certs[c.peer()] = append(s.certs[c.peer()], c)
}

// addRevocation: nobody revokes the root; what an admin says about an admin is
// left aside when revocations are looked up.
func (s *State) addRevocation(by peerGen, r *Revocation) {
	if r.Subject == s.root {
		return
	}
	if by.key == s.root {
		s.byRoot[r.peer()] = s.byRoot[r.peer()].merge(r)
	}
	s.byAnyone[r.peer()] = s.byAnyone[r.peer()].merge(r)
}

func (s *State) addInvite(by peerGen, i *Invite) {
	at := inviteKey{by.key, i.Public}
	old, ok := s.invites[at]
	c := cmp.Compare(by.gen, old.generation)
	if !ok || c > 0 || c == 0 && bytes.Compare(i.Encode(), old.invite.Encode()) < 0 {
		s.invites[at] = invited{invite: i, generation: by.gen}
	}
}

func (s *State) addName(n *NetworkStatement) {
	if n.Version > s.nameVersion || n.Version == s.nameVersion && n.Name < s.name {
		s.name, s.nameVersion = n.Name, n.Version
	}
}

func (s *State) addKeys(k *KeysStatement) {
	at := keyID{space: k.Space, generation: k.Generation, id: k.ID}
	if s.keys[at] == nil {
		s.keys[at] = map[string]Wrap{}
	}
	for _, w := range k.Wraps {
		s.keys[at][string(w.Recipient[:])+string(w.Sealed)] = w
	}
}

// settle puts in order what came in any order.
func (s *State) settle() {
	for p, list := range s.certs {
		slices.SortFunc(list, compareShown)
		s.generations[p.key] = append(s.generations[p.key], p.gen)
	}
	for _, gens := range s.generations {
		slices.Sort(gens)
	}
	for p := range s.byAnyone {
		s.revoked[p.key] = append(s.revoked[p.key], p.gen)
	}
	s.redeem()
}
