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
	advances []replication.Advance // one per log, in the order of its first block
}

func (d *Disk) beginLocked() *transaction {
	return &transaction{disk: d, undo: undo{head: d.head, current: maps.Clone(d.current)}}
}

// log finds a log that is to be changed, or nil.
func (t *transaction) log(id replication.LogID) *logState {
	l := t.disk.logs[id]
	if l != nil {
		t.note(l)
	}
	return l
}

func (t *transaction) create(info replication.LogInfo) *logState {
	l := &logState{info: info}
	t.disk.logs[info.Log] = l
	t.note(l)
	return l
}

// note remembers what a log is now, the first time that it is touched.
func (t *transaction) note(l *logState) {
	same := func(u undoLog) bool { return u.log == l.info.Log }
	if slices.ContainsFunc(t.undo.logs, same) {
		return
	}
	t.undo.logs = append(t.undo.logs, undoLog{l.info.Log, len(l.blocks), l.tail})
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
	for i := range t.advances {
		if a := &t.advances[i]; a.Log == l.info.Log {
			a.Tip, a.Arrival = l.info.Tip, b.arrival
			a.Ops += b.last - b.first + 1
			a.Bytes += uint64(b.size())
		}
	}
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
