package logtest

import (
	"vixp2p/replication"
)

var epochTests = []test{
	{"ReopenContinues", testReopenContinues},
	{"OneLogPerSpace", testOneLogPerSpace},
	{"CloneStartsAnew", testCloneStartsAnew},
	{"CloneOfAClone", testCloneOfAClone},
	{"ClonesConverge", testClonesConverge},
	{"ContinuedBySomebodyElse", testContinuedBySomebodyElse},
	{"TakesBackItsOldLog", testTakesBackOldLog},
	{"LostBlocks", testLostBlocks},
	{"CrashContinues", testCrashContinues},
	{"DirectoryIsOfOneNetwork", testOneNetwork},
	{"Locked", testLocked},
}

func testReopenContinues(e *env) {
	if info := e.store.Info(); info.Network != e.opts.Network || info.Self != e.self() || info.Recovered != "" || info.Relaxed ||
		info.Instance == (replication.Instance{}) {
		e.Errorf("a new store: %+v", info)
	}
	was := e.store.Info()
	e.reopen() // empty
	first := e.append(Put("a", "1"))
	for seq := uint64(2); seq < 5; seq++ {
		e.reopen()
		if info := e.store.Info(); info != was {
			e.Errorf("%+v became %+v", was, info)
		}
		if at := e.append(Put("a", "2")); at.First != (replication.Dot{Log: first.First.Log, Seq: seq}) || at.Arrival != seq {
			e.Errorf("%+v after reopening, want seq %d", at, seq)
		}
	}
	e.readRun(first.First.Log, replication.Position{}, 0)
}

func testOneLogPerSpace(e *env) {
	a := e.append(Put("a", "1"))
	b := e.appendTo(e.spaceNamed("other"), Put("a", "1"))
	if a.First.Log == b.First.Log || a.First.Seq != 1 || b.First.Seq != 1 {
		e.Errorf("%v and %v", a.First, b.First)
	}
	if info := e.log(b.First.Log); info.Space != e.spaceNamed("other") {
		e.Errorf("%+v", info)
	}
}

// testCloneStartsAnew: of two copies of a directory one goes on and the other is
// a new instance with a new epoch (design 4.7).
func testCloneStartsAnew(e *env) {
	old := e.append(Put("a", "1"))
	was := e.store.Info()
	e.close()
	dir := e.dir.Clone(e)
	e.open()
	if info := e.store.Info(); info != was {
		e.Errorf("the original became %+v", info)
	}
	if at := e.append(Put("b", "1")); at.First != (replication.Dot{Log: old.First.Log, Seq: 2}) {
		e.Errorf("the original goes on at %v", at.First)
	}
	c := e.on(dir)
	info := c.store.Info()
	if info.Instance == was.Instance || info.Recovered == "" || info.Self != was.Self || info.Network != was.Network {
		e.Errorf("the copy is %+v", info)
	}
	if c.store.Head() != 1 || len(c.arrivals(e.space, 0, 1)) != 1 {
		e.Errorf("the copy has head %d", c.store.Head())
	}
	c.newEpoch(old.First.Log, old.Pos)
	if again := c.store.Info(); again.Instance != info.Instance || again.Recovered != "" {
		e.Errorf("the copy, reopened, is %+v", again)
	}
}

func testCloneOfAClone(e *env) {
	e.append(Put("a", "1"))
	seen := map[replication.Instance]bool{e.store.Info().Instance: true}
	logs := map[replication.LogID]bool{}
	e.close()
	for dir := e.dir; len(seen) < 4; {
		dir = dir.Clone(e)
		c := e.on(dir)
		if i := c.store.Info().Instance; seen[i] {
			e.Fatalf("instance %s is there twice", i)
		} else {
			seen[i] = true
		}
		at := c.append(Put("b", "1"))
		if logs[at.First.Log] || at.First.Seq != 1 {
			e.Errorf("a copy writes at %v", at.First)
		}
		logs[at.First.Log] = true
		c.close()
	}
}

// testClonesConverge: both copies write and exchange their logs: no fork.
func testClonesConverge(e *env) {
	e.append(Put("a", "1"))
	e.close()
	c := e.on(e.dir.Clone(e))
	e.open()
	e.append(Put("b", "1"))
	c.append(Put("c", "1"))
	for range 2 {
		for _, pair := range [][2]*env{{e, c}, {c, e}} {
			for _, l := range pair[0].store.Logs(e.space) {
				pair[0].copyTo(pair[1], l.Log)
			}
		}
	}
	var roots [2]replication.Hash
	for i, x := range []*env{e, c} {
		var entries []replication.FrontierEntry
		for _, l := range x.store.Logs(e.space) {
			if l.Forked {
				e.Errorf("log %s is forked", l.Log.Short())
			}
			entries = append(entries, l.Entry())
		}
		roots[i] = replication.FrontierRoot(entries)
	}
	if roots[0] != roots[1] {
		e.Error("the copies do not converge")
	}
}

// testContinuedBySomebodyElse: our current log comes back longer than we wrote it.
// We take it as a foreign one and start a new epoch.
func testContinuedBySomebodyElse(e *env) {
	at := e.append(Put("a", "1"))
	r, run := e.readRun(at.First.Log, replication.Position{}, 0)
	twin := Continue(e, e.opts.Key, run.Genesis(), r.Data).AddMany(2)
	e.want(e.ingest(twin.Run(e, 1, 2)), replication.Committed, twin.Pos(2))
	e.reopen()
	e.want(e.ingest(twin.Run(e, 2, 3)), replication.Committed, twin.Pos(3))
	e.newEpoch(at.First.Log, twin.Pos(3))
	if e.log(at.First.Log).Forked {
		e.Error("nothing was forked")
	}
	twin.AddMany(1)
	e.want(e.ingest(twin.Run(e, 3, 4)), replication.Committed, twin.Pos(4))
	if at := e.append(Put("n", "3")); at.First.Seq != 3 {
		e.Errorf("an older log that grows ends the epoch: %v", at.First)
	}
}

func testTakesBackOldLog(e *env) {
	old := e.append(Put("a", "1"))
	e.append(Put("b", "1"))
	fresh := e.on(e.factory.New(e)) // the same key, an empty directory
	e.copyTo(fresh, old.First.Log)
	if info := fresh.log(old.First.Log); info.Tip.Seq != 2 || info.Origin != e.self() {
		e.Errorf("%+v", info)
	}
	fresh.newEpoch(old.First.Log, e.log(old.First.Log).Tip)
	// Times ascend over the origin's logs, whatever the clock says now.
	if at := fresh.append(Put("c", "1")); at.HLC <= e.log(old.First.Log).LastHLC {
		e.Errorf("time %d after %d", at.HLC, e.log(old.First.Log).LastHLC)
	}
}

// testLostBlocks: a store that lost what it acknowledged must not reuse the seqs.
func testLostBlocks(e *env) {
	l, ok := e.dir.(Loser)
	if !ok {
		e.Log("this store cannot lose a transaction within a test: left out")
		return
	}
	kept := e.append(Put("a", "1"))
	lost := e.append(Put("b", "1"))
	was := e.store.Info()
	e.close()
	l.LoseLast()
	e.open()
	if info := e.store.Info(); info.Instance == was.Instance || info.Recovered == "" {
		e.Errorf("nothing was noticed: %+v", info)
	}
	if info := e.log(kept.First.Log); info.Tip != kept.Pos {
		e.Errorf("the log is at %v, want %v (lost: %v)", info.Tip, kept.Pos, lost.Pos)
	}
	e.newEpoch(kept.First.Log, kept.Pos)
}

func testCrashContinues(e *env) {
	c, ok := e.dir.(Crasher)
	if !ok {
		e.Log("this store cannot crash within a test: left out")
		return
	}
	was := e.store.Info()
	w := e.writer(1).AddMany(3)
	e.want(e.ingest(w.Run(e, 0, 3)), replication.Committed, w.Tip())
	first := e.append(Put("a", "1"))
	for seq := uint64(2); seq < 5; seq++ {
		c.Crash()
		e.open()
		if info := e.store.Info(); info.Instance != was.Instance || info.Recovered != "" {
			e.Errorf("after a crash: %+v", info)
		}
		if info := e.log(w.Log); info.Tip != w.Tip() {
			e.Errorf("an acknowledged run is lost: %v", info.Tip)
		}
		if at := e.append(Put("a", "2")); at.First != (replication.Dot{Log: first.First.Log, Seq: seq}) {
			e.Errorf("after a crash, the append is at %v, want seq %d", at.First, seq)
		}
	}
	e.readRun(first.First.Log, replication.Position{}, 0)
}

func testOneNetwork(e *env) {
	e.append(Put("a", "1"))
	e.close()
	o := e.opts
	o.Network = replication.OpenNetwork("another")
	if s, err := e.dir.Open(o); err == nil {
		e.Error("the directory of one network opened for another")
		_ = s.Close()
	}
	o = e.opts
	o.Key = Key(77)
	if s, err := e.dir.Open(o); err == nil {
		e.Error("the directory of one node opened for another")
		_ = s.Close()
	}
	e.open()
}

func testLocked(e *env) {
	s, err := e.dir.Open(e.opts)
	e.wantErr("a second open", err, replication.ErrLocked)
	if err == nil {
		_ = s.Close()
	}
	e.append(Put("a", "1"))
}
