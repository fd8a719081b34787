package wal

import (
	"sort"
	"time"

	r "vixp2p/replication"
)

// logState is what is kept in memory per log: about 200 bytes, so that 100,000
// logs cost 20 MiB.
type logState struct {
	id      r.LogID
	num     uint64 // local log number, from 1
	space   *spaceState
	origin  r.OriginKey
	epoch   r.Epoch
	base    uint64 // first seq held
	tip     r.Position
	lastHLC r.HLC
	blocks  uint64
	bytes   uint64 // stored bytes of all its blocks
	arrival uint64 // of the block at the tip
	flags   uint8
	cut     *cutState // nil where no cut set blocks aside
}

func (l *logState) info() r.LogInfo {
	info := r.LogInfo{
		Log: l.id, Space: l.space.id, Origin: l.origin, Epoch: l.epoch, Base: l.base,
		Tip: l.tip, LastHLC: l.lastHLC, Blocks: l.blocks, Bytes: l.bytes,
		Forked: l.flags&flagForked != 0, SetAside: l.setAside(),
	}
	if info.SetAside > 0 {
		info.SetAsideSince = time.UnixMilli(l.cut.since)
	}
	return info
}

// spaceState is a space that has a log.
type spaceState struct {
	id      r.SpaceID
	logs    []*logState // ascending by id
	arrival uint64      // newest arrival number in this space
	open    openEntry   // of the arrival index
}

// index is what is durable, in memory. The committer alone changes it, after a
// commit, under Store.mu.
type index struct {
	logs   map[r.LogID]*logState
	byNum  map[uint64]*logState
	spaces map[r.SpaceID]*spaceState
	head   head
}

func newIndex() *index {
	return &index{
		logs:   map[r.LogID]*logState{},
		byNum:  map[uint64]*logState{},
		spaces: map[r.SpaceID]*spaceState{},
	}
}

// space returns the state of a space, made if new.
func (x *index) space(id r.SpaceID) *spaceState {
	sp := x.spaces[id]
	if sp == nil {
		sp = &spaceState{id: id}
		x.spaces[id] = sp
	}
	return sp
}

// insert adds a log that is not there yet; its space must be this index's.
func (x *index) insert(l *logState) {
	x.logs[l.id] = l
	x.byNum[l.num] = l
	sp := l.space
	i := sort.Search(len(sp.logs), func(i int) bool { return sp.logs[i].id.Compare(l.id) >= 0 })
	sp.logs = append(sp.logs, nil)
	copy(sp.logs[i+1:], sp.logs[i:])
	sp.logs[i] = l
	sp.arrival = max(sp.arrival, l.arrival)
}

// load adds many logs at once.
func (x *index) load(logs []*logState) {
	for _, l := range logs {
		x.logs[l.id] = l
		x.byNum[l.num] = l
		l.space.logs = append(l.space.logs, l)
		l.space.arrival = max(l.space.arrival, l.arrival)
	}
	for _, sp := range x.spaces {
		sort.Slice(sp.logs, func(i, j int) bool { return sp.logs[i].id.Compare(sp.logs[j].id) < 0 })
	}
}
