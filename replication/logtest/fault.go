package logtest

import (
	"context"
	"errors"
	"slices"

	"vixp2p/replication"
)

var faultTests = []test{
	{"DiskFull", testDiskFull},
	{"DamagedBlock", testDamagedBlock},
}

// testDiskFull: writes are refused, nothing is half written, and all goes on when
// there is room.
func testDiskFull(e *env) {
	d, ok := e.dir.(Filler)
	if !ok {
		e.Log("the disk of this store cannot be full within a test: left out")
		return
	}
	e.append(Put("a", "1"))
	r := &recorder{}
	w := e.writer(1).AddMany(2)
	d.SetFull(true)
	_, err := e.appendWith(r, Put("b", "1"))
	e.wantErr("append", err, replication.ErrNoSpace)
	calls := r.take()
	if len(calls) > 0 && !slices.Equal(calls, []string{"resolve 2+1", "discard 2"}) {
		e.Errorf("the calls were %q", calls)
	}
	res := e.ingest(w.Run(e, 0, 2))
	e.want(res, replication.Refused, replication.Position{})
	e.wantErr("ingest", res.Err, replication.ErrNoSpace)
	if e.store.Head() != 1 {
		e.Errorf("head %d", e.store.Head())
	}
	d.SetFull(false)
	if at, err := e.appendWith(r, Put("b", "1")); err != nil || at.First.Seq != 2 || at.Arrival != 2 {
		e.Errorf("with room again: %+v %v", at, err)
	}
	e.want(e.ingest(w.Run(e, 0, 2)), replication.Committed, w.Tip())
	e.reopen()
	if e.store.Head() != 4 {
		e.Errorf("head %d, want 4", e.store.Head())
	}
}

// testDamagedBlock: what does not match its hash is never served (G9).
func testDamagedBlock(e *env) {
	d, ok := e.dir.(Damager)
	if !ok {
		e.Log("this store cannot be damaged within a test: left out")
		return
	}
	w := e.writer(1).AddMany(5)
	for i := range 5 {
		e.want(e.ingest(w.Run(e, i, i+1)), replication.Committed, w.Pos(i+1))
	}
	d.Damage(w.Log, 3)
	_, err := e.store.ReadRun(w.Log, w.Pos(2), 1)
	var damage *replication.DamageError
	if !errors.Is(err, replication.ErrDamaged) || !errors.As(err, &damage) || damage.Log != w.Log || damage.Seq != 3 {
		e.Errorf("reading the damaged block: %v", err)
	}
	if r, _ := e.readRun(w.Log, w.Pos(3), 0); r.End != w.Tip() {
		e.Errorf("behind the damage the run ends at %v", r.End)
	}
	var numbers []uint64
	for after := uint64(0); ; {
		part, err := e.store.ReadArrivals(e.space, after, 1<<20)
		for _, a := range part {
			after = a.Number
			numbers = append(numbers, a.Number)
		}
		if err != nil {
			e.wantErr("arrivals", err, replication.ErrDamaged)
			break
		}
		if len(part) == 0 {
			e.Error("the damaged block was left out silently")
			break
		}
	}
	if !slices.Equal(numbers, []uint64{1, 2}) {
		e.Errorf("arrivals %v before the damage", numbers)
	}
	found := false
	if err := e.store.Verify(context.Background(), func(f replication.Finding) { found = found || f.Log == w.Log && f.Seq == 3 }); err != nil || !found {
		e.Errorf("verify: found %v, %v", found, err)
	}
}
