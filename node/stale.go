package node

import (
	"context"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/sec"
)

// dropStale ends the session with the peer that is expected at a target if that
// session is stale and the peer answers a connection of its own: then it has
// restarted, or the path has changed, and the session would hear of that only
// when it times out. It returns by when the target must answer next: by itself,
// or later if it just did. An error tells that nobody answers: the session stays.
func (m *mesh) dropStale(ctx context.Context, t target, expected peer.ID, by time.Time) (time.Time, error) {
	s := m.book.staleSession(expected)
	if s == nil {
		return by, nil
	}
	id, err := m.connector.answers(ctx, t, by)
	switch {
	case err != nil:
		return by, err
	case id != expected:
		return by, wrapDial(t.Key, sec.ErrPeerIDMismatch{Expected: expected, Actual: id})
	case m.book.staleSession(expected) != s:
		return by, errLostRace // it has spoken after all, or has ended
	}
	m.log.Info("a stale session is replaced: its peer answers a new connection", "peer", id.String(), "endpoint", t.Key)
	_ = m.host.Network().ClosePeer(id) // they are given up
	select {
	case <-s.closed:
		return time.Now().Add(m.timeout), nil
	case <-ctx.Done():
		return by, context.Cause(ctx)
	}
}

// presentTime is how long a peer has for an answer on its session before it is
// asked at its address.
const presentTime = time.Second

// present implements link. A session whose peer does not answer on it stays, since
// it may be slow: it ends by its own time limits.
func (m *mesh) present(ctx context.Context, t target, id peer.ID, by time.Time) error {
	s := m.book.session(id)
	switch {
	case s == nil:
		return errEnded
	case !s.alive():
		return m.gone(ctx, s)
	}
	asking, stop := context.WithCancel(ctx)
	defer stop()
	answer := make(chan bool, 1)
	go func() { answer <- s.driver.Answers(asking) }()
	patience := time.NewTimer(presentTime)
	defer patience.Stop()
	select {
	case there := <-answer:
		if there {
			return nil
		}
	case <-patience.C:
	case <-ctx.Done():
	}
	if s.alive() && t.relayed() {
		return nil // who is at a relayed address says nothing of its own
	}
	if !s.alive() {
		return m.gone(ctx, s)
	}
	other, err := m.connector.answers(ctx, t, by)
	select {
	case there := <-answer:
		if there {
			return nil // late, but there
		}
	default:
	}
	switch {
	case !s.alive():
		return m.gone(ctx, s)
	case err == nil && other != id:
		return wrapDial(t.Key, sec.ErrPeerIDMismatch{Expected: id, Actual: other})
	}
	return err
}

// gone waits until the node has drawn its conclusions from the end of a session.
func (m *mesh) gone(ctx context.Context, s *session) error {
	select {
	case <-s.closed:
		return errEnded
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// staleSession returns the session with a peer if nothing was heard on it for
// long, else nil.
func (b *peerBook) staleSession(id peer.ID) *session {
	b.mu.Lock()
	defer b.mu.Unlock()
	if r := b.records[id]; r != nil && r.stale && r.session.alive() {
		return r.session
	}
	return nil
}

// reached implements link: where connected peers listen, as they told.
func (m *mesh) reached() map[string]bool {
	keys := map[string]bool{}
	for _, id := range m.book.connected() {
		for _, a := range m.host.Peerstore().Addrs(id) {
			if key, ok := multiaddrKey(a); ok {
				keys[key] = true
			}
		}
	}
	return keys
}

// connected are the peers with a session that is not stale.
func (b *peerBook) connected() []peer.ID {
	b.mu.Lock()
	defer b.mu.Unlock()
	var ids []peer.ID
	for id, r := range b.records {
		if r.state() == Connected {
			ids = append(ids, id)
		}
	}
	return ids
}
