package replicator_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"vixp2p/replication"
	"vixp2p/replication/memlog"
	"vixp2p/replication/replicator"
)

// replicated starts a WaitReplicated; the channel has its answer.
func (n *node) replicated(ctx context.Context, at replication.Appended, k int) <-chan error {
	got := make(chan error, 1)
	go func() {
		got <- n.r.WaitReplicated(ctx, space, replication.Dot{Log: at.First.Log, Seq: at.Pos.Seq}, k)
	}()
	return got
}

// still checks, in a bubble, that an answer has not come.
func still(t *testing.T, got <-chan error) {
	t.Helper()
	synctest.Wait()
	select {
	case err := <-got:
		t.Fatalf("the wait is over too early: %v", err)
	default:
	}
}

// gated is a store that keeps the answers for runs back, and the runs with them.
type gated struct {
	*memlog.Store
	gate chan struct{} // a run goes to the store for each token

	mu   sync.Mutex    // guards below
	last chan struct{} // closed when the last run has gone through; nil before the first
}

func (g *gated) Ingest(source uint64, run *replication.VerifiedRun, done func(replication.IngestResult)) {
	mine := make(chan struct{})
	g.mu.Lock()
	before := g.last
	g.last = mine
	g.mu.Unlock()
	go func() {
		defer close(mine)
		if before != nil {
			<-before
		}
		<-g.gate
		g.Store.Ingest(source, run, done)
	}()
}

// gated starts the node again with a gate before its store, which holds every run back
// for a token; so many can be given in advance.
func (n *node) gated(tokens int) *gated {
	n.t.Helper()
	g := &gated{Store: n.store.(*memlog.Store), gate: make(chan struct{}, tokens)}
	if err := n.r.Close(context.Background()); err != nil {
		n.t.Fatal(err)
	}
	n.start(g)
	return g
}

func TestReceiptOnlyAfterThePeersCommit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := newNode(t, "A"), newNode(t, "B")
		gate := b.gated(10)
		connect(a, b)
		synctest.Wait()
		at := a.append(1, 10)
		got := a.replicated(t.Context(), at, 1)
		time.Sleep(time.Minute) // pings, retries, all but a commit
		still(t, got)
		for range 10 {
			gate.gate <- struct{}{}
		}
		if err := <-got; err != nil {
			t.Fatal(err)
		}
		for range 10 {
			select {
			case gate.gate <- struct{}{}:
			default:
			}
		}
	})
}

func TestReceiptsCountMembersNotSessions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b, c := newNode(t, "A"), newNode(t, "B"), newNode(t, "C")
		connect(a, b)
		connect(a, b) // briefly two sessions with one member
		at := a.append(1, 10)
		if err := <-a.replicated(t.Context(), at, 1); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		var short *replicator.NotReplicatedError
		err := <-a.replicated(ctx, at, 2)
		if !errors.As(err, &short) || len(short.Acked) != 1 || short.Acked[0] != b.key() || !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("two sessions of one member gave %v", err)
		}
		got := a.replicated(t.Context(), at, 2)
		still(t, got)
		connect(a, c)
		if err := <-got; err != nil {
			t.Fatal(err)
		}
	})
}

func TestReceiptsOutliveTheSessionAndTheNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := newNode(t, "A"), newNode(t, "B")
		pa, _, c := connect(a, b)
		at := a.append(1, 10)
		if err := <-a.replicated(t.Context(), at, 1); err != nil {
			t.Fatal(err)
		}
		c.cut()
		<-pa.Done()
		if err := <-a.replicated(t.Context(), at, 1); err != nil {
			t.Errorf("after the session: %v", err)
		}
		later := a.append(1, 10)
		got := a.replicated(t.Context(), later, 1)
		still(t, got)
		a.close()
		if err := <-got; !errors.Is(err, replication.ErrClosed) {
			t.Errorf("a wait at the close of the node: %v", err)
		}
		a.open()
		if err := <-a.replicated(t.Context(), at, 1); err != nil {
			t.Errorf("after a restart: %v", err)
		}
		still(t, a.replicated(t.Context(), later, 1))
	})
}

func TestNewInstanceVoidsReceipts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b, c := newNode(t, "A"), newNode(t, "B"), newNode(t, "C")
		pa, pb, _ := connect(a, b)
		at := a.append(1, 10)
		if err := <-a.replicated(t.Context(), at, 1); err != nil {
			t.Fatal(err)
		}
		got := a.replicated(t.Context(), at, 2)
		still(t, got)
		pa.Close(replication.CodeDisconnect, "")
		<-pa.Done()
		<-pb.Done()
		// B comes back with an empty disk: the same key, another instance. It takes
		// nothing for now.
		b.close()
		b.disk, b.seed = &memlog.Disk{}, 99
		b.open()
		gate := b.gated(100)
		connect(a, b)
		synctest.Wait()
		connect(a, c)
		still(t, got) // C alone: the old B's word does not count
		still(t, a.replicated(t.Context(), at, 2))
		for range 20 {
			gate.gate <- struct{}{}
		}
		if err := <-got; err != nil {
			t.Error(err)
		}
	})
}

func TestAdmittedLossUncountsReceipts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newNode(t, "A")
		b := play(a, "B")
		b.settle()
		at := a.append(1, 10)
		hear[*replication.WalPush](b)
		b.ack(at.First.Log, at.Pos)
		if err := <-a.replicated(t.Context(), at, 1); err != nil {
			t.Fatal(err)
		}
		got := a.replicated(t.Context(), at, 2)
		still(t, got)
		b.c.cut()
		<-b.peer.Done()
		if err := <-a.replicated(t.Context(), at, 1); err != nil {
			t.Fatalf("while it is away: %v", err)
		}
		// The same instance comes back and holds nothing.
		b = play(a, "B")
		if err := <-a.replicated(t.Context(), at, 1); err != nil {
			t.Fatalf("before it has said anything: %v", err)
		}
		b.settle()
		synctest.Wait()
		// Another member's word is not the second one from here on.
		c := play(a, "C")
		c.settle(replication.FrontierEntry{Log: at.First.Log, Pos: at.Pos})
		still(t, got)
		b.settle() // it is asked once more, to be sure, before the loss is told
		still(t, got)
		c.peer.Close(replication.CodeDisconnect, "")
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		var short *replicator.NotReplicatedError
		if err := <-a.replicated(ctx, at, 2); !errors.As(err, &short) || len(short.Acked) != 1 || short.Acked[0] != c.peer.Info().Key {
			t.Errorf("after the loss: %v", err)
		}
		if losses := a.r.Counters().DataLosses; losses != 1 {
			t.Errorf("%d losses counted", losses)
		}
		b.ack(at.First.Log, at.Pos)
		if err := <-got; err != nil {
			t.Error(err)
		}
	})
}

// slowEnd is a connection whose end is heard late.
type slowEnd struct {
	*conn
	heard chan struct{}
}

func (c slowEnd) Read() (replication.Message, func(), error) {
	m, release, err := c.conn.Read()
	if err != nil {
		<-c.heard
	}
	return m, release, err
}

// TestWaitThatBeginsWhileASessionEnds: a session that takes no questions any more and
// has not ended is no answer, and what its member had stated counts once it has.
func TestWaitThatBeginsWhileASessionEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newNode(t, "A")
		ca, cb := newConns()
		ca.account = a.r.Budget().Open()
		end := slowEnd{ca, make(chan struct{})}
		p, err := a.r.Attach(replicator.PeerInfo{ID: "B", Key: replication.OriginKey{'B'}, Instance: replication.Instance{'B'}}, end)
		if err != nil {
			t.Fatal(err)
		}
		b := &script{t: t, peer: p, c: cb, account: ca.account}
		b.settle()
		at := a.append(1, 10)
		hear[*replication.WalPush](b)
		b.ack(at.First.Log, at.Pos)
		if err := <-a.replicated(t.Context(), at, 1); err != nil {
			t.Fatal(err)
		}
		p.Close(replication.CodeDisconnect, "")
		synctest.Wait()
		got := a.replicated(t.Context(), at, 1)
		still(t, got)
		close(end.heard)
		synctest.Wait()
		select {
		case err := <-got:
			if err != nil {
				t.Error(err)
			}
		default:
			t.Error("what B had stated does not count after its session")
		}
	})
}

// The new instance voids the old one's word by coming, before it says a thing.
func TestNewInstanceVoidsReceiptsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newNode(t, "A")
		b := play(a, "B")
		b.settle()
		at := a.append(1, 10)
		hear[*replication.WalPush](b)
		b.ack(at.First.Log, at.Pos)
		got := a.replicated(t.Context(), at, 2)
		still(t, got)
		b.c.cut()
		<-b.peer.Done()
		play(a, "B", func(info *replicator.PeerInfo) { info.Instance[1]++ })
		c := play(a, "C")
		c.settle(replication.FrontierEntry{Log: at.First.Log, Pos: at.Pos})
		still(t, got)
		time.Sleep(time.Second) // until what C has stated is in its cursor
		// A restart does not bring the old word back.
		a.restart()
		still(t, a.replicated(t.Context(), at, 2))
		if err := <-a.replicated(t.Context(), at, 1); err != nil {
			t.Error(err)
		}
	})
}

// A peer that asks with a frontier equal to ours has stated it.
func TestEqualQuestionIsAReceipt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newNode(t, "A")
		at := a.append(1, 10)
		got := a.replicated(t.Context(), at, 1)
		b := play(a, "B")
		still(t, got)
		b.say(&replication.FrontierDigest{Space: space, Round: 1, Digest: a.digest(), Logs: 1})
		if err := <-got; err != nil {
			t.Error(err)
		}
	})
}

// What a peer states of another branch is not a receipt for ours.
func TestOtherBranchIsNoReceipt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newNode(t, "A")
		first, second := a.append(1, 10), a.append(1, 10)
		other := second.Pos
		other.Hash[0] ^= 1
		b := play(a, "B")
		b.settle(replication.FrontierEntry{Log: first.First.Log, Pos: other})
		got := a.replicated(t.Context(), second, 1)
		still(t, got)
		b.c.cut()
		<-b.peer.Done()
		still(t, got)
		still(t, a.replicated(t.Context(), second, 1))
	})
}

func TestWaitReplicatedOfWhatIsNotHere(t *testing.T) {
	a := newNode(t, "A")
	at := a.append(1, 10)
	for _, dot := range []replication.Dot{{Log: replication.LogID{1}, Seq: 1}, {Log: at.First.Log, Seq: 2}} {
		if err := a.r.WaitReplicated(within(t), space, dot, 1); !errors.Is(err, replication.ErrUnknownLog) {
			t.Errorf("a wait for %v: %v", dot, err)
		}
	}
	if err := a.r.WaitReplicated(within(t), space, at.First, 0); err != nil {
		t.Errorf("a wait for nobody: %v", err)
	}
}

// A peer that repeats old statements all the time, so that the session is asked
// at every moment, also when it has not been told of a new write yet.
func TestNoReceiptFromOldStatements(t *testing.T) {
	a := newNode(t, "A")
	b := play(a, "B")
	b.settle()
	b.c.out.set(func() { b.c.out.limit = 200 })
	at := a.append(1, 10)
	hear[*replication.WalPush](b)
	b.ack(at.First.Log, at.Pos)
	for range 300 {
		stop := make(chan struct{})
		old := &replication.WalAck{Entries: []replication.AckEntry{{Space: space, Log: at.First.Log, Pos: at.Pos}}}
		flood := make(chan struct{})
		go func() {
			defer close(flood)
			for {
				select {
				case <-stop:
					return
				default:
					b.say(old)
				}
			}
		}()
		at = a.append(1, 10)
		got := a.replicated(within(t), at, 1)
		for hear[*replication.WalPush](b).End != at.Pos {
			continue
		}
		close(stop)
		<-flood
		select {
		case err := <-got:
			t.Fatalf("a receipt that nobody gave: %v", err)
		default:
		}
		b.ack(at.First.Log, at.Pos)
		if err := <-got; err != nil {
			t.Fatal(err)
		}
	}
}

// Many writers wait at once while the session is busy: nobody gets a receipt
// before the peer has the write.
func TestReceiptsAreTrueUnderLoad(t *testing.T) {
	a, b := newNode(t, "A"), newNode(t, "B")
	connect(a, b)
	if err := a.r.WaitSynced(within(t), 1, nil); err == nil {
		t.Log("in step before the load")
	}
	errs := make(chan error, 8)
	for range cap(errs) {
		go func() {
			for range 200 {
				at, err := a.store.Append(t.Context(), replication.Batch{Space: space, Ops: makeOps(1, 10)})
				if err == nil {
					err = a.r.WaitReplicated(within(t), space, replication.Dot{Log: at.First.Log, Seq: at.Pos.Seq}, 1)
				}
				if err == nil && b.tip(at.First.Log) < at.Pos.Seq {
					err = errors.New("a receipt for what the peer does not hold")
				}
				if err != nil {
					errs <- err
					return
				}
			}
			errs <- nil
		}()
	}
	for range cap(errs) {
		if err := <-errs; err != nil {
			t.Fatal(err)
		}
	}
}
