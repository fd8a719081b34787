package keys

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"time"

	"vixp2p/replication"
	"vixp2p/replication/sealed"
	"vixp2p/trust"
)

const (
	// MaxDueWraps and MaxDueStatements bound what Due returns at once, so that it fits
	// one batch of a control log.
	MaxDueWraps      = 4096
	MaxDueStatements = 256
)

// Due is what this node is to append to its control log, if it is an admin, so that
// everybody has the keys that he may have: the first key of a space, a new one where
// the newest is known to somebody who may not read any more, and wraps of all keys
// that this node holds for those that lack them. Update must have been called with
// the state. rand gives the new keys.
//
// Append the statements as one batch, evaluate, Update and call Due again until it
// returns none. Admins that do it at the same time repeat each other, which does no
// harm; whoever does it a little later finds nothing to do.
//
// The statements are good also where there is an error, which tells what could not be
// done.
func (r *Ring) Due(state *trust.State, now time.Time, rand io.Reader) ([]*trust.KeysStatement, error) {
	if !r.isAdmin(state) {
		return nil, nil
	}
	d := &due{ring: r, state: state, now: now, rand: rand}
	d.findHolders()
	for _, sp := range state.Spaces() {
		if sp.Encrypted {
			d.newKey(sp.ID, false)
		}
	}
	for _, sp := range state.Spaces() {
		if sp.Encrypted {
			d.missing(sp.ID)
		}
	}
	return d.out, errors.Join(d.errs...)
}

// Rotate is what Due would return for a space whose newest key has to be replaced,
// whether it has to be or not: by hand, where a key has leaked in another way. The
// state tells nothing new before the statements are appended: call it once.
func (r *Ring) Rotate(state *trust.State, space replication.SpaceID, now time.Time, rand io.Reader) ([]*trust.KeysStatement, error) {
	if !r.isAdmin(state) {
		return nil, fmt.Errorf("only an admin hands out content keys: %w", replication.ErrNotAllowed)
	}
	if _, ok := r.Status(space); !ok {
		return nil, fmt.Errorf("the space %s is not encrypted and has no keys: %w", space, replication.ErrInvalid)
	}
	d := &due{ring: r, state: state, now: now, rand: rand}
	d.findHolders()
	d.newKey(space, true)
	return d.out, errors.Join(d.errs...)
}

func (r *Ring) isAdmin(state *trust.State) bool {
	m, ok := state.Member(r.self)
	return ok && !m.Revoked && m.IsAdmin()
}

// due gathers statements.
type due struct {
	ring    *Ring
	state   *trust.State
	now     time.Time
	rand    io.Reader
	holders []holder
	out     []*trust.KeysStatement
	wraps   int
	errs    []error
}

// holder is a member with the keys for which content keys are wrapped.
type holder struct {
	member     trust.Member
	recipients []Recipient
	// valid: it has a certificate that is valid now, or is this node, which must be
	// able to pass on what it makes.
	valid bool
}

// findHolders lists the members that are not revoked.
func (d *due) findHolders() {
	for _, m := range d.state.Members() {
		if m.Revoked {
			continue
		}
		h := holder{member: m, valid: m.Status(d.now) == trust.StatusStanding || m.Key == d.ring.self}
		for _, c := range m.Certificates {
			to, err := RecipientOf(c)
			if err != nil {
				d.errs = append(d.errs, err)
				break
			}
			if !slices.Contains(h.recipients, to) {
				h.recipients = append(h.recipients, to)
			}
		}
		d.holders = append(d.holders, h)
	}
}

// holds tells whether a member may have the keys of a space.
func (d *due) holds(h *holder, space replication.SpaceID) bool {
	return h.member.IsAdmin() || mayRead(d.state, &h.member, space, d.now)
}

// recipients are those that may have the keys of a space, and of these, in order, who
// is to get new wraps. This node comes first, so that it is in the first statement.
func (d *due) recipients(space replication.SpaceID) (allowed map[Recipient]bool, wanted []Recipient) {
	allowed = map[Recipient]bool{}
	for i := range d.holders {
		h := &d.holders[i]
		if !d.holds(h, space) {
			continue
		}
		for _, to := range h.recipients {
			if !allowed[to] && h.valid {
				wanted = append(wanted, to)
			}
			allowed[to] = true
		}
	}
	own := d.ring.own.public
	slices.SortFunc(wanted, func(a, b Recipient) int {
		if (a == own) != (b == own) {
			if a == own {
				return -1
			}
			return 1
		}
		return bytes.Compare(a[:], b[:])
	})
	return allowed, wanted
}

// newKey makes a key where a space has none, or where the newest one is known to
// somebody who may not have it (or anyway).
func (d *due) newKey(space replication.SpaceID, anyway bool) {
	generation := uint64(1)
	allowed, wanted := d.recipients(space)
	if known := d.state.Keys(space); len(known) > 0 {
		newest := &known[len(known)-1]
		leaked := slices.ContainsFunc(newest.Wraps, func(w trust.Wrap) bool { return !allowed[w.Recipient] })
		if !leaked && !anyway {
			return
		}
		if newest.Generation == math.MaxUint64 {
			d.errs = append(d.errs, fmt.Errorf("the content key of space %s cannot be replaced, because an admin has used up the generations: the root must revoke that admin", space))
			return
		}
		generation = newest.Generation + 1
	}
	key, err := sealed.NewKey(d.rand)
	if err != nil {
		d.errs = append(d.errs, err)
		return
	}
	d.hand(key, For{d.state.Network(), space, generation}, wanted)
}

// missing wraps the keys of a space that this node holds for those that lack them,
// the newest key first.
func (d *due) missing(space replication.SpaceID) {
	_, wanted := d.recipients(space)
	known := d.state.Keys(space)
	for _, k := range slices.Backward(known) {
		key := d.ring.key(space, k.ID)
		if key == nil {
			continue // another admin has it
		}
		has := map[Recipient]bool{}
		for _, w := range k.Wraps {
			has[w.Recipient] = true
		}
		lack := slices.DeleteFunc(slices.Clone(wanted), func(to Recipient) bool { return has[to] })
		d.hand(key, For{d.state.Network(), space, k.Generation}, lack)
	}
}

// hand adds the statements that give a key to recipients, as far as there is room.
func (d *due) hand(key *sealed.Key, f For, to []Recipient) {
	for len(to) > 0 && len(d.out) < MaxDueStatements && d.wraps < MaxDueWraps {
		n := min(len(to), trust.MaxWraps, MaxDueWraps-d.wraps)
		st := &trust.KeysStatement{Space: f.Space, ID: key.ID(), Generation: f.Generation}
		for _, one := range to[:n] {
			wrapped, err := Wrap(key, f, one)
			if err != nil {
				d.errs = append(d.errs, err)
				continue
			}
			st.Wraps = append(st.Wraps, trust.Wrap{Recipient: one, Sealed: wrapped})
		}
		to = to[n:]
		if len(st.Wraps) == 0 {
			continue
		}
		slices.SortFunc(st.Wraps, func(a, b trust.Wrap) int { return bytes.Compare(a.Recipient[:], b.Recipient[:]) })
		d.out, d.wraps = append(d.out, st), d.wraps+len(st.Wraps)
	}
}
