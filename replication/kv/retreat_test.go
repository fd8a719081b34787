package kv

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"vixp2p/replication"
	"vixp2p/replication/memlog"
	"vixp2p/replication/wal"
)

// limits is how far logs count; a log that is not in it counts entire.
type limits map[replication.LogID]replication.LogLimit

func (l limits) of(g *replication.Genesis) replication.LogLimit {
	if limit, ok := l[g.LogID()]; ok {
		return limit
	}
	return replication.Unlimited
}

// cutAt is the limit of a log that was cut at a position.
func cutAt(at replication.Position) replication.LogLimit {
	return replication.LogLimit{Allowed: true, Cut: &at, Err: replication.ErrRevoked}
}

func restrict(t testing.TB, s replication.Store, l limits) {
	t.Helper()
	if err := s.Restrict(testContext(t), l.of); err != nil {
		t.Fatal(err)
	}
}

// retained is the part of a history that counts at a store.
func (h *history) retained(s replication.Store) *history {
	part := &history{authors: h.authors}
	for _, w := range h.ops {
		if info, ok := s.Log(w.dot.Log); ok && w.dot.Seq <= info.Tip.Seq {
			part.ops = append(part.ops, w)
		}
	}
	return part
}

// ends is where the blocks of a log end.
func (h *history) ends(t testing.TB, a *author) (list []replication.Position) {
	for _, raw := range h.blocks[a] {
		b, _, err := replication.ParseBlock(raw)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, b.End())
	}
	return list
}

// randomLimits cuts some logs: at the end of a block, inside one, at nothing, on
// another branch, beyond what there is.
func randomLimits(t testing.TB, rnd *rand.Rand, h *history) limits {
	l := limits{}
	for _, a := range h.authors {
		ends := h.ends(t, a)
		if rnd.IntN(2) == 0 || len(ends) == 0 {
			continue
		}
		at := ends[rnd.IntN(len(ends))]
		switch rnd.IntN(8) {
		case 0:
			at = replication.Position{}
		case 1:
			at.Hash[0] ^= 1
		case 2:
			at.Seq++
		case 3:
			l[a.log] = replication.LogLimit{Err: replication.ErrNotAllowed}
			continue
		}
		l[a.log] = cutAt(at)
	}
	return l
}

// feedWithin is feed with the blocks that count by the limits.
func (f *feeder) feedWithin(t testing.TB, s replication.Store, l limits, n int) {
	whole := f.left
	defer func() {
		for a, left := range whole {
			if len(f.left[a]) < len(left) {
				whole[a] = f.left[a]
			}
		}
		f.left = whole
	}()
	for range n {
		f.left = map[*author][][]byte{}
		for a, left := range whole {
			info, _ := s.Log(a.log)
			if len(left) == 0 || info.Tip != f.at[a] {
				continue
			}
			b, _, err := replication.ParseBlock(left[0])
			if err != nil {
				t.Fatal(err)
			}
			if limit := l.of(&a.gen); limit.Counts(b.End()) {
				f.left[a] = left
			}
		}
		before := fmt.Sprint(f.at)
		f.feed(t, s, 1)
		if fmt.Sprint(f.at) == before {
			return
		}
		for a, left := range f.left {
			whole[a] = left
		}
	}
}

// TestCutsAreTakenBack feeds random histories, cuts logs at random places, lowers
// and lifts the cuts, closes the view on the way and has its disk full in the
// middle; whatever it did, it ends up with what the pure function gives over the
// operations that count, as does a view that is built anew (design 5.5, G5).
func TestCutsAreTakenBack(t *testing.T) {
	seeds, steps := uint64(6), 25
	if testing.Short() {
		seeds, steps = 2, 12
	}
	for name, s := range shapes {
		for seed := range seeds {
			t.Run(fmt.Sprintf("%s/%d", name, seed), func(t *testing.T) {
				t.Parallel()
				disk := &memlog.Disk{}
				cutsAreTakenBack(t, s, seed, steps, func() replication.Store { return openStore(t, 100, disk) })
			})
		}
		if name != "piling" {
			continue
		}
		t.Run(name+"/durable", func(t *testing.T) {
			t.Parallel()
			dir := tempDir(t)
			cutsAreTakenBack(t, s, 0, steps, func() replication.Store {
				store, err := wal.Open(wal.Options{Dir: dir, Network: testNetwork, Key: testKey(100), Relaxed: true, ReserveBytes: -1})
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { store.Close() })
				return store
			})
		})
	}
}

func cutsAreTakenBack(t *testing.T, s shape, seed uint64, steps int, openStore func() replication.Store) {
	rnd := rand.New(rand.NewPCG(seed, 9))
	h := makeHistory(rnd, s)
	store, dir := openStore(), tempDir(t)
	f, l := newFeeder(h, rnd), limits{}
	// Half of them are rebuilt on the way, also because a block was applied in part
	// when the disk was full.
	fills := seed%2 == 1
	var full atomic.Int64 // commits until the disk is full once
	open := func() *View {
		return openViewWith(t, Options{
			Dir: dir, Store: store, BootID: "boot", maxBatch: int64(rnd.IntN(2)), retryMin: time.Millisecond,
			FreeBytes: func(string) (uint64, error) {
				if fills && full.Add(-1) == 0 {
					return 0, nil
				}
				return 1 << 40, nil
			},
		})
	}
	v := open()
	for range steps {
		switch rnd.IntN(6) {
		case 0, 1:
			f.feedWithin(t, store, l, 1+rnd.IntN(20))
		case 2:
			full.Store(int64(1 + rnd.IntN(30)))
			if fills && rnd.IntN(3) == 0 {
				v.askRebuild(rebuild{generation: v.Generation()})
			}
			l = randomLimits(t, rnd, h)
			restrict(t, store, l)
		case 3:
			l = limits{}
			restrict(t, store, l)
		case 4:
			if err := v.Close(); err != nil {
				t.Fatal(err)
			}
			if rnd.IntN(3) == 0 { // what was set aside stays so
				if err := store.Close(); err != nil {
					t.Fatal(err)
				}
				store = openStore()
			}
			for range rnd.IntN(3) {
				l = randomLimits(t, rnd, h)
				restrict(t, store, l)
			}
			v = open()
		case 5:
			full.Store(0)
			settled(t, store, v)
			checkState(t, v, h.retained(store))
		}
	}
	full.Store(0)
	settled(t, store, v)
	checkState(t, v, h.retained(store))
	if g := v.Generation(); g != 1 && !fills {
		t.Errorf("generation %d: it was rebuilt", g)
	}
	if err := v.Verify(testContext(t), VerifyOptions{Deep: true}, func(f replication.Finding) { t.Errorf("deep verify: %+v", f) }); err != nil {
		t.Error(err)
	}
	before := countRecords(v)
	if err := v.Rebuild(testContext(t)); err != nil {
		t.Fatal(err)
	}
	checkState(t, v, h.retained(store))
	after := countRecords(v)
	for _, m := range []map[byte]int{before, after} {
		delete(m, prefixChange)
		delete(m, prefixSibling) // between two bounds it is history that tells where siblings are
	}
	if fmt.Sprint(after) != fmt.Sprint(before) {
		t.Errorf("a rebuild leaves records %v, not %v", after, before)
	}
}

// revoked writes put operations of another node, each in a block of its own.
type revoked struct {
	*author
	ends []replication.Position
}

func (r *revoked) put(t testing.TB, s replication.Store, key, value string, supersedes ...replication.Dot) replication.Dot {
	t.Helper()
	o := put(key, value)
	o.HLC = replication.HLCAt(time.Now().Add(time.Minute))
	o.Order, o.Supersedes = uint64(o.HLC)+uint64(len(r.ends)), supersedes
	slices.SortFunc(o.Supersedes, replication.Dot.Compare)
	d := r.dot(r.next)
	from := replication.Position{}
	if n := len(r.ends); n > 0 {
		from = r.ends[n-1]
	}
	r.ends = append(r.ends, ingest(t, s, r.author, from, r.block([]replication.Op{o}, nil)))
	return d
}

// cut restricts the log to its first n blocks.
func (r *revoked) cut(t testing.TB, s replication.Store, n int) {
	t.Helper()
	at := replication.Position{}
	if n > 0 {
		at = r.ends[n-1]
	}
	restrict(t, s, limits{r.log: cutAt(at)})
}

// TestReadsAfterACut: what a cut took back is in no read that begins after
// Restrict has returned, and what it had replaced is there again; lifted, it is
// the other way round.
func TestReadsAfterACut(t *testing.T) {
	s := newStore(t, 1)
	v := openView(t, s, tempDir(t))
	peer := &revoked{author: newAuthor(2, 1)}
	mine := write(t, s, v, put("both", "mine"), put("mine", "stays"))
	peer.put(t, s, "before", "counts")
	peer.put(t, s, "both", "theirs", mine.First)
	peer.put(t, s, "new", "theirs")
	settled(t, s, v)
	for range 20 {
		wantValue(t, v, "both", "theirs")
		wantValue(t, v, "new", "theirs")
		peer.cut(t, s, 1)
		wantValue(t, v, "both", "mine")
		wantValue(t, v, "new", "")
		wantValue(t, v, "before", "counts")
		wantValue(t, v, "mine", "stays")
		if sum, err := v.Summary(testContext(t), testSpace); err != nil || sum.Keys != 3 || len(sum.Frontier) != 2 {
			t.Fatalf("summary %+v, %v", sum, err)
		}
		restrict(t, s, limits{})
		settled(t, s, v)
	}
	if v.Generation() != 1 {
		t.Error("it was rebuilt")
	}
}

// TestOwnWritesThatAreCut: own writes that the view has not applied yet go with the
// cut, and the next write begins from what counts.
func TestOwnWritesThatAreCut(t *testing.T) {
	s := newStore(t, 1)
	v := openViewWith(t, Options{Dir: tempDir(t), Store: s, BootID: "boot", pace: time.Hour})
	at := write(t, s, v, put("a", "1"))
	rests(t, s, v)
	write(t, s, v, put("a", "2"), put("b", "2")) // in the overlay: the view rests
	restrict(t, s, limits{at.First.Log: cutAt(at.Pos)})
	wantValue(t, v, "a", "1")
	wantValue(t, v, "b", "")
	if err := v.List(testContext(t), testSpace, nil, func(e Entry) error {
		if string(e.Value) != "1" {
			t.Errorf("the list has %q = %q", e.Key, e.Value)
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
	write(t, s, v, put("a", "3"))
	settled(t, s, v)
	if e := wantValue(t, v, "a", "3"); e.Conflicts != 0 || e.Dot.Log == at.First.Log {
		t.Errorf("the next write gives %+v", e)
	}
}

// TestWatchARevocation: a watcher hears of each key that a cut changed, whether it
// watches at the time or goes on later from a cursor of before, in a view that was
// closed meanwhile.
func TestWatchARevocation(t *testing.T) {
	s, dir := newStore(t, 1), tempDir(t)
	v := openView(t, s, dir)
	peer := &revoked{author: newAuthor(2, 1)}
	mine := write(t, s, v, put("x/both", "mine"), put("x/mine", "stays"), put("y", "other"))
	peer.put(t, s, "x/both", "theirs", mine.First)
	peer.put(t, s, "x/new", "theirs")
	peer.put(t, s, "x/mine", "conflict")
	peer.put(t, s, "y", "theirs")
	settled(t, s, v)
	live := watch(t, v, "x/", replication.Cursor{})
	before := live.at
	peer.cut(t, s, 0)

	want := []string{"put x/both mine revocation", "put x/mine stays revocation", "delete x/new  revocation"}
	text := func(e Event) string {
		return fmt.Sprint(e.Kind, " ", string(e.Key), " ", string(e.Value), " ", e.Cause)
	}
	var cursors []replication.Cursor
	for _, w := range want {
		e := next(t, live)
		if got := text(e); got != w {
			t.Errorf("event %q, want %q", got, w)
		}
		cursors = append(cursors, e.Cursor)
	}
	write(t, s, v, put("x/later", "1"))
	if e := next(t, live); text(e) != "put x/later 1 " {
		t.Errorf("then %q", text(e))
	}
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	v = openView(t, s, dir)
	want = append(want, "put x/later 1 ")
	for i, from := range append([]replication.Cursor{before}, cursors...) {
		w := watch(t, v, "x/", from)
		for _, want := range want[i:] {
			if e := next(t, w); text(e) != want {
				t.Errorf("from %v: event %q, want %q", from, text(e), want)
			}
		}
	}
	// From the beginning: what counts, then what changed.
	first := watch(t, v, "x/", v.Begin())
	for _, want := range append([]string{"put x/both mine ", "put x/mine stays "}, want...) {
		if e := next(t, first); text(e) != want {
			t.Errorf("from the beginning: event %q, want %q", text(e), want)
		}
	}
}

// TestWatchersHearOfEveryChange follows a space through random cuts, with watchers
// that go on from cursors: a key whose last event tells one state has no other.
func TestWatchersHearOfEveryChange(t *testing.T) {
	seeds := uint64(4)
	if testing.Short() {
		seeds = 1
	}
	for seed := range seeds {
		rnd := rand.New(rand.NewPCG(seed, 5))
		h := makeHistory(rnd, shapes["sparse"])
		store, dir := openStore(t, 100, &memlog.Disk{}), tempDir(t)
		f, l := newFeeder(h, rnd), limits{}
		v := openView(t, store, dir)
		at, told := v.Begin(), map[string]string{}
		for range 20 {
			f.feedWithin(t, store, l, rnd.IntN(10))
			if rnd.IntN(2) == 0 {
				l = randomLimits(t, rnd, h)
				restrict(t, store, l)
			}
			settled(t, store, v)
			if rnd.IntN(4) == 0 {
				if err := v.Close(); err != nil {
					t.Fatal(err)
				}
				v = openView(t, store, dir)
			}
			now, err := v.Now(testContext(t), testSpace)
			if err != nil {
				t.Fatal(err)
			}
			// Of the last block nothing may be of a key.
			w := watch(t, v, "", at)
			for w.read.before(place{now.Arrival, now.Op}) || len(w.queue) > 0 {
				if len(w.queue) == 0 {
					s, err := v.await(testContext(t), testSpace)
					if err != nil {
						t.Fatal(err)
					}
					if r, ok := v.read(s, testSpace); !ok {
						t.Fatal("no reader")
					} else if err := w.fill(r); err != nil {
						t.Fatal(err)
					}
					continue
				}
				e := next(t, w)
				told[string(e.Key)] = fmt.Sprint(e.Dot, e.Conflicts)
				at = e.Cursor
				if e.Kind == EventDelete {
					delete(told, string(e.Key))
				}
			}
			is := map[string]string{}
			if err := v.List(testContext(t), testSpace, nil, func(e Entry) error {
				is[string(e.Key)] = fmt.Sprint(e.Dot, e.Conflicts)
				return nil
			}); err != nil {
				t.Fatal(err)
			}
			if fmt.Sprint(told) != fmt.Sprint(is) {
				t.Fatalf("seed %d: watched\n%v, is\n%v", seed, told, is)
			}
		}
		if v.Generation() != 1 {
			t.Error("it was rebuilt")
		}
	}
}

// TestACutBesideReads: whatever the apply goroutine is at, no read that begins
// after a cut shows a write beyond it.
func TestACutBesideReads(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 7))
	h := makeHistory(rnd, shapes["piling"])
	store := openStore(t, 100, &memlog.Disk{})
	v := openViewWith(t, Options{Dir: tempDir(t), Store: store, BootID: "boot", maxBatch: 1})
	var cutting sync.RWMutex // readers hold it off
	var readers sync.WaitGroup
	stop := make(chan struct{})
	for range 2 {
		readers.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				cutting.RLock()
				err := v.List(testContext(t), testSpace, nil, func(e Entry) error {
					list, err := v.Siblings(testContext(t), testSpace, e.Key, 1<<20)
					for _, x := range append(list, e) {
						if info, _ := store.Log(x.Dot.Log); x.Dot.Seq > info.Tip.Seq {
							t.Errorf("a read shows %v, and its log ends at %d", x.Dot, info.Tip.Seq)
						}
					}
					return err
				})
				cutting.RUnlock()
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	f, l := newFeeder(h, rnd), limits{}
	for range 25 {
		f.feedWithin(t, store, l, 5)
		cutting.Lock()
		l = limits{}
		if rnd.IntN(3) > 0 {
			l = randomLimits(t, rnd, h)
		}
		restrict(t, store, l)
		cutting.Unlock()
	}
	close(stop)
	readers.Wait()
	settled(t, store, v)
	checkState(t, v, h.retained(store))
}

// TestACutOfWhatIsReadAhead: blocks that were read before a cut and are not applied
// yet go with it.
func TestACutOfWhatIsReadAhead(t *testing.T) {
	s, dir := newStore(t, 1), tempDir(t)
	peer := &revoked{author: newAuthor(2, 1)}
	large := strings.Repeat("x", readBytes/4-1024)
	for i := range 3 {
		peer.put(t, s, fmt.Sprint(i), large)
	}
	// The fourth block makes exactly one batch full.
	arrivals, err := s.ReadArrivals(testSpace, 0, readBytes)
	if err != nil {
		t.Fatal(err)
	}
	left := readBytes
	for _, a := range arrivals {
		left -= a.Block.EncodedLen()
	}
	peer.put(t, s, "3", strings.Repeat("x", left-(arrivals[2].Block.EncodedLen()-len(large))))
	peer.put(t, s, "4", large)
	hold, goOn := make(chan struct{}), make(chan struct{})
	var once sync.Once
	var sp *spaceState
	v := openViewWith(t, Options{Dir: dir, Store: s, BootID: "boot", FreeBytes: func(string) (uint64, error) {
		once.Do(func() { // before the first commit, in the apply goroutine
			hold <- struct{}{}
			<-goOn
			if sp.ahead == nil {
				t.Error("nothing is read ahead")
			} else {
				sp.ahead <- <-sp.ahead // it has been read
			}
			hold <- struct{}{}
			<-goOn
		})
		return 1 << 40, nil
	}})
	<-hold
	v.mu.RLock()
	sp = v.spaces[testSpace]
	v.mu.RUnlock()
	goOn <- struct{}{}
	<-hold
	peer.cut(t, s, 1)
	goOn <- struct{}{}
	settled(t, s, v)
	wantValue(t, v, "0", large)
	if sum, err := v.Summary(testContext(t), testSpace); err != nil || sum.Keys != 1 || v.Generation() != 1 {
		t.Errorf("generation %d, summary %+v, %v", v.Generation(), sum, err)
	}
}

// TestACutOfMuchIsARebuild: what a retreat cannot hold in memory is left to a
// rebuild.
func TestACutOfMuchIsARebuild(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes much memory")
	}
	s := newStore(t, 1)
	v := openView(t, s, tempDir(t))
	peer := &revoked{author: newAuthor(2, 1)}
	large := strings.Repeat("x", 1<<19)
	var over []replication.Dot
	for i := range maxRetreat>>19 + 1 {
		over = append(over, peer.put(t, s, fmt.Sprint(i), large))
	}
	other := &revoked{author: newAuthor(3, 1)}
	for i, d := range over {
		other.put(t, s, fmt.Sprint(i), "short", d)
	}
	settled(t, s, v)
	w := watch(t, v, "", replication.Cursor{})
	other.cut(t, s, 1)
	if e := next(t, w); e.Kind != EventReset {
		t.Errorf("the watcher gets %v", e.Kind)
	}
	wantValue(t, v, "0", "short")
	wantValue(t, v, "1", large)
	if v.Generation() != 2 {
		t.Errorf("generation %d", v.Generation())
	}
}
