package node

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"vixp2p/replication"
	"vixp2p/trust"
	"vixp2p/trust/keys"
)

// keysPause is how long an admin's node waits after a change of the trust state before
// it hands out content keys: of several admins one is first, and the others find
// nothing to do.
func keysPause() time.Duration {
	const least, spread = 50 * time.Millisecond, 500 * time.Millisecond
	return least + time.Duration(randInt64(int64(spread)))
}

// tendKeys hands out the content keys that are due, if this node is an admin.
func (n *Node) tendKeys(ctx context.Context) {
	m := n.members
	m.issuing.Lock()
	defer m.issuing.Unlock()
	if err := n.do(ctx, func(e *engine) error { return n.handOutKeys(ctx, e) }); err != nil && ctx.Err() == nil {
		n.log.Warn("not all content keys of encrypted spaces could be handed out", "err", err)
	}
}

// maxHandOuts bounds what handOutKeys states at one time; the loop goes on with more.
const maxHandOuts = 16

// handOutKeys states the content keys that are due by what this node knows: nothing
// where it is no admin. issuing is held.
func (n *Node) handOutKeys(ctx context.Context, e *engine) error {
	m := n.members
	for range maxHandOuts {
		list, failed := m.ring.Due(m.state.Load(), m.now(), rand.Reader)
		if len(list) == 0 {
			return m.namingSubject(failed)
		}
		statements := make([]trust.Statement, len(list))
		for i, s := range list {
			statements[i] = s
		}
		if err := n.state(ctx, e, statements); err != nil {
			return err
		}
	}
	return nil
}

// namingSubject says of a member that no node can be, as people know it, what to do.
func (m *membership) namingSubject(err error) error {
	if bad, ok := errors.AsType[*keys.SubjectError](err); ok {
		return fmt.Errorf("the key of member %s is no valid Ed25519 key, so that no node can be it: revoke it: %w", m.peerTitle(bad.Subject), err)
	}
	return err
}

// isEncrypted tells whether a space is declared encrypted.
func (m *membership) isEncrypted(id replication.SpaceID) bool {
	_, encrypted := m.ring.Status(id)
	return encrypted
}
