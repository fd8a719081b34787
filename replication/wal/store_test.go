package wal

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	r "vixp2p/replication"
	"vixp2p/replication/logtest"
)

// wantErr checks the kind of an error and that it is one line that names what.
func wantErr(t *testing.T, err, kind error, what string) {
	t.Helper()
	if !errors.Is(err, kind) || !strings.Contains(err.Error(), what) || strings.Contains(err.Error(), "\n") {
		t.Errorf("%v: want %q that names %q in one line", err, kind, what)
	}
}

func TestLocked(t *testing.T) {
	dir := t.TempDir()
	s := openAt(t, dir, "a")
	_, err := Open(Options{Dir: dir, Network: testNetwork, Key: testKey("a")})
	wantErr(t, err, r.ErrLocked, dir)
	mustAppend(t, s, put("k", "v"))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	openAt(t, dir, "a")
}

// TestNewerFormat refuses a directory that a later version wrote and leaves
// every file as it was.
func TestNewerFormat(t *testing.T) {
	dir := t.TempDir()
	s := openAt(t, dir, "a")
	mustAppend(t, s, put("k", "v"))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, formatName)
	if err := os.WriteFile(path, []byte(formatLine(storeFormat+1)), 0o600); err != nil {
		t.Fatal(err)
	}
	before := takeImage(t, dir)
	_, err := Open(Options{Dir: dir, Network: testNetwork, Key: testKey("a")})
	wantErr(t, err, r.ErrTooNew, dir)
	if after := takeImage(t, dir); fmt.Sprint(before) != fmt.Sprint(after) {
		t.Error("the refused directory was changed")
	}
}

// TestFullDisk fills a disk by what the store is told: writes are refused in one
// sentence, reads go on, and writes go on when there is room.
func TestFullDisk(t *testing.T) {
	var free atomic.Uint64
	free.Store(1 << 40)
	dir := t.TempDir()
	s := openAt(t, dir, "a", func(o *Options) {
		o.FreeBytes = func(string) (uint64, error) { return free.Load(), nil }
	})
	first := mustAppend(t, s, put("k", "v"))
	free.Store(defaultReserve)
	_, err := s.Append(context.Background(), r.Batch{Space: testSpace, Ops: []r.Op{put("k", "w")}})
	wantErr(t, err, r.ErrNoSpace, dir)
	w := logtest.NewWriter(testNetwork, testSpace, 3).AddMany(1)
	if res := ingest(s, w.Run(t, 0, 1)); res.Code != r.Refused || !errors.Is(res.Err, r.ErrNoSpace) {
		t.Errorf("%+v", res)
	}
	if err := s.SetMeta(context.Background(), "m", []byte("v")); !errors.Is(err, r.ErrNoSpace) {
		t.Error(err)
	}
	if _, err := s.ReadRun(first.First.Log, r.Position{}, 0); err != nil {
		t.Error(err)
	}
	free.Store(1 << 40)
	if second := mustAppend(t, s, put("k", "w")); second.First.Seq != 2 {
		t.Errorf("%+v", second)
	}
	mustBeWhole(t, s)
	free.Store(1 << 20)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	_, err = Open(Options{Dir: dir, Network: testNetwork, Key: testKey("a"), FreeBytes: s.opt.FreeBytes})
	wantErr(t, err, r.ErrNoSpace, dir)
}

// TestFailedCommit makes the witness unwritable, so that a commit fails after
// the database took it: nothing is acknowledged, the store takes no further
// write, and the next open tells what is there.
func TestFailedCommit(t *testing.T) {
	dir := t.TempDir()
	s := openAt(t, dir, "a")
	mustAppend(t, s, put("k", "1"))
	good := s.witness.f
	if s.witness.f = closedFile(t); s.witness.f == nil {
		t.Fatal("no file")
	}
	if _, err := s.Append(context.Background(), r.Batch{Space: testSpace, Ops: []r.Op{put("k", "2")}}); err == nil {
		t.Fatal("an append was acknowledged although its witness was not written")
	}
	for _, l := range s.Logs(testSpace) {
		if l.Tip.Seq != 1 {
			t.Errorf("tip %d", l.Tip.Seq)
		}
	}
	_, err := s.Append(context.Background(), r.Batch{Space: testSpace, Ops: []r.Op{put("k", "3")}})
	if err == nil || !strings.Contains(err.Error(), "restart") {
		t.Errorf("%v", err)
	}
	s.witness.f = good
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = openAt(t, dir, "a")
	if a := mustAppend(t, s, put("k", "4")); a.First.Seq != 3 || s.Info().Recovered != "" {
		t.Errorf("%+v %q", a, s.Info().Recovered) // the unacknowledged write is there: it may be
	}
	mustBeWhole(t, s)
}

func closedFile(t *testing.T) *os.File {
	f, err := os.Create(filepath.Join(t.TempDir(), "closed"))
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	return f
}

// TestCloneWritesOn: a run of this node's current log beyond its end means that
// a copy of this machine runs. The run is taken, and the next append starts a new
// epoch.
func TestCloneWritesOn(t *testing.T) {
	dir := t.TempDir()
	s := openAt(t, dir, "a", sameFiles)
	first := mustAppend(t, s, put("k", "1"))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	clone := t.TempDir()
	takeImage(t, dir).write(t, clone)
	a, b := openAt(t, dir, "a", sameFiles), openAt(t, clone, "a", sameFiles)
	mustAppend(t, b, put("k", "2"))
	if res := pull(t, b, a, first.First.Log, 0); len(res) != 1 || res[0].Code != r.Committed {
		t.Fatalf("%+v", res)
	}
	next := mustAppend(t, a, put("k", "3"))
	if next.First.Log == first.First.Log || next.First.Seq != 1 {
		t.Errorf("%+v goes on in the clone's log", next)
	}
	blk, err := a.ReadRun(next.First.Log, r.Position{}, 0)
	if err != nil {
		t.Fatal(err)
	}
	g, _, _ := r.ParseBlock(blk.Data)
	if g.Header.Genesis.PrevLog != first.First.Log || g.Header.Genesis.PrevPos.Seq != 2 {
		t.Errorf("genesis %+v", g.Header.Genesis)
	}
}

// TestSkewIsReportedOnce and the own clock does not follow.
func TestSkewIsReportedOnce(t *testing.T) {
	var buf syncBuffer
	s := openAt(t, t.TempDir(), "a", func(o *Options) { o.Logger = slog.New(slog.NewTextHandler(&buf, nil)) })
	w := logtest.NewWriter(testNetwork, testSpace, 3)
	for i := range 3 {
		op := put("k", "v")
		op.HLC = r.HLCAt(time.Now().Add(time.Hour + time.Duration(i)*time.Second))
		w.Add(op)
		if res := ingest(s, w.Run(t, i, i+1)); res.Code != r.Committed {
			t.Fatal(res)
		}
	}
	if n := strings.Count(buf.String(), "clock is ahead"); n != 1 {
		t.Errorf("reported %d times:\n%s", n, buf.String())
	}
	if a := mustAppend(t, s, put("k", "v")); a.HLC.Time().After(time.Now().Add(time.Minute)) {
		t.Error("the clock followed")
	}
}

type syncBuffer struct {
	mu sync.Mutex
	b  strings.Builder
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// TestBusy: what no window holds back is refused, not buffered without end.
func TestBusy(t *testing.T) {
	q := newQueue()
	for i := range 4 {
		if err := q.pushRun(&ingestReq{source: 1, size: maxSourceBytes / 4}); err != nil {
			t.Fatal(i, err)
		}
	}
	wantErr(t, q.pushRun(&ingestReq{source: 1, size: 1}), r.ErrBusy, "bytes")
	if err := q.pushRun(&ingestReq{source: 2, size: 1}); err != nil {
		t.Error("another source is held up:", err)
	}
}

// TestFullQueueWaits: an append that finds no room in the queue waits for it as long as
// its context allows. One that gave up is not written, and who waits on gets its turn.
func TestFullQueueWaits(t *testing.T) {
	for name, c := range map[string]struct{ fill, payload int }{
		"many":  {maxLocals, 1},
		"large": {maxLocalBytes >> 20, 1<<20 - 1000},
	} {
		t.Run(name, func(t *testing.T) {
			disk := newSlowDisk(t)
			s := disk.open(t.TempDir())
			batch := r.Batch{Space: testSpace, Ops: []r.Op{put("k", strings.Repeat("v", c.payload))}}
			queueAppend(t, s, nil) // small, so that nothing is staged beside it
			<-disk.begun           // the committer waits for the disk
			for range c.fill {
				queueBatch(t, s, batch)
			}
			ended := make(chan error, 1)
			late := func(ctx context.Context) { _, err := s.Append(ctx, batch); ended <- err }
			ctx, cancel := context.WithCancel(t.Context())
			go late(ctx)
			waitFor(t, s, "an append that waits for room", func(waits) bool {
				s.queue.mu.Lock()
				defer s.queue.mu.Unlock()
				return s.queue.room != nil
			})
			cancel()
			if err := <-ended; !errors.Is(err, context.Canceled) {
				t.Errorf("an append that gave up: %v", err)
			}
			if w := s.queue.waiting(); w.locals != c.fill || w.bytes > maxLocalBytes {
				t.Errorf("%d batches of %d bytes wait", w.locals, w.bytes)
			}
			go late(t.Context())
			disk.letAll()
			if err := <-ended; err != nil {
				t.Errorf("an append that waited for room: %v", err)
			}
			if l := s.Logs(testSpace)[0]; l.Tip.Seq != uint64(c.fill)+2 {
				t.Errorf("%d operations are here, not %d", l.Tip.Seq, c.fill+2)
			}
		})
	}
}

// TestFairness: a source with much does not hold up one with little.
func TestFairness(t *testing.T) {
	q := newQueue()
	push := func(source uint64, size int) {
		if err := q.pushRun(&ingestReq{source: source, size: size}); err != nil {
			t.Fatal(err)
		}
	}
	for range 10 {
		push(1, 1<<20)
	}
	for range 10 {
		push(2, 1<<10)
	}
	taken := map[uint64]int{}
	for range 12 {
		taken[q.takeRun(func(*ingestReq) bool { return true }).source]++
	}
	if taken[2] != 10 {
		t.Errorf("taken %v: the small runs wait for the large ones", taken)
	}
}

// TestRelaxed says so and skips no check.
func TestRelaxed(t *testing.T) {
	dir := t.TempDir()
	s := openAt(t, dir, "a", func(o *Options) { o.Relaxed = true })
	if !s.Info().Relaxed {
		t.Error("not told")
	}
	mustAppend(t, s, put("k", "v"))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	mustBeWhole(t, openAt(t, dir, "a"))
}

// TestRelaxedThenStrict: what a relaxed store left to the system is made durable
// before it counts as durable at others (G2), file by file, and an open that could
// not do it leaves that to the next one.
func TestRelaxedThenStrict(t *testing.T) {
	dir := t.TempDir()
	var synced []string
	var broken error
	mod := func(relaxed bool) func(*Options) {
		return func(o *Options) {
			o.Relaxed = relaxed
			o.syncFile = func(f *os.File) error {
				synced = append(synced, filepath.Base(f.Name()))
				return errors.Join(broken, f.Sync())
			}
		}
	}
	for range 2 {
		s := openAt(t, dir, "a", mod(true))
		mustAppend(t, s, put("k", strings.Repeat("v", 100<<10)))
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if len(synced) > 0 {
		t.Errorf("relaxed, but %v were synced", synced)
	}
	paths, err := listFiles(filepath.Join(dir, dbDir), "")
	if err != nil {
		t.Fatal(err)
	}
	kinds := map[string]bool{}
	for _, path := range paths {
		kinds[filepath.Ext(path)] = true
	}
	if !kinds[".sst"] || !kinds[".vlog"] {
		t.Fatalf("the database has only %v", paths)
	}

	broken = errors.New("the disk says no")
	o := Options{Dir: dir, Network: testNetwork, Key: testKey("a")}
	mod(false)(&o)
	if s, err := Open(o); !errors.Is(err, broken) || !strings.Contains(err.Error(), "cannot make durable what was written with relaxed durability") {
		if err == nil {
			_ = s.Close()
		}
		t.Fatalf("opened where files cannot be synced: %v", err)
	}
	broken, synced = nil, nil
	s := openAt(t, dir, "a", mod(false))
	for _, path := range paths {
		if name := filepath.Base(path); fileExists(filepath.Dir(path), name) && !slices.Contains(synced, name) {
			t.Errorf("%s was not synced, only %v", name, synced)
		}
	}
	if s.Info().Relaxed {
		t.Error("it still counts as relaxed")
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	synced = nil
	mustBeWhole(t, openAt(t, dir, "a", mod(false)))
	if len(synced) > 0 {
		t.Errorf("strict for the second time, but %v were synced", synced)
	}
}

// TestManyAppendersShareCommits: 64 writers need far fewer commits than appends.
func TestManyAppendersShareCommits(t *testing.T) {
	s := openAt(t, t.TempDir(), "a")
	var wg sync.WaitGroup
	for range 64 {
		wg.Go(func() {
			for range 20 {
				if _, err := s.Append(context.Background(), r.Batch{Space: testSpace, Ops: []r.Op{put("k", "v")}}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	l := s.Logs(testSpace)[0]
	if l.Tip.Seq != 64*20 || l.Blocks > 64*20/8 {
		t.Errorf("%d blocks for %d appends", l.Blocks, l.Tip.Seq)
	}
}

// TestCancelledAppendGivesUpWaiting.
func TestCancelledAppendGivesUpWaiting(t *testing.T) {
	s := openAt(t, t.TempDir(), "a")
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := s.Append(ctx, r.Batch{Space: testSpace, Ops: []r.Op{put("k", "v")}}); err != nil && !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// TestCursorsReachTheDisk a second later without any other write.
func TestCursorsReachTheDisk(t *testing.T) {
	dir := t.TempDir()
	s := openAt(t, dir, "a")
	peer, entry := r.OriginKey{9}, r.FrontierEntry{Log: r.LogID{1}, Pos: r.Position{Seq: 5, Hash: r.Hash{1}}}
	before := s.idx.head.commits
	s.SaveCursor(peer, r.Instance{1}, []r.FrontierEntry{entry})
	deadline := time.Now().Add(20 * time.Second)
	for {
		s.mu.RLock()
		commits := s.idx.head.commits
		s.mu.RUnlock()
		if commits > before {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("no commit")
		}
		time.Sleep(time.Millisecond)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = openAt(t, dir, "a")
	got, err := s.LoadCursor(peer, r.Instance{1})
	if err != nil || len(got) != 1 || got[0] != entry {
		t.Errorf("%+v %v", got, err)
	}
}

// TestOpenOnANearlyFullDisk: less than the reserve is free. What is there can be
// read, and appends are refused until there is room.
func TestOpenOnANearlyFullDisk(t *testing.T) {
	var free atomic.Uint64
	free.Store(1 << 40)
	dir := fastDir(t)
	full := func(o *Options) { o.FreeBytes = func(string) (uint64, error) { return free.Load(), nil } }
	first := mustAppend(t, openAt(t, dir, "a", full), put("k", strings.Repeat("v", 60<<10)))
	img := takeImage(t, dir) // as a kill leaves it: 60 KiB are in a memtable's log
	dir = fastDir(t)
	img.write(t, dir)
	o := Options{Dir: dir, Network: testNetwork, Key: testKey("a")}
	full(&o)
	free.Store(minOpenBytes + 30<<10)
	_, err := Open(o)
	wantErr(t, err, r.ErrNoSpace, dir)
	free.Store(minOpenBytes + 100<<10)
	s := openAt(t, dir, "a", full)
	if _, err := s.Append(context.Background(), r.Batch{Space: testSpace, Ops: []r.Op{put("k", "w")}}); !errors.Is(err, r.ErrNoSpace) {
		t.Error(err)
	}
	if run, err := s.ReadRun(first.First.Log, r.Position{}, 0); err != nil || run.Ops != 1 {
		t.Error(run.Ops, err)
	}
	free.Store(1 << 40)
	mustAppend(t, s, put("k", "w"))
	mustBeWhole(t, s)
}

// holdCommits lets what is queued from now on wait until release, so that it meets in
// one transaction.
func holdCommits(t *testing.T, s *Store) (release func()) {
	t.Helper()
	begun, hold := make(chan struct{}), make(chan struct{})
	var held sync.WaitGroup
	held.Go(func() {
		if err := s.control(context.Background(), func(*tx) error {
			close(begun)
			<-hold
			return nil
		}); err != nil {
			t.Error(err)
		}
	})
	<-begun
	return func() {
		close(hold)
		held.Wait()
	}
}

// TestRunsShareACommit: runs of one log that wait together are one transaction, and
// a run of another branch among them is compared with what is stored.
func TestRunsShareACommit(t *testing.T) {
	const runs = 20
	s := openAt(t, t.TempDir(), "a")
	w := logtest.NewWriter(testNetwork, testSpace, 3).AddMany(runs)
	rival := logtest.NewWriter(testNetwork, testSpace, 3).AddMany(runs / 2)
	rival.Add(put("k", "another branch"))

	release := holdCommits(t, s)
	answers := make(chan r.IngestResult, runs+1)
	for k := range runs {
		s.Ingest(1, w.Run(t, k, k+1), func(res r.IngestResult) { answers <- res })
	}
	s.Ingest(1, rival.Run(t, runs/2, runs/2+1), func(res r.IngestResult) { answers <- res })
	release()
	for k := range runs {
		if res := <-answers; res.Code != r.Committed || res.Tip != w.Pos(k+1) {
			t.Errorf("run %d: %+v", k, res)
		}
	}
	if res := <-answers; res.Code != r.Forked || res.Proof == nil {
		t.Errorf("the other branch: %+v", res)
	}
	if n := s.idx.head.commits; n > 4 { // the first, of the identity; the runs; the fork
		t.Errorf("%d runs took %d commits", runs, n)
	}
	mustBeWhole(t, s)
}

// TestRunsOfANewLogMeetItsCut: of a log that begins with several runs in one commit,
// what lies beyond its cut is refused like later.
func TestRunsOfANewLogMeetItsCut(t *testing.T) {
	const runs, cut = 6, 3
	s := openAt(t, t.TempDir(), "a")
	w := logtest.NewWriter(testNetwork, testSpace, 3).AddMany(runs)
	mustRestrict(t, s, cutLog(w.Log, w.Pos(cut)))
	release := holdCommits(t, s)
	answers := make(chan r.IngestResult, runs)
	for k := range runs {
		s.Ingest(1, w.Run(t, k, k+1), func(res r.IngestResult) { answers <- res })
	}
	release()
	for k := range runs {
		want := r.Committed
		if k >= cut {
			want = r.Refused
		}
		if res := <-answers; res.Code != want || res.Tip != w.Pos(min(k+1, cut)) {
			t.Errorf("run %d: %+v", k, res)
		}
	}
	if l, _ := s.Log(w.Log); l.Tip != w.Pos(cut) {
		t.Errorf("the log goes on to %d beyond its cut at %d", l.Tip.Seq, cut)
	}
	mustBeWhole(t, s)
}

// TestCloseMergesWhereThereIsRoom: a close drops the heads and log records that later
// commits replaced, but not on a disk that has no room for the merge; and nothing else
// is lost either way.
func TestCloseMergesWhereThereIsRoom(t *testing.T) {
	const blocks = 400
	tables := func(free uint64) (size int64) {
		t.Helper()
		dir := fastDir(t)
		s := openAt(t, dir, "a", func(o *Options) { o.FreeBytes = func(string) (uint64, error) { return free, nil } })
		for range blocks {
			mustAppend(t, s, put("k", "v"))
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		list, err := listFiles(filepath.Join(dir, dbDir), ".sst")
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range list {
			fi, err := os.Stat(path)
			if err != nil {
				t.Fatal(err)
			}
			size += fi.Size()
		}
		s = openAt(t, dir, "a")
		if l := s.Logs(testSpace); len(l) != 1 || l[0].Tip.Seq != blocks {
			t.Errorf("after the close: %+v", l)
		}
		mustBeWhole(t, s)
		return size
	}
	merged, asTheyWere := tables(1<<40), tables(defaultReserve+64<<20)
	if merged > asTheyWere*3/4 {
		t.Errorf("%d bytes of tables with room for a merge, %d without", merged, asTheyWere)
	}
}
