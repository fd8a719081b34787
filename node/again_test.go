package node

import (
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"vixp2p/replication"
)

// A session that ended so that it begins anew is back at once as a rule, and after
// one backoff of an endpoint, 2.5 s, where both sides dialled at an unlucky moment. A
// busy machine adds to that what it adds to a first session, so many times.
const (
	atOnce     = time.Second
	soonAgain  = 5 * time.Second
	busyFactor = 20
)

// endTrustChanged ends the session of a node with a peer, if there is one.
func endTrustChanged(n *Node, id peer.ID) {
	if s := n.mesh.book.live(id); s != nil {
		s.driver.Close(replication.CodeTrustChanged, "")
	}
}

// awaitSession waits until both sides have one session, and the same, and tells for
// how long.
func awaitSession(t *testing.T, a, b *Node) time.Duration {
	t.Helper()
	start := time.Now()
	for {
		at, there := a.mesh.book.live(b.id), b.mesh.book.live(a.id)
		if at != nil && there != nil && at.meta.Initiator == there.meta.Initiator && at.meta.Attempt == there.meta.Attempt {
			return time.Since(start)
		}
		if time.Since(start) > patience {
			t.Fatalf("no session any more: %s has %v, %s has %v\n%+v\n%+v", a.Label(), at != nil, b.Label(), there != nil, a.endpoints(), b.endpoints())
		}
		time.Sleep(time.Millisecond)
	}
}

// TestSessionsBeginAnew: a session that ends because what its peers may have has
// changed is back at once, whoever ended it, however often, and whoever dials.
func TestSessionsBeginAnew(t *testing.T) {
	rounds := 12
	if testing.Short() {
		rounds = 5
	}
	for _, c := range []struct {
		name    string
		crossed bool // both dial, so that there are two sessions for a moment
		alone   bool // b dials nobody by itself
		from    string
		midway  bool // not awaited in between
	}{
		{name: "the dialer ends it", from: "a"},
		{name: "the dialer ends it, and the other side dials nobody", alone: true, from: "a"},
		{name: "the other side ends it, and dials nobody", alone: true, from: "b"},
		{name: "the other side ends it", from: "b"},
		{name: "both end it", from: "ab"},
		{name: "crossed dials, one side ends it", crossed: true, from: "a"},
		{name: "crossed dials, both end it", crossed: true, from: "ab"},
		{name: "as soon as it is there", crossed: true, from: "ab", midway: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			a, b := open(t, Config{Label: "A"}), open(t, Config{Label: "B", NoConnect: c.alone})
			began := time.Now()
			if _, _, err := a.Connect(deadline(t), hostPort(t, b)); err != nil {
				t.Fatal(err)
			}
			busy := busyFactor * time.Since(began)
			if c.crossed {
				if _, _, err := b.Connect(deadline(t), hostPort(t, a)); err != nil {
					t.Fatal(err)
				}
			}
			awaitSession(t, a, b)
			var took []time.Duration
			for range rounds {
				times := 1
				if c.midway {
					times = 4
				}
				for range times {
					for _, who := range c.from {
						if who == 'a' {
							endTrustChanged(a, b.id)
						} else {
							endTrustChanged(b, a.id)
						}
					}
					if c.midway { // in the middle of what follows
						time.Sleep(time.Duration(rand.IntN(12)) * time.Millisecond)
					}
				}
				before := a.mesh.book.live(b.id)
				if before != nil {
					select {
					case <-before.driver.Done():
					case <-time.After(20 * time.Millisecond): // it is a new one
					}
				}
				took = append(took, awaitSession(t, a, b))
			}
			slices.Sort(took)
			usual, longest := took[len(took)/2], took[len(took)-1]
			t.Logf("back within %s, as a rule %s", longest.Round(time.Millisecond), usual.Round(time.Millisecond))
			if usual > atOnce+busy || longest > soonAgain+busy {
				t.Errorf("a session was back after %s, as a rule %s", longest, usual)
			}
		})
	}
}

// TestAgainDialsAtOnce: neither the pause between attempts that nobody asked for nor a
// backoff keeps a peer from being dialled whose session ended to begin anew, at every
// address that it has.
func TestAgainDialsAtOnce(t *testing.T) {
	inBubble(t, func(t *testing.T, f *fakeLink, d *dialer) {
		tgt, other := mustTarget(t, "10.0.0.1:9001"), mustTarget(t, "10.0.0.1:9002")
		tgt.ID, other.ID = "B", "B"
		f.answer(tgt, "B", nil)
		d.start()
		d.offer(found{target: tgt, from: fromRemembered})
		d.offer(found{target: other, from: fromRemembered})
		synctest.Wait()
		for round := 1; round <= 4; round++ {
			if n := f.count(tgt.Key) + f.count(other.Key); n != round {
				t.Fatalf("%d dials after %d sessions that ended", n, round-1)
			}
			if round == 3 { // the peer has moved, and its other address failed lately
				d.guard.fail(d.now(), other.Key, errRefused)
				f.answer(tgt, "B", errRefused)
				f.answer(other, "B", nil)
				d.forget("B")
				d.offer(found{target: other, from: fromRemembered})
			}
			f.drop("B")
			d.again("B", "")
			d.sessionEnded("", nil)
			synctest.Wait()
		}
	})
}
