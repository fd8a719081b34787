package keys

import (
	"bytes"
	"crypto/rand"
	"errors"
	"math"
	mrand "math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"vixp2p/replication"
	"vixp2p/replication/logtest"
	"vixp2p/trust"
)

// The life of an encrypted space: its first key, readers that come later, one that is
// revoked, and a new key that it does not get.
func TestLifeOfASpace(t *testing.T) {
	w := newWorld(t)
	admin := w.admit("admin", trust.RoleAdmin)
	writer, reader, relay := w.admit("writer", trust.RoleWriter), w.admit("reader", trust.RoleReader), w.admit("relay", trust.RoleRelay)
	w.declare()
	everyone := []*person{writer, reader, relay}

	// Declared, and no key yet: nobody writes, and nobody writes in the open.
	w.update(everyone...)
	_, err := writer.ring.SealFor(w.secret)
	if !errors.Is(err, replication.ErrNoKey) || !strings.Contains(err.Error(), "admin") {
		t.Errorf("a write before there is a key: %v", err)
	}
	if made := w.settle(admin); made != 1 {
		t.Errorf("%d statements for the first key of one space", made)
	}
	w.update(everyone...)
	h1, b1 := w.block(writer)
	if err := w.canOpen(reader, h1, b1); err != nil {
		t.Errorf("a reader: %v", err)
	}
	if err := w.canOpen(writer, h1, b1); err != nil {
		t.Errorf("the writer: %v", err)
	}
	if err := w.canOpen(relay, h1, b1); !errors.Is(err, replication.ErrNotReader) || !strings.Contains(err.Error(), `space "secret"`) {
		t.Errorf("a relay: %v", err)
	}
	if err := w.canOpen(admin, h1, b1); !errors.Is(err, replication.ErrNotReader) {
		t.Errorf("an admin without a role in the space, who has the key: %v", err)
	}
	for _, sp := range []replication.SpaceID{w.open, trust.ControlSpace(w.network), replication.SpaceOf(w.network, "default")} {
		seal, err := relay.ring.SealFor(sp)
		open, err2 := relay.ring.OpenFor(sp)
		if seal != nil || open != nil || err != nil || err2 != nil {
			t.Errorf("a space that is not encrypted: %v, %v", err, err2)
		}
	}

	// Somebody comes later, and reads what was written before.
	late := w.admit("late", trust.RoleReader)
	w.update(late)
	var missing *replication.NoKeyError
	if err := w.canOpen(late, h1, b1); !errors.As(err, &missing) || !bytes.Equal(missing.KeyID[:], h1.KeyID) {
		t.Errorf("a reader whose wrap has not come: %v", err)
	}
	if made := w.settle(admin); made != 1 {
		t.Errorf("%d statements for one reader and one key", made)
	}
	if changed := late.ring.Update(w.state(), now); !changed {
		t.Error("a new key does not count as a change")
	}
	if late.ring.Update(w.state(), now) {
		t.Error("nothing new counts as a change")
	}
	if err := w.canOpen(late, h1, b1); err != nil {
		t.Errorf("an old block: %v", err)
	}

	// A reader is revoked: what is written from then on it cannot read.
	w.revoke(admin, reader)
	if made := w.settle(admin); made != 1 {
		t.Errorf("%d statements for a new key", made)
	}
	everyone = append(everyone, late)
	w.update(everyone...)
	h2, b2 := w.block(writer)
	if bytes.Equal(h1.KeyID, h2.KeyID) {
		t.Fatal("the key is the old one")
	}
	if err := w.canOpen(reader, h2, b2); !errors.Is(err, replication.ErrNotReader) {
		t.Errorf("the revoked reader: %v", err)
	}
	if reader.ring.key(w.secret, [32]byte(h2.KeyID)) != nil || relay.ring.key(w.secret, [32]byte(h2.KeyID)) != nil {
		t.Error("who may not read has the new key")
	}
	for _, p := range []*person{writer, late} {
		if err := errors.Join(w.canOpen(p, h1, b1), w.canOpen(p, h2, b2)); err != nil {
			t.Errorf("a reader of old and new: %v", err)
		}
	}

	// One that comes now gets both keys.
	last := w.admit("last", trust.RoleReader)
	if made := w.settle(admin); made != 2 {
		t.Errorf("%d statements for one reader and two keys", made)
	}
	w.update(last)
	if err := errors.Join(w.canOpen(last, h1, b1), w.canOpen(last, h2, b2)); err != nil {
		t.Errorf("the last one: %v", err)
	}
	if st, ok := last.ring.Status(w.secret); !ok || !st.Reader || st.Held != 2 || !st.Writes || st.Newest == "" {
		t.Errorf("status: %+v", st)
	}
}

// A node does not know of a space that is not declared whether it is encrypted; of the
// space default it does.
func TestUnknownBeforeItIsDeclared(t *testing.T) {
	w := newWorld(t)
	p := w.admit("writer", trust.RoleWriter)
	refused := func(when string, space replication.SpaceID) {
		t.Helper()
		_, err := p.ring.SealFor(space)
		_, err2 := p.ring.OpenFor(space)
		if !errors.Is(err, replication.ErrNoKey) || !errors.Is(err2, replication.ErrNoKey) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v, %v", when, err, err2)
		}
	}
	inTheOpen := func(when string, space replication.SpaceID) {
		t.Helper()
		seal, err := p.ring.SealFor(space)
		open, err2 := p.ring.OpenFor(space)
		if seal != nil || open != nil || err != nil || err2 != nil {
			t.Errorf("%s: %v, %v", when, err, err2)
		}
	}
	standard := replication.SpaceOf(w.network, replication.DefaultSpace)
	refused("before the first state", standard)
	p.ring.Update(trust.Evaluate(w.root.id[:], nil), now)
	inTheOpen("the space default, with empty control logs", standard)
	inTheOpen("the control space", trust.ControlSpace(w.network))
	refused("an undeclared space, with empty control logs", w.open)
	w.update(p)
	refused("an undeclared space", w.open)
	w.declare()
	if !p.ring.Update(w.state(), now) {
		t.Error("that a space is declared is no change")
	}
	inTheOpen("a declared space", w.open)

	// One that has not heard of itself does not know whether it may read.
	stranger := newPerson(t, "stranger")
	w.update(stranger)
	if _, err := stranger.ring.OpenFor(w.secret); !errors.Is(err, replication.ErrNoKey) {
		t.Errorf("before its certificate has come: %v", err)
	}
	if _, err := trust.Op(&trust.SpaceStatement{Name: replication.DefaultSpace, Encrypted: true}); !errors.Is(err, replication.ErrInvalid) {
		t.Errorf("the space default as an encrypted one: %v", err)
	}
}

// Of two admins that make a key at one time all use the same one, and read both.
func TestTwoAdminsAtOnce(t *testing.T) {
	w := newWorld(t)
	a, b := w.admit("a", trust.RoleAdmin), w.admit("b", trust.RoleAdmin)
	writer, other := w.admit("writer", trust.RoleWriter), w.admit("other", trust.RoleWriter)
	w.declare()
	state := w.state()
	var blocks [][]byte
	var headers []*replication.Header
	for _, admin := range []*person{a, b} {
		admin.ring.Update(state, now)
		list, err := admin.ring.Due(state, now, rand.Reader)
		if err != nil || len(list) != 1 || list[0].Generation != 1 {
			t.Fatalf("%v, %v", list, err)
		}
		w.says(admin, list[0])
		// A writer that has only heard of this one so far.
		w.update(writer)
		h, body := w.block(writer)
		headers, blocks = append(headers, h), append(blocks, body)
	}
	w.update(writer, other)
	h1, _ := w.block(writer)
	h2, _ := w.block(other)
	if !bytes.Equal(h1.KeyID, h2.KeyID) {
		t.Error("two writers use two keys")
	}
	for i := range blocks {
		if err := w.canOpen(other, headers[i], blocks[i]); err != nil {
			t.Errorf("block %d: %v", i, err)
		}
	}
	if made := w.settle(a) + w.settle(b); made != 0 {
		t.Errorf("%d statements more", made)
	}
}

// A member out of its validity gets no new wraps until it is renewed, and loses nothing:
// no key is made because of it.
func TestExpired(t *testing.T) {
	w := newWorld(t)
	admin := w.admit("admin", trust.RoleAdmin)
	w.declare()
	reader := newPerson(t, "reader")
	w.says(w.root, w.cert(reader, 1, func(c *trust.Certificate) { c.NotAfter = now.Unix() - 1 }, trust.RoleReader))
	w.settle(admin)
	keys := w.state().Keys(w.secret)
	if len(keys) != 1 || len(keys[0].Wraps) != 1 {
		t.Fatalf("%+v", keys)
	}
	w.says(w.root, w.cert(reader, 1, nil, trust.RoleReader))
	w.settle(admin)
	w.update(reader)
	if st, _ := reader.ring.Status(w.secret); st.Held != 1 || !st.Reader {
		t.Errorf("after its renewal: %+v", st)
	}
	// Later it ends again.
	later := now.Add(1000 * time.Hour)
	state := w.state()
	admin.ring.Update(state, later)
	if list, err := admin.ring.Due(state, later, rand.Reader); len(list) != 0 || err != nil {
		t.Errorf("%d statements, %v", len(list), err)
	}
}

// A key is replaced for who may have it no more, in all spaces that this concerns, also
// where that is an admin; and not by who is no admin.
func TestWhoRotates(t *testing.T) {
	w := newWorld(t)
	a, b := w.admit("a", trust.RoleAdmin), w.admit("b", trust.RoleAdmin)
	reader := w.admit("reader", trust.RoleReader)
	w.declare()
	w.settle(a)
	first := w.state().Keys(w.secret)
	// The revocation keeps what the admin stated, the key among it.
	w.says(w.root, &trust.Revocation{Subject: a.id, Generation: 1, Version: 1, Cuts: []trust.SpaceCut{{
		Space: trust.ControlSpace(w.network), Logs: []trust.LogCut{{Log: a.log.Log, Pos: replication.Position{Seq: uint64(len(a.log.Blocks)), Hash: replication.Hash{1}}}},
	}}})
	state := w.state()
	for _, p := range []*person{a, reader} {
		p.ring.Update(state, now)
		if list, err := p.ring.Due(state, now, rand.Reader); len(list) != 0 || err != nil {
			t.Errorf("who is no admin has %d statements, %v", len(list), err)
		}
		if _, err := p.ring.Rotate(state, w.secret, now, rand.Reader); !errors.Is(err, replication.ErrNotAllowed) {
			t.Errorf("a rotation by who is no admin: %v", err)
		}
	}
	w.settle(b)
	keys := w.state().Keys(w.secret)
	if len(first) != 1 || len(keys) != 2 || keys[1].Generation != 2 || slices.ContainsFunc(keys[1].Wraps, func(x trust.Wrap) bool { return x.Recipient == a.ring.own.public }) {
		t.Errorf("after an admin's revocation: %+v", keys)
	}
	list, err := b.ring.Rotate(w.state(), w.secret, now, rand.Reader)
	if err != nil || len(list) != 1 || list[0].Generation != 3 {
		t.Errorf("by hand: %v, %v", list, err)
	}
	if _, err := b.ring.Rotate(w.state(), w.open, now, rand.Reader); !errors.Is(err, replication.ErrInvalid) {
		t.Errorf("of a space that is not encrypted: %v", err)
	}
}

// What cannot be done is told and not tried for ever; the rest is done.
func TestDueBounds(t *testing.T) {
	w := newWorld(t)
	admin := w.admit("admin", trust.RoleAdmin)
	w.admit("reader", trust.RoleReader)
	w.declare()
	w.says(w.root, &trust.SpaceStatement{Name: "used up", Encrypted: true})
	used := replication.SpaceOf(w.network, "used up")
	w.says(admin, &trust.KeysStatement{
		Space: used, ID: logtest.ContentKey(9).ID(), Generation: math.MaxUint64,
		Wraps: []trust.Wrap{{Recipient: [32]byte{1}, Sealed: []byte{1}}}, // of a stranger
	})
	w.says(w.root, w.cert(&person{id: replication.OriginKey{2}}, 1, nil, trust.RoleReader)) // no point of the curve
	state := w.state()
	admin.ring.Update(state, now)
	list, err := admin.ring.Due(state, now, rand.Reader)
	if err == nil || !strings.Contains(err.Error(), "generations") || !strings.Contains(err.Error(), "02000000") {
		t.Errorf("%v", err)
	}
	if len(list) != 1 || list[0].Space != w.secret || len(list[0].Wraps) != 2 {
		t.Errorf("%d statements", len(list))
	}
}

// More recipients than one statement holds, and than one call hands out.
func TestManyReaders(t *testing.T) {
	if testing.Short() {
		t.Skip("thousands of wraps")
	}
	w := newWorld(t)
	admin := w.admit("admin", trust.RoleAdmin)
	w.declare()
	x := newPerson(t, "reader").ring.own.public
	for i := range MaxDueWraps + 10 {
		p := &person{id: replication.OriginKey{0: 1, 1: byte(i), 2: byte(i >> 8)}}
		w.says(w.root, w.cert(p, 1, func(c *trust.Certificate) {
			c.Serial, c.X25519 = trust.Serial{1, byte(i), byte(i >> 8)}, x
			c.X25519[0] ^= byte(i)
			c.X25519[1] ^= byte(i >> 8)
		}, trust.RoleReader))
	}
	made := w.settle(admin)
	if got := len(w.state().Keys(w.secret)[0].Wraps); got != MaxDueWraps+11 || made != 5 {
		t.Errorf("%d wraps in %d statements", got, made)
	}
}

// Whatever happens to members, in the end who may read has every key, and who may not
// has never got the newest one.
func TestRandomMembers(t *testing.T) {
	rounds := 20
	if testing.Short() {
		rounds = 3
	}
	for seed := range uint64(rounds) {
		rnd := mrand.New(mrand.NewPCG(seed, 1))
		w := newWorld(t)
		admins := []*person{w.admit("a", trust.RoleAdmin), w.admit("b", trust.RoleAdmin, trust.RoleReader)}
		w.declare()
		roles := []trust.Role{trust.RoleReader, trust.RoleWriter, trust.RoleRelay}
		members, gone := map[string]*person{}, map[string]bool{}
		for step := range 12 {
			name := string(rune('k' + step))
			switch p := members[string(rune('k'+rnd.IntN(step+1)))]; {
			case p != nil && rnd.IntN(2) == 0:
				for n, m := range members {
					gone[n] = gone[n] || m == p
				}
				w.revoke(admins[rnd.IntN(2)], p)
			default:
				members[name] = w.admit(name, roles[rnd.IntN(3)])
			}
			if rnd.IntN(2) == 0 {
				w.settle(admins[rnd.IntN(2)])
			}
		}
		for w.settle(admins[0])+w.settle(admins[1]) > 0 {
		}
		state := w.state()
		keys := state.Keys(w.secret)
		newest := keys[len(keys)-1]
		for name, p := range members {
			p.ring.Update(state, now)
			st, _ := p.ring.Status(w.secret)
			switch reads := state.MayRead(p.id, w.secret, now, nil); {
			case reads != st.Reader || reads == gone[name] && reads:
				t.Errorf("seed %d: %s reads: %v, %+v", seed, name, reads, st)
			case reads && st.Held != len(keys):
				t.Errorf("seed %d: %s has %d of %d keys", seed, name, st.Held, len(keys))
			case !reads && st.Writes:
				t.Errorf("seed %d: %s has the newest key %x", seed, name, newest.ID[:4])
			}
		}
	}
}
