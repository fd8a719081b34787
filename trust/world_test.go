package trust_test

import (
	"bytes"
	"crypto/ed25519"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"vixp2p/replication"
	"vixp2p/trust"
)

// actor is somebody with a key. The same name has the same key in all tests.
type actor struct {
	name string
	key  ed25519.PrivateKey
	id   replication.OriginKey
}

func newActor(name string) *actor {
	h := replication.HashParts("test actor", []byte(name))
	key := ed25519.NewKeyFromSeed(h[:])
	return &actor{name, key, replication.OriginKey(key.Public().(ed25519.PublicKey))}
}

// now is the time of most tests, in the year 2027.
var now = time.Unix(1_800_000_000, 0)

// world is a network with everything that may be said in it, by those who may and
// by those who may not.
type world struct {
	rnd     *rand.Rand
	root    *actor
	mallory *actor // a root key of another network
	people  []*actor
	invites []*actor
	network replication.NetworkID
	// spaces are control, default, notes.
	control, standard, notes replication.SpaceID

	logs   []trust.ControlLog
	chains map[string]*trust.Chain // by encoding: what a grant says
	shown  []*trust.Chain
	certs  []*trust.Certificate
}

func newWorld(rnd *rand.Rand, people int) *world {
	w := &world{rnd: rnd, root: newActor("root"), mallory: newActor("mallory"), chains: map[string]*trust.Chain{}}
	for i := range people {
		w.people = append(w.people, newActor(fmt.Sprint("person ", i)))
	}
	for i := range 3 {
		w.invites = append(w.invites, newActor(fmt.Sprint("invite ", i)))
	}
	w.network = replication.NetworkOfRoot(w.root.id[:])
	w.control = trust.ControlSpace(w.network)
	w.standard = replication.SpaceOf(w.network, "default")
	w.notes = replication.SpaceOf(w.network, "notes")
	return w
}

// chance is true in p of 100 cases.
func (w *world) chance(p int) bool { return w.rnd.IntN(100) < p }

func pick[T any](w *world, list []T) T { return list[w.rnd.IntN(len(list))] }

func (w *world) hash() (h replication.Hash) {
	for i := range 4 {
		binary.LittleEndian.PutUint64(h[8*i:], w.rnd.Uint64()|1)
	}
	return h
}

func (w *world) generation() uint64 { return 1 + w.rnd.Uint64N(3) }

func (w *world) serial() trust.Serial { h := w.hash(); return trust.Serial(h[:16]) }

// grants are some data roles.
func (w *world) grants() (out []trust.Grant) {
	for range 1 + w.rnd.IntN(2) {
		g := trust.Grant{Role: pick(w, []trust.Role{trust.RoleWriter, trust.RoleWriter, trust.RoleReader, trust.RoleRelay, 99})}
		g.Space = pick(w, []replication.SpaceID{{}, w.standard, w.notes, w.control})
		out = append(out, g)
	}
	return out
}

// certify signs a certificate and keeps it.
func (w *world) certify(issuer *actor, issuerGen uint64, subject replication.OriginKey, gen uint64, grants ...trust.Grant) *trust.Certificate {
	c := trust.Certificate{
		Network: w.network, Subject: subject, Generation: gen, Grants: grants,
		IssuerGeneration: issuerGen, Serial: w.serial(), Label: fmt.Sprint("label ", w.rnd.IntN(5)),
	}
	if w.chance(30) {
		c.NotAfter = now.Unix() + int64(w.rnd.IntN(200)) - 100
	}
	if w.chance(15) {
		c.NotBefore = now.Unix() + int64(w.rnd.IntN(200)) - 100
		if c.NotAfter != 0 {
			c.NotBefore = min(c.NotBefore, c.NotAfter-1)
		}
	}
	if w.chance(20) {
		c.Invite = pick(w, w.invites).id
	}
	if w.chance(4) {
		c.Network = replication.NetworkOfRoot(w.mallory.id[:])
	}
	signed, err := c.Sign(issuer.key)
	if err != nil {
		panic(err)
	}
	w.certs = append(w.certs, signed)
	return signed
}

// grantOf encodes a chain and remembers what it says.
func (w *world) grantOf(c *trust.Chain) []byte {
	raw := c.Encode()
	w.chains[string(raw)] = c
	return raw
}

// bareGrant says its generation and nothing else that can be read.
func bareGrant(gen uint64) []byte {
	return append(binary.AppendUvarint([]byte{1 << 3}, gen), "junk"...)
}

// makeWorld fills a world with random statements: admins by the root, some known
// by their grants alone, control logs of admins and of others, and in them
// everything that can be said, true or not.
func makeWorld(rnd *rand.Rand) *world {
	w := newWorld(rnd, 5)
	type office struct {
		who   *actor
		gen   uint64
		chain *trust.Chain
	}
	var admins, others []office
	var rootSays []trust.Statement
	for _, p := range w.people[:3] {
		for range 1 + w.rnd.IntN(2) {
			gen := w.generation()
			grants := []trust.Grant{{Role: trust.RoleAdmin}}
			if w.chance(50) {
				grants = append(grants, w.grants()...)
			}
			c := w.certify(w.root, 0, p.id, gen, grants...)
			admins = append(admins, office{p, gen, &trust.Chain{Leaf: c}})
			if w.chance(75) {
				rootSays = append(rootSays, c)
			}
		}
	}
	for _, p := range w.people {
		gen := w.generation()
		if w.chance(60) {
			a := pick(w, admins)
			c := w.certify(a.who, a.gen, p.id, gen, w.grants()...)
			others = append(others, office{p, gen, &trust.Chain{Leaf: c, Issuer: a.chain.Leaf}})
		} else {
			c := w.certify(w.root, 0, p.id, gen, w.grants()...)
			others = append(others, office{p, gen, &trust.Chain{Leaf: c}})
		}
	}
	forged := w.certify(w.mallory, 0, w.people[4].id, 1, trust.Grant{Role: trust.RoleAdmin})
	others = append(others, office{w.people[4], 1, &trust.Chain{Leaf: forged}})
	crossed := w.certify(w.people[3], 1, w.people[4].id, 2, trust.Grant{Role: trust.RoleWriter})
	others = append(others, office{w.people[4], 2, &trust.Chain{Leaf: crossed, Issuer: pick(w, admins).chain.Leaf}})
	for _, o := range slices.Concat(admins, others) {
		w.grantOf(o.chain)
		w.shown = append(w.shown, o.chain)
	}

	// The logs, first without their blocks, so that cuts can name them.
	type author struct {
		log *trust.ControlLog
		who *actor
		gen uint64
	}
	var authors []author
	open := func(who *actor, gen uint64, grant []byte) {
		var epoch replication.Epoch
		binary.BigEndian.PutUint64(epoch[8:], uint64(len(authors))+1)
		log := &trust.ControlLog{Log: replication.LogOf(w.network, w.control, who.id, epoch), Origin: who.id, Grant: grant}
		authors = append(authors, author{log, who, gen})
	}
	for range 1 + w.rnd.IntN(3) {
		open(w.root, 0, nil)
	}
	for _, a := range admins {
		for range 1 + w.rnd.IntN(2) {
			grant := w.grantOf(a.chain)
			switch w.rnd.IntN(12) {
			case 0:
				grant = bareGrant(a.gen)
			case 1:
				grant = nil
			case 2:
				grant = w.grantOf(pick(w, w.shown))
			}
			open(a.who, a.gen, grant)
		}
	}
	for _, o := range others {
		if w.chance(40) {
			open(o.who, o.gen, w.grantOf(o.chain))
		}
	}
	open(w.mallory, 1, bareGrant(1))
	controlLogs := func(who replication.OriginKey) (out []replication.LogID) {
		for _, a := range authors {
			if a.who.id == who {
				out = append(out, a.log.Log)
			}
		}
		return out
	}

	for i, a := range authors {
		seq := uint64(0)
		for range w.rnd.IntN(6) {
			block := trust.ControlBlock{}
			for range w.rnd.IntN(4) {
				block.Statements = append(block.Statements, w.statement(a.who, a.gen, controlLogs))
			}
			seq += 1 + w.rnd.Uint64N(4)
			block.End = seq
			a.log.Blocks = append(a.log.Blocks, block)
		}
		if i == 0 {
			a.log.Blocks = append(a.log.Blocks, trust.ControlBlock{End: seq + 1, Statements: rootSays})
		}
		w.logs = append(w.logs, *a.log)
	}
	return w
}

// statement is something that who might say.
func (w *world) statement(who *actor, gen uint64, controlLogs func(replication.OriginKey) []replication.LogID) trust.Statement {
	anybody := func() replication.OriginKey {
		if w.chance(5) {
			return w.root.id
		}
		return pick(w, w.people).id
	}
	switch w.rnd.IntN(10) {
	case 0, 1, 2:
		if w.chance(12) && len(w.certs) > 0 {
			return pick(w, w.certs) // somebody's, perhaps said before
		}
		subject := anybody()
		if subject == who.id && gen == 0 {
			subject = w.people[0].id
		}
		grants := w.grants()
		if who == w.root && w.chance(15) {
			grants = append(grants, trust.Grant{Role: trust.RoleAdmin})
		}
		by := gen
		if w.chance(5) && gen != 0 {
			by++ // another generation of itself
		}
		return w.certify(who, by, subject, w.generation(), grants...)
	case 3, 4, 5:
		if w.chance(10) {
			return &trust.Revocation{Subject: pick(w, w.invites).id, Version: 1 + w.rnd.Uint64N(3)}
		}
		return w.revocation(anybody(), w.generation(), controlLogs)
	case 6:
		return &trust.Invite{
			Public: pick(w, w.invites).id, Grants: w.normal(w.grants()), Label: pick(w, []string{"", "laptop"}),
			Expires: pick(w, []int64{0, now.Unix() - 1, now.Unix(), now.Unix() + 1}), Validity: int64(w.rnd.IntN(2)),
		}
	case 7:
		name := pick(w, []string{"default", "notes", "secret"})
		return &trust.SpaceStatement{Name: name, Encrypted: name != "default" && w.chance(30)}
	case 8:
		return &trust.NetworkStatement{Name: pick(w, []string{"home", "office", "boat"}), Version: 1 + w.rnd.Uint64N(3)}
	}
	k := &trust.KeysStatement{Space: w.notes, ID: [32]byte{byte(1 + w.rnd.IntN(2))}, Generation: w.generation()}
	for i := range 2 {
		if i == 0 || w.chance(50) {
			k.Wraps = append(k.Wraps, trust.Wrap{Recipient: [32]byte{byte(1 + i)}, Sealed: []byte{byte(1 + w.rnd.IntN(3))}})
		}
	}
	return k
}

func (w *world) normal(grants []trust.Grant) []trust.Grant {
	slices.SortFunc(grants, func(a, b trust.Grant) int {
		if c := bytes.Compare(a.Space[:], b.Space[:]); c != 0 {
			return c
		}
		return int(a.Role) - int(b.Role)
	})
	return slices.Compact(grants)
}

// dataLog is one of the two data logs that each peer has in a space.
func (w *world) dataLog(who replication.OriginKey, space replication.SpaceID, n byte) replication.LogID {
	return replication.LogOf(w.network, space, who, replication.Epoch{n})
}

func (w *world) revocation(subject replication.OriginKey, gen uint64, controlLogs func(replication.OriginKey) []replication.LogID) *trust.Revocation {
	var spaces []replication.SpaceID
	var held []trust.Held
	hold := func(space replication.SpaceID, log replication.LogID) {
		if w.chance(60) {
			pos := replication.Position{Seq: 1 + w.rnd.Uint64N(9), Hash: replication.Hash{byte(1 + w.rnd.IntN(3))}}
			held = append(held, trust.Held{Space: space, Log: log, Pos: pos})
		}
	}
	for _, space := range []replication.SpaceID{w.standard, w.notes} {
		if w.chance(80) {
			spaces = append(spaces, space)
			hold(space, w.dataLog(subject, space, 1))
			hold(space, w.dataLog(subject, space, 2))
		}
	}
	if w.chance(70) {
		spaces = append(spaces, w.control)
		for _, l := range controlLogs(subject) {
			hold(w.control, l)
		}
	}
	r, lost := trust.Revoke(subject, gen, 1+w.rnd.Uint64N(3), spaces, held)
	if len(lost) > 0 {
		panic("lost logs")
	}
	return r
}
