package wal

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	r "vixp2p/replication"
	"vixp2p/replication/logtest"
)

// slowDisk holds each transaction on its way to the disk until it is let go.
type slowDisk struct {
	t     *testing.T
	begun chan struct{}
	let   chan error
	once  sync.Once
}

func newSlowDisk(t *testing.T) *slowDisk {
	return &slowDisk{t: t, begun: make(chan struct{}, 100), let: make(chan error)}
}

// into puts it before a store.
func (d *slowDisk) into(o *Options) {
	o.onWrite = func() error {
		d.begun <- struct{}{}
		return <-d.let
	}
}

// open opens a store with it; what the open commits is let go.
func (d *slowDisk) open(dir string, mod ...func(*Options)) *Store {
	d.t.Helper()
	stop := make(chan struct{})
	var pass sync.WaitGroup
	pass.Go(func() {
		for {
			select {
			case d.let <- nil:
			case <-stop:
				return
			}
		}
	})
	s := openAt(d.t, dir, "a", append(mod, d.into)...)
	close(stop)
	pass.Wait()
	for len(d.begun) > 0 {
		<-d.begun
	}
	d.t.Cleanup(d.letAll) // before the store is closed
	return s
}

// letAll lets everything go from now on.
func (d *slowDisk) letAll() { d.once.Do(func() { close(d.let) }) }

// waitFor waits until what waits for the committer is as wanted.
func waitFor(t *testing.T, s *Store, what string, wanted func(waits) bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !wanted(s.queue.waiting()); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: %+v", what, s.queue.waiting())
		}
	}
}

// taken waits until nothing waits for the committer.
func taken(t *testing.T, s *Store) {
	t.Helper()
	waitFor(t, s, "all is staged", func(w waits) bool { return !w.any() })
}

// queueAppend has a batch of testSpace wait for the committer.
func queueAppend(t *testing.T, s *Store, res r.Resolver) *appendReq {
	t.Helper()
	return queueBatch(t, s, r.Batch{Space: testSpace, Ops: []r.Op{put("k", "v")}, Resolver: res})
}

func queueBatch(t *testing.T, s *Store, b r.Batch) *appendReq {
	t.Helper()
	req, err := newAppend(b)
	if err == nil {
		err = s.queue.pushLocal(t.Context(), req)
	}
	if err != nil {
		t.Fatal(err)
	}
	return req
}

// runOf is the run of a store's log that follows a position.
func runOf(t *testing.T, s *Store, log r.LogID, after r.Position) *r.VerifiedRun {
	t.Helper()
	l, _ := s.Log(log)
	run, err := s.ReadRun(log, after, 0)
	if err != nil {
		t.Fatal(err)
	}
	v, err := r.VerifyRun(r.RunSource{Network: testNetwork, Log: log, Origin: &l.Origin, Space: l.Space, From: after}, run.Data)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// cloned opens a store that somebody else goes on with as well: log is what it writes,
// theirs the run of what a copy of its directory wrote there.
func cloned(t *testing.T, disk *slowDisk) (s *Store, log r.LogID, theirs *r.VerifiedRun) {
	t.Helper()
	dir, clone := t.TempDir(), t.TempDir()
	s = openAt(t, dir, "a", sameFiles)
	log = mustAppend(t, s, put("k", "1")).First.Log
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	takeImage(t, dir).write(t, clone)
	c := openAt(t, clone, "a", sameFiles)
	mustAppend(t, c, put("k", "2"))
	s = disk.open(dir, sameFiles, func(o *Options) { o.eager = true })
	l, _ := s.Log(log)
	return s, log, runOf(t, c, log, l.Tip)
}

// big is a writer of n blocks of more than aheadBytes each.
func big(seed uint64, n int) *logtest.Writer {
	w := logtest.NewWriter(testNetwork, testSpace, seed)
	for i := range n {
		noise := make([]byte, aheadBytes+1)
		rng := rand.NewChaCha8([32]byte{byte(seed), byte(i)})
		_, _ = rng.Read(noise)
		w.Add(r.Op{Kind: r.KindPut, Key: []byte("k"), Payload: noise})
	}
	return w
}

// answers collects what becomes of runs.
type answers chan r.IngestResult

func (a answers) ingest(s *Store, source uint64, run *r.VerifiedRun) {
	s.Ingest(source, run, func(res r.IngestResult) { a <- res })
}

func (a answers) none(t *testing.T, when string) {
	t.Helper()
	if len(a) > 0 {
		t.Fatalf("%s: %+v", when, <-a)
	}
}

// TestNextTransactionIsStagedMeanwhile: while one transaction is on its way to the
// disk the next one takes what waits, the continuation of the same log among it; its
// answer comes with its own commit.
func TestNextTransactionIsStagedMeanwhile(t *testing.T) {
	disk := newSlowDisk(t)
	s := disk.open(t.TempDir())
	w, other := big(3, 3), big(4, 1)
	got := make(answers, 10)
	got.ingest(s, 1, w.Run(t, 0, 1))
	<-disk.begun
	got.ingest(s, 1, w.Run(t, 1, 2))
	got.ingest(s, 2, other.Run(t, 0, 1))
	taken(t, s)
	appended := make(chan r.Appended, 1)
	go func() {
		a, err := s.Append(t.Context(), r.Batch{Space: testSpace, Ops: []r.Op{put("k", "v")}})
		if err != nil {
			t.Error(err)
		}
		appended <- a
	}()
	waitFor(t, s, "the append waits", func(w waits) bool { return w.locals == 1 })
	got.none(t, "before the disk has anything")
	if l, ok := s.Log(w.Log); ok {
		t.Fatalf("visible before it is durable: %+v", l)
	}
	disk.let <- nil
	if res := <-got; res.Code != r.Committed || res.Tip != w.Pos(1) {
		t.Fatalf("the first: %+v", res)
	}
	<-disk.begun
	if w := s.queue.waiting(); w.any() {
		t.Fatalf("a small append does not go with what is staged: %+v", w)
	}
	got.ingest(s, 1, w.Run(t, 2, 3)) // a third one, on top of the second
	taken(t, s)
	got.none(t, "while the second is on its way")
	if l, _ := s.Log(w.Log); l.Tip != w.Pos(1) {
		t.Fatalf("%+v", l)
	}
	disk.letAll()
	for range 3 {
		if res := <-got; res.Code != r.Committed {
			t.Errorf("%+v", res)
		}
	}
	if a := <-appended; a.First.Seq != 1 {
		t.Errorf("%+v", a)
	}
	if l, _ := s.Log(w.Log); l.Tip != w.Pos(3) {
		t.Errorf("%+v", l)
	}
	mustBeWhole(t, s)
}

// TestAnswerDoesNotWaitForTheNext: what is durable is answered while the next
// transaction is on its way, also if nothing can be staged on top of that.
func TestAnswerDoesNotWaitForTheNext(t *testing.T) {
	disk := newSlowDisk(t)
	s := disk.open(t.TempDir())
	w, other := big(3, 1), big(4, 2)
	first, second := make(answers, 1), make(answers, 1)
	first.ingest(s, 1, w.Run(t, 0, 1))
	<-disk.begun
	second.ingest(s, 2, other.RunTail(t, 0, 1, 2))
	taken(t, s)
	disk.let <- nil
	<-disk.begun
	select {
	case res := <-first:
		if res.Code != r.Committed {
			t.Errorf("%+v", res)
		}
	case <-time.After(20 * time.Second):
		t.Error("no answer before the next transaction is durable")
	}
	second.none(t, "before it is durable")
	disk.letAll()
	if res := <-second; res.Code != r.Committed || res.Tip != other.Pos(1) {
		t.Errorf("%+v", res)
	}
	mustBeWhole(t, s)
}

// TestStagedOnWhatFails: what was staged on top of a transaction that the disk refuses
// is refused too, and so is a repetition of it.
func TestStagedOnWhatFails(t *testing.T) {
	dir := t.TempDir()
	disk := newSlowDisk(t)
	s := disk.open(dir)
	w := big(3, 2)
	got := make(answers, 10)
	got.ingest(s, 1, w.Run(t, 0, 1))
	<-disk.begun
	got.ingest(s, 1, w.Run(t, 1, 2))
	taken(t, s)
	appended := make(chan error, 1)
	go func() {
		_, err := s.Append(context.Background(), r.Batch{Space: testSpace, Ops: []r.Op{put("k", "v")}})
		appended <- err
	}()
	waitFor(t, s, "the append waits", func(w waits) bool { return w.locals == 1 })
	got.ingest(s, 2, w.Run(t, 0, 1)) // is compared with what is stored, so it waits
	disk.let <- errors.New("the disk is gone")
	for range 3 {
		if res := <-got; res.Code != r.Refused || res.Err == nil || res.Tip.Seq != 0 || !strings.Contains(res.Err.Error(), "the disk is gone") {
			t.Errorf("%+v", res)
		}
	}
	if err := <-appended; err == nil || !strings.Contains(err.Error(), "the disk is gone") {
		t.Errorf("%v", err)
	}
	if len(s.Logs(testSpace)) > 0 || s.Head() != 0 {
		t.Errorf("visible: %+v", s.Logs(testSpace))
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = openAt(t, dir, "a")
	for k := range 2 {
		if res := ingest(s, w.Run(t, k, k+1)); res.Code != r.Committed {
			t.Errorf("run %d after the next open: %+v", k, res)
		}
	}
	if a := mustAppend(t, s, put("k", "v")); a.First.Seq != 1 {
		t.Errorf("%+v", a)
	}
	mustBeWhole(t, s)
}

// TestOtherWritesAreNotOvertaken: a write that must see everything before it waits for
// what is on its way, and what comes after waits for it.
func TestOtherWritesAreNotOvertaken(t *testing.T) {
	disk := newSlowDisk(t)
	s := disk.open(t.TempDir(), func(o *Options) { o.eager = true })
	w := big(3, 2)
	got := make(answers, 10)
	got.ingest(s, 1, w.Run(t, 0, 1))
	<-disk.begun
	saw := make(chan r.Position, 1)
	control := make(chan error, 1)
	go func() {
		control <- s.control(context.Background(), func(tx *tx) error {
			saw <- tx.log(w.Log).tip
			return nil
		})
	}()
	waitFor(t, s, "the other write waits", func(w waits) bool { return w.others })
	got.ingest(s, 1, w.Run(t, 1, 2))
	disk.let <- nil
	<-got
	if tip := <-saw; tip != w.Pos(1) {
		t.Errorf("it saw the log at %d", tip.Seq)
	}
	disk.letAll()
	if err := <-control; err != nil {
		t.Error(err)
	}
	if res := <-got; res.Code != r.Committed || res.Tip != w.Pos(2) {
		t.Errorf("%+v", res)
	}
	mustBeWhole(t, s)
}

// TestBesideWhatIsOnItsWay: what belongs to a log that is on its way to the disk is
// decided as it would be after it.
func TestBesideWhatIsOnItsWay(t *testing.T) {
	t.Run("a repetition and another branch", func(t *testing.T) {
		disk := newSlowDisk(t)
		s := disk.open(t.TempDir(), func(o *Options) { o.eager = true })
		w := logtest.NewWriter(testNetwork, testSpace, 3).AddMany(4)
		rival := w.Fork(2)
		rival.Add(put("k", "another branch"))
		got := make(answers, 10)
		got.ingest(s, 1, w.Run(t, 0, 4))
		<-disk.begun
		got.ingest(s, 2, w.Run(t, 0, 2))
		got.ingest(s, 2, rival.Run(t, 2, 3))
		disk.letAll()
		for i, want := range []r.IngestCode{r.Committed, r.Duplicate, r.Forked} {
			if res := <-got; res.Code != want || want == r.Forked && res.Proof == nil {
				t.Errorf("%d: %+v", i, res)
			}
		}
		mustBeWhole(t, s)
	})
	t.Run("a log with a cut begins", func(t *testing.T) {
		for _, failure := range []error{nil, errors.New("the disk is gone")} {
			disk := newSlowDisk(t)
			s := disk.open(t.TempDir(), func(o *Options) { o.eager = true })
			w := logtest.NewWriter(testNetwork, testSpace, 3).AddMany(2)
			mustRestrict(t, s, cutLog(w.Log, w.Pos(1)))
			got := make(answers, 10)
			got.ingest(s, 1, w.Run(t, 0, 1))
			<-disk.begun
			got.ingest(s, 1, w.Run(t, 1, 2))
			taken(t, s)
			disk.let <- failure
			code, tip := r.Committed, w.Pos(1)
			if failure != nil {
				code, tip = r.Refused, r.Position{}
			}
			if res := <-got; res.Code != code || res.Tip != tip {
				t.Errorf("%v: before the cut: %+v", failure, res)
			}
			if res := <-got; res.Code != r.Refused || res.Tip != tip {
				t.Errorf("%v: beyond the cut: %+v", failure, res)
			}
		}
	})
	t.Run("the epoch ends", func(t *testing.T) {
		disk := newSlowDisk(t)
		s, old, theirs := cloned(t, disk)
		got := make(answers, 1)
		got.ingest(s, 1, theirs)
		<-disk.begun
		appended := make(chan r.Appended, 1)
		go func() {
			a, err := s.Append(t.Context(), r.Batch{Space: testSpace, Ops: []r.Op{put("k", "3")}})
			if err != nil {
				t.Error(err)
			}
			appended <- a
		}()
		waitFor(t, s, "the append waits", func(w waits) bool { return w.locals > 0 || len(disk.begun) > 0 })
		disk.letAll()
		if res := <-got; res.Code != r.Committed {
			t.Errorf("%+v", res)
		}
		if a := <-appended; a.First.Log == old || a.First.Seq != 1 {
			t.Errorf("%+v goes on in the clone's log", a)
		}
		mustBeWhole(t, s)
	})
	t.Run("the epoch ends after a batch was refused", func(t *testing.T) {
		disk := newSlowDisk(t)
		s, old, theirs := cloned(t, disk)
		got := make(answers, 2)
		got.ingest(s, 1, logtest.NewWriter(testNetwork, testSpace, 3).AddMany(1).Run(t, 0, 1))
		<-disk.begun
		if err := <-queueAppend(t, s, refuser{}).done; !errors.Is(err, r.ErrConflict) {
			t.Fatal(err)
		}
		got.ingest(s, 2, theirs)
		taken(t, s)
		req := queueAppend(t, s, nil)
		taken(t, s) // all three are staged in one transaction
		disk.letAll()
		for range 2 {
			if res := <-got; res.Code != r.Committed {
				t.Errorf("%+v", res)
			}
		}
		if err := <-req.done; err != nil || req.at.First.Log == old || req.at.First.Seq != 1 {
			t.Errorf("%v, %+v is the clone's", err, req.at)
		}
		mustBeWhole(t, s)
	})
}

// refuser refuses every batch.
type refuser struct{}

func (refuser) Resolve(r.SpaceID, r.Dot, []r.Op, []r.Condition) error { return r.ErrConflict }
func (refuser) Settle(r.SpaceID, r.LogID, uint64)                     {}
func (refuser) Discard(r.SpaceID, r.LogID, uint64)                    {}

// TestRunsGoOnInAFlow: a run that must be compared with what is on its way to the disk
// does not wait for as long as its log is appended to.
func TestRunsGoOnInAFlow(t *testing.T) {
	disk := newSlowDisk(t)
	s := disk.open(t.TempDir(), func(o *Options) { o.eager = true })
	first := queueAppend(t, s, nil)
	<-disk.begun
	disk.let <- nil
	if err := <-first.done; err != nil {
		t.Fatal(err)
	}
	again := runOf(t, s, first.at.First.Log, r.Position{})
	reqs := []*appendReq{queueAppend(t, s, nil)}
	<-disk.begun
	got := make(answers, 1)
	got.ingest(s, 1, again)
	for range 3 {
		reqs = append(reqs, queueAppend(t, s, nil))
		waitFor(t, s, "the committer has seen the append", func(waits) bool { return len(s.queue.wake) == 0 })
		disk.let <- nil
		<-disk.begun
	}
	if w := s.queue.waiting(); w.runs {
		t.Errorf("the run is overtaken without end: %+v", w)
	}
	disk.letAll()
	if res := <-got; res.Code != r.Duplicate {
		t.Errorf("%+v", res)
	}
	for _, req := range reqs {
		if err := <-req.done; err != nil {
			t.Error(err)
		}
	}
	mustBeWhole(t, s)
}

// TestAppendsBesideRunsShareABlock: where the next transaction has no room for the runs
// that wait, appends that come one by one share a block.
func TestAppendsBesideRunsShareABlock(t *testing.T) {
	disk := newSlowDisk(t)
	s := disk.open(t.TempDir())
	w := big(3, 40)
	got := make(answers, 40)
	got.ingest(s, 1, w.Run(t, 0, 1))
	<-disk.begun
	for k := 1; k < 40; k++ {
		got.ingest(s, 1, w.Run(t, k, k+1))
	}
	waitFor(t, s, "the next one is full", func(w waits) bool { return len(s.queue.wake) == 0 && w.bytes < 18*aheadBytes })
	reqs := make([]*appendReq, 32)
	for i := range reqs {
		reqs[i] = queueAppend(t, s, nil)
		waitFor(t, s, "the committer has seen it", func(waits) bool { return len(s.queue.wake) == 0 })
	}
	disk.let <- nil
	<-disk.begun
	disk.let <- nil
	for _, req := range reqs {
		if err := <-req.done; err != nil {
			t.Fatal(err)
		}
	}
	if l, _ := s.Log(reqs[0].at.First.Log); l.Blocks > 2 { // the first one found it full
		t.Errorf("%d blocks", l.Blocks)
	}
}

// TestManySpacesAtOnce: of the appends that come while one transaction is on its way to
// the disk, each in a space of its own, the next takes no more than fit.
func TestManySpacesAtOnce(t *testing.T) {
	disk := newSlowDisk(t)
	s := disk.open(t.TempDir(), func(o *Options) { o.eager = true })
	got := make(answers, 1)
	got.ingest(s, 1, big(3, 1).Run(t, 0, 1))
	<-disk.begun
	reqs := make([]*appendReq, 2600)
	for i := range reqs {
		space := testSpace
		space[0], space[1] = byte(i), byte(i>>8)
		reqs[i] = queueBatch(t, s, r.Batch{Space: space, Ops: []r.Op{put("k", strings.Repeat("x", 400))}})
	}
	waitFor(t, s, "the committer has seen them", func(waits) bool { return len(s.queue.wake) == 0 })
	disk.letAll()
	for i, req := range reqs {
		if err := <-req.done; err != nil {
			t.Fatalf("%d: %v", i, err)
		}
	}
}

// TestLimitsGoOnInAFlow: between the transactions of a Restrict one of other writes is
// committed, and not one after the other for as long as they come.
func TestLimitsGoOnInAFlow(t *testing.T) {
	dir := t.TempDir()
	s := openAt(t, dir, "a")
	w := logtest.NewWriter(testNetwork, testSpace, 3)
	for range 60 { // 3 MB, of which a transaction moves 1
		w.Add(r.Op{Kind: r.KindPut, Key: []byte("k"), Payload: make([]byte, 50<<10)})
	}
	for k := range 60 {
		if res := ingest(s, w.Run(t, k, k+1)); res.Code != r.Committed {
			t.Fatalf("%+v", res)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	disk := newSlowDisk(t)
	s = disk.open(dir, func(o *Options) { o.eager = true })
	var writers sync.WaitGroup
	add := func() {
		writers.Go(func() {
			if _, err := s.Append(t.Context(), r.Batch{Space: testSpace, Ops: []r.Op{put("k", "v")}}); err != nil {
				t.Error(err)
			}
		})
	}
	limited := make(chan error, 1)
	go func() { limited <- s.Restrict(t.Context(), cutLog(w.Log, w.Pos(1))) }()
	<-disk.begun // its first transaction
	add()
	waitFor(t, s, "the first append waits", func(w waits) bool { return w.locals > 0 })
	disk.let <- nil
	<-disk.begun // that of the append
	add()
	waitFor(t, s, "the committer has seen the second append, and left it", func(w waits) bool {
		return w.locals > 0 && len(s.queue.wake) == 0
	})
	disk.let <- nil
	<-disk.begun
	if s.queue.waiting().locals != 1 {
		t.Error("another append came before the second transaction of the limits")
	}
	disk.letAll()
	if err := <-limited; err != nil {
		t.Fatal(err)
	}
	writers.Wait()
	if l, _ := s.Log(w.Log); l.Tip != w.Pos(1) {
		t.Errorf("the log ends at %d", l.Tip.Seq)
	}
	mustBeWhole(t, s)
}

// TestEverythingAtOnce: writers of many spaces, runs of logs that begin and go
// on, cursors, kept values and limits at once, each transaction staged while the one
// before is on its way; all that was acknowledged is there, also after the next open.
func TestEverythingAtOnce(t *testing.T) {
	dir := t.TempDir()
	s := openAt(t, dir, "a", func(o *Options) { o.eager = true })
	const writers, each, origins, blocks = 40, 30, 8, 60
	var wg sync.WaitGroup
	acked := make([]map[r.Dot]bool, writers)
	for i := range writers {
		space := testSpace
		space[0] ^= byte(i % 5)
		acked[i] = map[r.Dot]bool{}
		wg.Go(func() {
			for k := range each {
				a, err := s.Append(t.Context(), r.Batch{Space: space, Ops: []r.Op{put(fmt.Sprint(i, k), strings.Repeat("x", k*10))}})
				if err != nil {
					t.Error(err)
					return
				}
				acked[i][a.First] = true
			}
		})
	}
	logs := make([]*logtest.Writer, origins)
	for i := range origins {
		w := logtest.NewWriter(testNetwork, testSpace, uint64(10+i)).AddMany(blocks)
		logs[i] = w
		wg.Go(func() {
			got := make(answers, 1)
			for k := 0; k < blocks; k += 2 {
				got.ingest(s, uint64(i), w.Run(t, k, k+2))
				if res := <-got; res.Code != r.Committed || res.Tip != w.Pos(k+2) {
					t.Errorf("%+v", res)
				}
				got.ingest(s, uint64(100+i), w.Run(t, 0, 1)) // and a repetition
				if res := <-got; res.Code != r.Duplicate {
					t.Errorf("%+v", res)
				}
				s.SaveCursor(w.Origin, r.Instance{1}, []r.FrontierEntry{{Log: w.Log, Pos: w.Pos(k + 1)}})
			}
		})
	}
	wg.Go(func() {
		for k := range 20 {
			if err := s.SetMeta(t.Context(), "name", []byte{byte(k + 1)}); err != nil {
				t.Error(err)
			}
			mustRestrict(t, s, nil)
		}
	})
	wg.Wait()
	mustBeWhole(t, s)
	check := func(s *Store) {
		t.Helper()
		seen := map[r.Dot]bool{}
		for _, space := range s.Spaces() {
			for after := uint64(0); ; {
				list, err := s.ReadArrivals(space, after, 1<<20)
				if err != nil {
					t.Fatal(err)
				}
				if len(list) == 0 {
					break
				}
				for _, a := range list {
					if a.Number <= after {
						t.Fatalf("arrival %d after %d", a.Number, after)
					}
					after = a.Number
					for seq := a.Block.Header.FirstSeq; seq <= a.Block.Header.LastSeq(); seq++ {
						seen[r.Dot{Log: a.Block.Header.Log, Seq: seq}] = true
					}
				}
			}
		}
		for i := range acked {
			for d := range acked[i] {
				if !seen[d] {
					t.Errorf("%v was acknowledged and is not there", d)
				}
			}
		}
		for _, w := range logs {
			if l, _ := s.Log(w.Log); l.Tip != w.Tip() {
				t.Errorf("log %s ends at %d", w.Log.Short(), l.Tip.Seq)
			}
		}
	}
	check(s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = openAt(t, dir, "a")
	if s.Info().Recovered != "" {
		t.Error(s.Info().Recovered)
	}
	check(s)
	mustBeWhole(t, s)
}
