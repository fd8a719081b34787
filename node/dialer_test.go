package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

// fakeLink stands for sessions: what each endpoint answers is set by the test.
type fakeLink struct {
	mu        sync.Mutex // guards below
	answers   map[string]func() (peer.ID, error)
	dials     map[string][]time.Time
	underWay  int
	most      int
	took      time.Duration
	patience  []time.Duration
	connected map[peer.ID]bool
	held      map[peer.ID]bool
	until     map[peer.ID]time.Time // held as long
	addrs     map[string]bool       // of connected peers
	wanted    int                   // sessions that automatic attempts make
	presence  func(id peer.ID, by time.Time) error
}

func newFakeLink() *fakeLink {
	return &fakeLink{
		answers: map[string]func() (peer.ID, error){}, dials: map[string][]time.Time{},
		wanted: 1 << 10, connected: map[peer.ID]bool{}, held: map[peer.ID]bool{}, until: map[peer.ID]time.Time{}, addrs: map[string]bool{},
	}
}

func (f *fakeLink) establish(ctx context.Context, t target, _ peer.ID, by time.Time, _ uint64) (peer.ID, error) {
	f.mu.Lock()
	f.patience = append(f.patience, time.Until(by))
	f.dials[t.Key] = append(f.dials[t.Key], time.Now())
	f.underWay++
	f.most = max(f.most, f.underWay)
	answer, took := f.answers[t.Key], f.took
	f.mu.Unlock()
	select {
	case <-time.After(took):
	case <-ctx.Done():
		return "", ctx.Err()
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.underWay--
	if answer == nil {
		return "", errRefused
	}
	id, err := answer()
	if err == nil {
		f.connected[id] = true
	}
	return id, err
}

// answer sets who answers at an endpoint; nobody does elsewhere.
func (f *fakeLink) answer(t target, id peer.ID, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.answers[t.Key] = func() (peer.ID, error) { return id, err }
}

// all is how many dials there were.
func (f *fakeLink) all() (n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, times := range f.dials {
		n += len(times)
	}
	return n
}

func (f *fakeLink) busy(id peer.ID) (connected, held bool, until time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	until = f.until[id]
	return f.connected[id], f.held[id] || time.Now().Before(until), until
}

func (f *fakeLink) reached() map[string]bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return maps.Clone(f.addrs)
}

func (f *fakeLink) lastHold() uint64 { return 0 }

func (f *fakeLink) heldAfter(peer.ID, uint64) bool { return false }

func (f *fakeLink) unhold(id peer.ID, _ uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.held, id)
}

func (f *fakeLink) present(_ context.Context, _ target, id peer.ID, by time.Time) error {
	f.mu.Lock()
	ask := f.presence
	f.mu.Unlock()
	if ask == nil {
		return nil
	}
	return ask(id, by)
}

func (f *fakeLink) relayed(peer.ID) bool { return false }

func (f *fakeLink) self() peer.ID { return "self" }

func (f *fakeLink) room() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.wanted - len(f.connected)
}

// mostAtOnce is how many dials were under way at one time.
func (f *fakeLink) mostAtOnce() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.most
}

// sessions are the peers that are connected.
func (f *fakeLink) sessions() []peer.ID {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Collect(maps.Keys(f.connected))
}

func (f *fakeLink) want(sessions int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.wanted = sessions
}

func (f *fakeLink) drop(id peer.ID) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.connected, id)
}

func (f *fakeLink) count(key string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.dials[key])
}

// patiences are those of all attempts so far.
func (f *fakeLink) patiences() []time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.patience)
}

func mustTarget(t *testing.T, s string) target {
	t.Helper()
	tgt, err := parseTarget(s)
	if err != nil {
		t.Fatal(err)
	}
	return tgt
}

func testDialer(f *fakeLink) *dialer {
	return newDialer(newGuard(nil), f, time.Now, slog.New(slog.DiscardHandler))
}

// inBubble runs a test of a dialer in virtual time.
func inBubble(t *testing.T, test func(t *testing.T, f *fakeLink, d *dialer)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		f := newFakeLink()
		d := testDialer(f)
		defer d.close()
		test(t, f, d)
	})
}

// TestDialerRetriesForLife: a configured peer that is away is tried on the
// manual schedule until it is there, and again when its session ends.
func TestDialerRetriesForLife(t *testing.T) {
	inBubble(t, func(t *testing.T, f *fakeLink, d *dialer) {
		tgt := mustTarget(t, "10.0.0.1:9001")
		d.start(staticSource{targets: []target{tgt}, delay: 3 * time.Second})
		time.Sleep(2 * time.Second)
		if n := f.count(tgt.Key); n != 0 {
			t.Errorf("%d dials before the delay", n)
		}
		time.Sleep(time.Second + 100*time.Second)
		// At 0, 2.5, 7.5, 17.5, then every 12 s up to 89.5; the next is at 101.5.
		if n := f.count(tgt.Key); n != 10 {
			t.Errorf("%d dials in 100 s, want 10", n)
		}
		f.answer(tgt, "B", nil)
		time.Sleep(time.Hour)
		if n := f.count(tgt.Key); n != 11 {
			t.Errorf("%d dials, want one more that succeeds and then none", n)
		}
		f.drop("B")
		d.sessionEnded(tgt.Key, nil)
		synctest.Wait()
		if n := f.count(tgt.Key); n != 12 {
			t.Errorf("%d dials after the session ended, want another at once", n)
		}
	})
}

// TestPatienceGrows: where nobody answers in time the path may be slow, and the
// next attempts wait longer; a refusal is one at once.
func TestPatienceGrows(t *testing.T) {
	inBubble(t, func(t *testing.T, f *fakeLink, d *dialer) {
		silent, refused := mustTarget(t, "10.0.0.1:9001"), mustTarget(t, "10.0.0.1:9002")
		f.answer(silent, "", context.DeadlineExceeded)
		d.start(staticSource{targets: []target{silent}})
		time.Sleep(time.Minute)
		want := []time.Duration{1, 2, 3, 4, 4}
		got := f.patiences()
		for i := range want {
			if got[i] != want[i]*answerTime {
				t.Errorf("attempt %d has a patience of %s", i, got[i])
			}
		}
		d.offer(found{target: refused, from: fromStatic})
		time.Sleep(time.Minute)
		if n, _ := d.guard.failures(refused.Key); n < 5 || d.patience(refused.Key) != answerTime {
			t.Errorf("after %d refusals the patience is %s", n, d.patience(refused.Key))
		}
	})
}

// TestDialerPacesShortSessions: a peer that accepts and drops us at once is
// dialled with growing pauses, not in a loop.
func TestDialerPacesShortSessions(t *testing.T) {
	inBubble(t, func(t *testing.T, f *fakeLink, d *dialer) {
		tgt := mustTarget(t, "10.0.0.1:9001")
		f.answers[tgt.Key] = func() (peer.ID, error) {
			time.AfterFunc(10*time.Millisecond, func() {
				f.drop("B")
				d.sessionEnded(tgt.Key, nil)
			})
			return "B", nil
		}
		d.start(staticSource{targets: []target{tgt}})
		time.Sleep(9 * time.Second)
		if n := f.count(tgt.Key); n > 11 {
			t.Errorf("%d dials in 9 s: closer than the window of %s", n, dedupeWindow)
		}
	})
}

// TestConnectSharesOneDial: many who ask for one endpoint cause one dial and get
// one answer.
func TestConnectSharesOneDial(t *testing.T) {
	inBubble(t, func(t *testing.T, f *fakeLink, d *dialer) {
		f.took = time.Second
		d.start()
		tgt := mustTarget(t, "10.0.0.1:9001")
		f.answer(tgt, "B", nil)
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() {
				if id, err := d.connect(t.Context(), tgt); id != "B" || err != nil {
					t.Errorf("connect: %q, %v", id, err)
				}
			})
		}
		wg.Wait()
		if n := f.count(tgt.Key); n != 1 {
			t.Errorf("%d dials, want 1", n)
		}
		if c, _ := d.guard.snapshot(); c.ConnectAttempts != 1 || c.ConnectDeduped != 19 {
			t.Errorf("counters %+v", c)
		}
		// What answered once is kept.
		f.drop("B")
		d.sessionEnded(tgt.Key, nil)
		time.Sleep(time.Minute)
		if n := f.count(tgt.Key); n != 2 {
			t.Errorf("%d dials, want a second to keep the session", n)
		}
	})
}

// TestConnectToDeadPort: it fails within 5 s, however often it is repeated, and
// repeating it does not storm the endpoint.
func TestConnectToDeadPort(t *testing.T) {
	inBubble(t, func(t *testing.T, f *fakeLink, d *dialer) {
		f.took = 20 * time.Millisecond
		d.start()
		tgt := mustTarget(t, "10.0.0.1:9001")
		began := time.Now()
		for time.Since(began) < time.Minute {
			start := time.Now()
			_, err := d.connect(t.Context(), tgt)
			if took := time.Since(start); err == nil || took > 5*time.Second {
				t.Fatalf("connect to a dead port: %v after %s", err, took)
			}
			if !errors.Is(err, errRefused) {
				t.Fatalf("the reason is lost: %v", err)
			}
			time.Sleep(100 * time.Millisecond)
		}
		if n := f.count(tgt.Key); n > 8 {
			t.Errorf("%d dials in a minute", n)
		}
		for _, p := range f.patiences() {
			if p < leastTime || p > answerTime {
				t.Errorf("an attempt with a patience of %s", p)
			}
		}
	})
}

// TestConnectToLostPeer: a session whose peer is lost without a word is no answer,
// nor are more than 5 s; one that ends when its peer is asked is made again.
func TestConnectToLostPeer(t *testing.T) {
	inBubble(t, func(t *testing.T, f *fakeLink, d *dialer) {
		d.start()
		tgt := mustTarget(t, "10.0.0.1:9001")
		f.answer(tgt, "B", nil)
		connect := func(dials int) (peer.ID, error) {
			t.Helper()
			began := time.Now()
			id, err := d.connect(t.Context(), tgt)
			if took := time.Since(began); took > 5*time.Second {
				t.Errorf("connect took %s", took)
			}
			if n := f.count(tgt.Key); n != dials {
				t.Errorf("%d dials, want %d", n, dials)
			}
			return id, err
		}
		for range 2 {
			if id, err := connect(1); id != "B" || err != nil {
				t.Fatalf("a peer that is there: %q, %v", id, err)
			}
			time.Sleep(time.Minute)
		}
		f.presence = func(_ peer.ID, by time.Time) error {
			time.Sleep(time.Until(by))
			return context.DeadlineExceeded
		}
		if _, err := connect(1); !isTimeout(err) {
			t.Errorf("a peer that is silent: %v", err)
		}
		f.presence = func(id peer.ID, _ time.Time) error {
			f.drop(id)
			return errEnded
		}
		if id, err := connect(2); id != "B" || err != nil {
			t.Errorf("a peer that is back: %q, %v", id, err)
		}
	})
}

func TestDialsAreBounded(t *testing.T) {
	inBubble(t, func(t *testing.T, f *fakeLink, d *dialer) {
		f.took = time.Second
		var targets []target
		for _, port := range []string{"1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12"} {
			targets = append(targets, mustTarget(t, "10.0.0.1:"+port))
		}
		d.start(staticSource{targets: targets})
		time.Sleep(30 * time.Second)
		d.close()
		if n := f.mostAtOnce(); n != maxDials {
			t.Errorf("%d dials at one time, want %d", n, maxDials)
		}
		for _, tgt := range targets {
			if f.count(tgt.Key) == 0 {
				t.Errorf("%s was never dialled", tgt.Key)
			}
		}
	})
}

// TestHeldPeerIsLeftAlone: after Disconnect nothing dials the peer until a user
// asks for it again.
func TestHeldPeerIsLeftAlone(t *testing.T) {
	inBubble(t, func(t *testing.T, f *fakeLink, d *dialer) {
		tgt := mustTarget(t, "10.0.0.1:9001")
		f.answer(tgt, "B", nil)
		d.start(staticSource{targets: []target{tgt}})
		time.Sleep(time.Second)
		f.mu.Lock()
		f.held["B"] = true
		delete(f.connected, "B")
		f.mu.Unlock()
		d.sessionEnded(tgt.Key, nil)
		time.Sleep(time.Hour)
		if n := f.count(tgt.Key); n != 1 {
			t.Errorf("%d dials, want 1", n)
		}
		if _, err := d.connect(t.Context(), tgt); err != nil {
			t.Error(err)
		}
		f.drop("B")
		d.sessionEnded(tgt.Key, nil)
		time.Sleep(time.Minute)
		if n := f.count(tgt.Key); n != 3 {
			t.Errorf("%d dials, want the user's and then an automatic one", n)
		}
	})
}

// TestPartedPeerIsTriedLater: a hold that ends by itself is kept to the moment.
func TestPartedPeerIsTriedLater(t *testing.T) {
	inBubble(t, func(t *testing.T, f *fakeLink, d *dialer) {
		tgt := mustTarget(t, "10.0.0.1:9001")
		f.answer(tgt, "B", nil)
		d.start(staticSource{targets: []target{tgt}})
		time.Sleep(time.Second)
		f.mu.Lock()
		f.until["B"] = time.Now().Add(time.Hour)
		delete(f.connected, "B")
		f.mu.Unlock()
		d.sessionEnded(tgt.Key, nil)
		time.Sleep(time.Hour - time.Second)
		if n := f.count(tgt.Key); n != 1 {
			t.Errorf("%d dials, want 1", n)
		}
		time.Sleep(2 * time.Second)
		if n := f.count(tgt.Key); n != 2 {
			t.Errorf("%d dials after the hold, want 2", n)
		}
	})
}

// TestDialerCloses: attempts and callers that wait end with the dialer.
func TestDialerCloses(t *testing.T) {
	inBubble(t, func(t *testing.T, f *fakeLink, d *dialer) {
		f.took = time.Hour
		d.start()
		result := make(chan error)
		go func() {
			_, err := d.connect(t.Context(), mustTarget(t, "10.0.0.1:9001"))
			result <- err
		}()
		synctest.Wait()
		d.close()
		if err := <-result; err == nil {
			t.Error("connect succeeded on a closed dialer")
		}
		if _, err := d.connect(t.Context(), mustTarget(t, "10.0.0.1:9002")); !errors.Is(err, ErrClosed) {
			t.Errorf("connect after close: %v", err)
		}
	})
}

// TestStraysAreForgotten: addresses that never worked and that only Connect named
// leave the status again; configured ones stay.
func TestStraysAreForgotten(t *testing.T) {
	inBubble(t, func(t *testing.T, f *fakeLink, d *dialer) {
		static := mustTarget(t, "10.0.0.1:9001")
		d.start(staticSource{targets: []target{static}})
		list := func() (keys []string) {
			_, all := d.guard.snapshot()
			for _, e := range all {
				keys = append(keys, e.Endpoint)
			}
			return keys
		}
		for i := range maxStrays + 20 {
			if _, err := d.connect(t.Context(), mustTarget(t, fmt.Sprintf("10.0.0.2:%d", i+1))); err == nil {
				t.Fatal("connected")
			}
			time.Sleep(time.Second)
		}
		if keys := list(); len(keys) != maxStrays+1 || slices.Contains(keys, "tcp://10.0.0.2:1") || !slices.Contains(keys, static.Key) {
			t.Errorf("%d endpoints: %v", len(keys), keys)
		}
		_, states := d.guard.snapshot()
		d.describe(states)
		for _, e := range states {
			if e.Next.IsZero() == (e.Endpoint == static.Key) {
				t.Errorf("the next attempt at %s: %v, sources %v", e.Endpoint, e.Next, e.Sources)
			}
		}
		last := fmt.Sprintf("tcp://10.0.0.2:%d", maxStrays+20)
		f.mu.Lock()
		f.addrs[last] = true
		f.mu.Unlock()
		d.kick()
		synctest.Wait()
		if slices.Contains(list(), last) {
			t.Error("an address of a connected peer shows as failing")
		}
		time.Sleep(forgetAfter + 2*pruneEvery)
		if keys := list(); !slices.Equal(keys, []string{static.Key}) {
			t.Errorf("endpoints after a while: %v", keys)
		}
	})
}

// TestConnectedPeerHasNoFailures: when the peer of an endpoint that failed is
// connected, because it dialled, nothing is said against the endpoint.
func TestConnectedPeerHasNoFailures(t *testing.T) {
	inBubble(t, func(t *testing.T, f *fakeLink, d *dialer) {
		tgt := mustTarget(t, "10.0.0.1:9001")
		f.answer(tgt, "B", nil)
		d.start(staticSource{targets: []target{tgt}})
		synctest.Wait()
		f.drop("B")
		f.mu.Lock()
		delete(f.answers, tgt.Key)
		f.mu.Unlock()
		d.sessionEnded(tgt.Key, nil)
		time.Sleep(2 * time.Second)
		if n, _ := d.guard.failures(tgt.Key); n == 0 {
			t.Fatal("no failure to begin with")
		}
		f.mu.Lock()
		f.connected["B"] = true
		f.mu.Unlock()
		d.kick()
		synctest.Wait()
		if n, err := d.guard.failures(tgt.Key); n != 0 || err != nil {
			t.Errorf("%d failures of a connected peer: %v", n, err)
		}
	})
}
