package memlog

import (
	"maps"
	"slices"

	"vixp2p/replication"
)

// transaction collects the changes of one commit, so that they can be told and
// undone as one.
type transaction struct {
	disk     *Disk
	undo     undo
	advances []replication.Advance     // one per log, in the order of its first block
	noted    map[replication.LogID]int // index in both
}

func (d *Disk) beginLocked() *transaction {
	return &transaction{disk: d, noted: map[replication.LogID]int{}, undo: undo{head: d.head, current: maps.Clone(d.current), arrivals: maps.Clone(d.arrivals)}}
}

// log finds a log that is to be changed, or nil.
func (t *transaction) log(id replication.LogID) *logState {
	l := t.disk.logs[id]
	if l != nil {
		t.note(l)
	}
	return l
}

func (t *transaction) create(info replication.LogInfo, g *replication.Genesis) *logState {
	l := &logState{info: info, genesis: g}
	t.disk.logs[info.Log] = l
	t.note(l)
	return l
}

// note remembers what a log is now, the first time that it is touched.
func (t *transaction) note(l *logState) {
	if _, ok := t.noted[l.info.Log]; ok {
		return
	}
	t.noted[l.info.Log] = len(t.advances)
	t.undo.logs = append(t.undo.logs, undoLog{l.info.Log, slices.Clip(l.blocks), l.tail, l.aside})
	t.advances = append(t.advances, replication.Advance{
		Space: l.info.Space, Log: l.info.Log, Origin: l.info.Origin, Prev: l.info.Tip, Tip: l.info.Tip,
	})
}

// add appends a block with a body to its log and gives it an arrival number.
func (t *transaction) add(l *logState, b *stored) {
	d := t.disk
	d.head++
	b.arrival = d.head
	space := l.info.Space
	d.arrivals[space] = append(d.arrivals[space], place{b.arrival, l.info.Log, len(l.blocks)})
	l.blocks = append(l.blocks, *b)
	l.info.Tip, l.info.LastHLC = b.end(), b.lastHLC
	l.info.Blocks++
	l.info.Bytes += uint64(b.size())
	a := t.advance(l)
	a.Tip, a.Arrival = l.info.Tip, b.arrival
	a.Ops += b.last - b.first + 1
	a.Bytes += uint64(b.size())
}

// advance is what is told of a log that was noted.
func (t *transaction) advance(l *logState) *replication.Advance {
	return &t.advances[t.noted[l.info.Log]]
}

// end finishes the transaction and returns its advances.
func (t *transaction) end(source uint64) []replication.Advance {
	t.disk.commits = append(t.disk.commits, t.undo)
	t.advances = slices.DeleteFunc(t.advances, func(a replication.Advance) bool { return a.Ops == 0 })
	for i := range t.advances {
		t.advances[i].Source = source
	}
	return t.advances
}
