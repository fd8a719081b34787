package node

import (
	"context"
	"fmt"
	"maps"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"vixp2p/replication"
	"vixp2p/replication/kv"
	"vixp2p/replication/replicator"
)

// Connect makes a session with the peer at addr (host:port, tcp://host:port,
// quic://host:port or a multiaddr) and returns when Hello is done; from then on
// the node keeps that session. A dead port fails within 5 seconds. A peer that the node
// has put out (PeerStatus.PutOut) is let in again: the user's word counts more.
//
// Errors: *DialError, *RefusedError, *BackoffError if it failed a moment ago,
// ErrSelf, ErrOffline.
func (n *Node) Connect(ctx context.Context, addr string) (peerID, endpoint string, err error) {
	peerID, endpoint, _, err = n.connect(ctx, addr)
	return peerID, endpoint, err
}

// connect is Connect, and tells why the peer was put out until then; empty: it was not.
func (n *Node) connect(ctx context.Context, addr string) (peerID, endpoint, was string, err error) {
	if n.dialer == nil {
		return "", "", "", ErrOffline
	}
	t, err := parseTarget(addr)
	if err != nil {
		return "", "", "", err
	}
	out := n.mesh.gate.allOut()
	id, err := n.dialer.connect(ctx, t)
	if err != nil {
		return "", "", "", err
	}
	if still, _ := n.mesh.gate.putOut(id); out[id] != nil && still.IsZero() {
		e := out[id]
		was = fmt.Sprintf("this node had put the peer out until %s: %v; that is over, since you connect to it", e.until.UTC().Format(time.RFC3339), e.why)
	}
	return id.String(), endpointText(t.Key), was, nil
}

// Disconnect ends the session with a peer, named by its ID, by the last 6
// characters or more of it, or by a label that only it has, and does not dial it again until Connect or the next start. It
// returns the peer's ID.
func (n *Node) Disconnect(ctx context.Context, name string) (peerID string, err error) {
	if n.mesh == nil {
		return "", ErrOffline
	}
	id, err := n.mesh.book.find(name)
	if err != nil {
		return "", err
	}
	return id.String(), n.mesh.disconnect(ctx, id, "")
}

// Forget ends the session with a peer, named as for Disconnect, removes it from the
// address book, and does not dial it again: until Connect, or until the node starts
// again and the configuration or discovery names it. Status shows it no more, and
// nothing is pending towards it, until it has a session again: a peer that dials is let
// in and remembered as any other. What it stated about writes stays known.
// An offline node can forget peers too. It returns the peer's ID.
//
// Errors: *UnknownPeerError.
func (n *Node) Forget(ctx context.Context, name string) (peerID string, err error) {
	if n.isClosed() {
		return "", errNodeClosed
	}
	id, err := n.findKnown(ctx, name)
	if err != nil {
		return "", err
	}
	met := n.mesh != nil && n.mesh.book.knows(id)
	if met {
		if err := n.mesh.disconnect(ctx, id, forgottenDetail); err != nil {
			return "", err
		}
		n.dialer.forget(id)
	}
	stated, err := n.forgetStated(ctx, id)
	if err != nil {
		return "", err
	}
	if !n.addresses.forget(id) && !met && !stated {
		return "", &UnknownPeerError{Name: name}
	}
	return id.String(), n.addresses.save()
}

// findKnown is findPeer among all that Status lists: the peers that were met since the
// start, those of the address book, and members that stated something once.
func (n *Node) findKnown(ctx context.Context, name string) (id peer.ID, err error) {
	err = n.do(ctx, func(e *engine) error {
		known := map[peer.ID]string{}
		members, err := replicator.Known(e.store)
		if err != nil {
			return err
		}
		for _, m := range members {
			if id, err := peerIDOf(m.Peer); err == nil {
				known[id] = ""
			}
		}
		for _, a := range n.addresses.list() {
			known[a.ID] = a.Label
		}
		if n.mesh != nil {
			maps.Copy(known, n.mesh.book.labels())
		}
		id, err = findPeer(name, maps.All(known))
		return err
	})
	return id, err
}

// forgetStated takes a peer without a session out of what Status tells. known is
// false of one that never stated anything.
func (n *Node) forgetStated(ctx context.Context, id peer.ID) (known bool, err error) {
	key, err := routingKey(id)
	if err != nil {
		return false, nil // an ID that no member has
	}
	origin := replicationKey(key)
	err = n.do(ctx, func(e *engine) error {
		if n.mesh == nil {
			known, err = replicator.ForgetIn(e.store, origin)
			return err
		}
		n.mesh.mu.Lock() // no session begins meanwhile
		defer n.mesh.mu.Unlock()
		if n.mesh.book.live(id) != nil {
			return nil // it has dialled again
		}
		n.mesh.book.change(id, func(r *peerRecord) { r.forgotten = true })
		known, err = e.replicator.Forget(origin)
		return err
	})
	return known, err
}

// WaitOptions is a condition on the node.
type WaitOptions struct {
	// Peers is how many peers must be Connected. Default 0.
	Peers int
	// Synced: at least one peer is connected, and Peers, nothing is pending or
	// missing with any that is, and the key-value view has caught up. Logs that are
	// forked or cut count as synced; what is refused for another reason does not, and
	// no more does a peer that a space does not reach because a certificate has ended.
	Synced bool
}

// Wait returns when the condition holds, at one moment; an error that says what
// is missing, and matches ctx's, if ctx ends first.
func (n *Node) Wait(ctx context.Context, w WaitOptions) error {
	if n.mesh == nil && (w.Peers > 0 || w.Synced) {
		return ErrOffline
	}
	if w.Synced {
		return n.do(ctx, func(e *engine) error {
			return e.replicator.WaitSynced(ctx, w.Peers, e.allCaughtUp)
		})
	}
	if w.Peers > 0 {
		if err := n.mesh.book.waitConnected(ctx, n.ctx.Done(), w.Peers); err != nil {
			return err
		}
	}
	return n.do(ctx, func(*engine) error { return nil })
}

// waitConnected waits for n peers in the state Connected.
func (b *peerBook) waitConnected(ctx context.Context, closed <-chan struct{}, n int) error {
	for {
		b.mu.Lock()
		have, changed := 0, b.changed
		for _, r := range b.records {
			if r.state() == Connected {
				have++
			}
		}
		b.mu.Unlock()
		if have >= n {
			return nil
		}
		select {
		case <-changed:
		case <-closed:
			return errNodeClosed
		case <-ctx.Done():
			return fmt.Errorf("%d of %d peers are connected: %w", have, n, context.Cause(ctx))
		}
	}
}

// Finding is one thing that Verify found wrong.
type Finding struct {
	Log     string // hex; empty where no single log is concerned
	Seq     uint64
	File    string
	Problem string
}

// Verify checks every hash, signature and index of the logs and of the key-value
// view, and calls fn for each thing that is wrong. It may run beside writes. What
// it finds is repaired afterwards, as damage that a read met is.
func (n *Node) Verify(ctx context.Context, fn func(Finding)) error {
	tell := func(f replication.Finding) {
		out := Finding{Seq: f.Seq, File: f.File, Problem: f.Problem}
		if f.Log != (replication.LogID{}) {
			out.Log = f.Log.String()
		}
		fn(out)
	}
	return n.do(ctx, func(e *engine) error {
		// The store comes last: a repair may begin when it is done.
		viewErr := e.view.Verify(ctx, kv.VerifyOptions{}, tell)
		if err := e.store.Verify(ctx, tell); err != nil {
			return err
		}
		return viewErr
	})
}

// RebuildView makes the key-value view anew from the logs and returns when it
// has caught up. Reads wait meanwhile.
func (n *Node) RebuildView(ctx context.Context) error {
	return n.do(ctx, func(e *engine) error { return e.view.Rebuild(ctx) })
}
