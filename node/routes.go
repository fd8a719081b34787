package node

import (
	"context"
	"fmt"
	"time"

	"vixp2p/routing"
)

// Route says through which neighbour a member is reached.
type Route struct {
	Target, NextHop string // peer IDs
	ViaRelay        bool   // the session with the next hop runs over a relay
	TTL             int    // of messages that are sent along it without one
	Source          string // "session", "hand" or "learned"
	Hops            int    // distance; 0: not known
	Expires         time.Time
}

// Routes lists the routes of messages, sessions included, by target, the best
// first. It is empty while messages are not carried.
func (n *Node) Routes() (out []Route) {
	if n.messages == nil {
		return nil
	}
	n.messages.mu.Lock()
	c := n.messages.courier
	n.messages.mu.Unlock()
	if c == nil {
		return nil
	}
	c.call(func(c *courier) {
		for _, r := range c.router.Routes(c.m.now()) {
			out = append(out, Route{
				Target: originName(replicationKey(r.Target)), NextHop: originName(replicationKey(r.NextHop)), ViaRelay: r.ViaRelay,
				TTL: r.TTL, Source: r.Source.String(), Hops: r.Hops, Expires: r.Expires,
			})
		}
	})
	return out
}

// SetRoute enters a route by hand: messages to target go to nextHop while there is a
// session with it and none with target, whatever was learned. Both are named by ID
// or label. ttl is that of messages sent along it without one; 0: 8. It lasts until
// RemoveRoute or Close.
func (n *Node) SetRoute(ctx context.Context, target, nextHop string, ttl int) error {
	to, err := n.recipient(target)
	if err != nil {
		return err
	}
	via, err := n.recipient(nextHop)
	if err != nil {
		return err
	}
	return n.changeRoutes(ctx, func(c *courier) error {
		r := routing.Route{Target: to, NextHop: via, TTL: ttl}
		if err := c.router.CheckRoute(r); err != nil {
			return fmt.Errorf("%w: %w", err, ErrInvalid)
		}
		c.carryOut(c.router.Step(c.m.now(), routing.SetRoute{Route: r}))
		return nil
	})
}

// RemoveRoute forgets the routes to target that were entered by hand or learned.
func (n *Node) RemoveRoute(ctx context.Context, target string) error {
	to, err := n.recipient(target)
	if err != nil {
		return err
	}
	return n.changeRoutes(ctx, func(c *courier) error {
		c.carryOut(c.router.Step(c.m.now(), routing.RemoveRoute{Target: to}))
		return nil
	})
}

func (n *Node) changeRoutes(ctx context.Context, fn func(*courier) error) error {
	c, err := n.messages.use(ctx)
	if err != nil {
		return err
	}
	if !c.call(func(c *courier) { err = fn(c) }) {
		return errNodeClosed
	}
	return err
}

// MessageStatus is what Status tells about messages.
type MessageStatus struct {
	// Carried: messages are sent, received and carried at this moment. If not, what
	// follows is 0, but for Problem, Recovered and Dropped.
	Carried bool
	// Problem is why messages are not carried at this moment; Recovered what was
	// found damaged since the node opened. Empty if nothing.
	Problem, Recovered string

	Inbox, Unread int // messages to this node that are kept
	Outbox        int // of this node, not acknowledged yet
	Transit       int // of others, acks and notices included
	Replies       int // of these, acks and notices
	TransitBytes  int

	Counters routing.Counters
	// Dropped counts messages that neighbours pushed and that did not count, and
	// answers to nothing that was pushed, by reason.
	Dropped map[string]uint64
}

// status is nil where messages are switched off.
func (m *messenger) status() *MessageStatus {
	if m == nil {
		return nil
	}
	m.mu.Lock()
	c := m.courier
	st := &MessageStatus{Problem: m.problem, Recovered: m.recovered, Dropped: map[string]uint64{
		"rate": m.counts.limited.Load(), "malformed": m.counts.malformed.Load(), "expired": m.counts.expired.Load(),
		"forged": m.counts.forged.Load(), "unreadable": m.counts.sealed.Load(),
		"unasked": m.counts.unasked.Load(),
	}}
	m.mu.Unlock()
	if c == nil {
		return st
	}
	if told := c.box.Recovered(); told != "" {
		st.Recovered = told // and what was lost since it was opened
	}
	sizes := c.box.Sizes()
	st.Inbox, st.Unread = sizes.Inbox, sizes.Unread
	st.Carried = c.call(func(c *courier) {
		s := c.router.Sizes()
		st.Outbox, st.Transit, st.Replies, st.TransitBytes = s.Own, s.Transit+s.Replies, s.Replies, s.TransitBytes
		st.Counters = c.router.Counters()
	})
	st.Dropped["repeated"], st.Dropped["full"] = st.Counters.Copies, st.Counters.Full
	return st
}
