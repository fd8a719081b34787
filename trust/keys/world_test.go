package keys

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"slices"
	"testing"
	"time"

	"vixp2p/replication"
	"vixp2p/trust"
)

// now is the time of most tests, in the year 2027.
var now = time.Unix(1_800_000_000, 0)

// person is a node with a key. The same name has the same key in all tests.
type person struct {
	key  ed25519.PrivateKey
	id   replication.OriginKey
	ring *Ring
	log  *trust.ControlLog // of an admin
}

func newPerson(t testing.TB, name string) *person {
	t.Helper()
	seed := replication.HashParts("test person", []byte(name))
	p := &person{key: ed25519.NewKeyFromSeed(seed[:])}
	p.id = replication.OriginKey(p.key.Public().(ed25519.PublicKey))
	var err error
	if p.ring, err = NewRing(p.key); err != nil {
		t.Fatal(err)
	}
	return p
}

// world is a network and what was stated in it. Admins state in logs of their own.
type world struct {
	t       testing.TB
	root    *person
	network replication.NetworkID
	secret  replication.SpaceID // encrypted
	open    replication.SpaceID // declared, not encrypted
	byRoot  trust.ControlLog
	admins  []*person
	serial  byte
}

func newWorld(t testing.TB) *world {
	w := &world{t: t, root: newPerson(t, "root")}
	w.network = replication.NetworkOfRoot(w.root.id[:])
	w.secret, w.open = replication.SpaceOf(w.network, "secret"), replication.SpaceOf(w.network, "open")
	w.byRoot = trust.ControlLog{Log: replication.LogID{1}, Origin: w.root.id}
	return w
}

func (w *world) state() *trust.State {
	logs := []trust.ControlLog{w.byRoot}
	for _, a := range w.admins {
		logs = append(logs, *a.log)
	}
	return trust.Evaluate(w.root.id[:], logs)
}

// says has the root, or an admin, state something.
func (w *world) says(by *person, statements ...trust.Statement) {
	log := &w.byRoot
	if by != w.root {
		log = by.log
	}
	log.Blocks = append(log.Blocks, trust.ControlBlock{End: uint64(len(log.Blocks) + 1), Statements: statements})
}

// cert certifies by the root: roles in all spaces.
func (w *world) cert(p *person, generation uint64, change func(*trust.Certificate), roles ...trust.Role) *trust.Certificate {
	w.t.Helper()
	w.serial++
	c := trust.Certificate{Network: w.network, Subject: p.id, Generation: generation, Serial: trust.Serial{w.serial}}
	for _, r := range roles {
		c.Grants = append(c.Grants, trust.Grant{Role: r})
	}
	if change != nil {
		change(&c)
	}
	signed, err := c.Sign(w.root.key)
	if err != nil {
		w.t.Fatal(err)
	}
	return signed
}

// admit certifies a member in generation 1.
func (w *world) admit(name string, roles ...trust.Role) *person {
	w.t.Helper()
	p := newPerson(w.t, name)
	c := w.cert(p, 1, nil, roles...)
	w.says(w.root, c)
	if slices.Contains(roles, trust.RoleAdmin) {
		p.log = &trust.ControlLog{Log: replication.LogID(p.id), Origin: p.id, Grant: (&trust.Chain{Leaf: c}).Encode()}
		w.admins = append(w.admins, p)
	}
	return p
}

func (w *world) revoke(by, p *person) {
	w.says(by, &trust.Revocation{Subject: p.id, Generation: 1, Version: 1})
}

// declare declares the spaces.
func (w *world) declare() {
	w.says(w.root, &trust.SpaceStatement{Name: "secret", Encrypted: true}, &trust.SpaceStatement{Name: "open"})
}

// settle has an admin state what is due until nothing is; it returns how many
// statements it made.
func (w *world) settle(admin *person) (made int) {
	w.t.Helper()
	for range 20 {
		state := w.state()
		admin.ring.Update(state, now)
		list, err := admin.ring.Due(state, now, rand.Reader)
		if err != nil {
			w.t.Fatal(err)
		}
		if len(list) == 0 {
			return made
		}
		for _, k := range list {
			if _, err := trust.Op(k); err != nil {
				w.t.Fatalf("a statement that others would void: %v", err)
			}
			w.says(admin, k)
			made++
		}
	}
	w.t.Fatal("there is always something due")
	return 0
}

// update tells rings of the state.
func (w *world) update(people ...*person) {
	state := w.state()
	for _, p := range people {
		p.ring.Update(state, now)
	}
}

// body is a block's header and raw body.
func body() (*replication.Header, []byte) {
	log := replication.LogID{7}
	raw := replication.EncodeBody(log, []replication.Op{{Kind: replication.KindPut, Key: []byte("k"), Payload: []byte("v")}})
	return &replication.Header{Log: log, FirstSeq: 1, Count: 1, RawLen: uint64(len(raw))}, raw
}

// block is what a member seals in the secret space now.
func (w *world) block(by *person) (*replication.Header, []byte) {
	w.t.Helper()
	seal, err := by.ring.SealFor(w.secret)
	if err != nil || seal == nil {
		w.t.Fatalf("a writer cannot seal: %v", err)
	}
	h, raw := body()
	return h, seal(h, raw)
}

// canOpen tells whether a member opens a block of the secret space.
func (w *world) canOpen(p *person, h *replication.Header, sealed []byte) error {
	open, err := p.ring.OpenFor(w.secret)
	if err != nil {
		return err
	}
	if open == nil {
		w.t.Fatal("the space is not encrypted")
	}
	raw, err := open(h, sealed)
	if _, want := body(); err == nil && !bytes.Equal(raw, want) {
		w.t.Errorf("a block opens as %x", raw)
	}
	return err
}
