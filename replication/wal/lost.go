package wal

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	r "vixp2p/replication"
)

// What a repair could not keep stays told until it is back or dismissed. The
// repair writes one record per log that ends earlier than it is known to have
// ended, and one, under the bare kind, for the whole: the name of the damaged
// database that it set aside, a line feed, and what is missing without it being
// known where. A log's loss is over when its tip has reached what was held; all
// of it when the user removes that directory. Every open drops the records of
// what is over.

// maxNote bounds what repairs say without naming a log, in bytes.
const maxNote = 1 << 10

// Lost is what repairs of this directory could not keep and what no peer has
// sent since.
type Lost struct {
	// Logs are the logs that end earlier than they did, ascending by id.
	Logs []LostLog
	// Note tells what is missing besides, where no log can be named; empty if
	// nothing is.
	Note string
	// Dir is the damaged database that the repair set aside. Removing it
	// dismisses everything above. Empty if nothing is lost.
	Dir string
}

// LostLog is a log that ends at Tip (0: nothing of it is left) and was held at
// least up to Held before.
type LostLog struct {
	Log       r.LogID
	Tip, Held uint64
}

// Any tells whether anything is lost.
func (l *Lost) Any() bool { return l.Dir != "" }

// String sums up the loss in one line; empty if there is none.
func (l *Lost) String() string {
	if !l.Any() {
		return ""
	}
	var what []string
	if n := len(l.Logs); n > 0 {
		what = append(what, endEarlier(n))
	}
	if l.Note != "" {
		what = append(what, l.Note)
	}
	return fmt.Sprintf("%s: connect a peer that has it, or remove %s if nothing is missed", strings.Join(what, "; "), l.Dir)
}

// losses are the records of Lost as they were loaded; Open alone changes them.
type losses struct {
	held map[r.LogID]uint64
	dir  string // name within the store's directory
	note string
}

var keyLost = []byte{kindLost}

func (x *losses) loaded(key, value []byte) {
	if len(key) == 1 {
		x.dir, x.note, _ = strings.Cut(string(value), "\n")
		return
	}
	if x.held == nil {
		x.held = map[r.LogID]uint64{}
	}
	x.held[r.LogID(key[1:])] = decodeCount(value)
}

func (x *losses) encodeNote() []byte { return []byte(x.dir + "\n" + x.note) }

// Lost tells what repairs could not keep and what is not back yet. It costs one
// look at the directory.
func (s *Store) Lost() Lost {
	var l Lost
	if s.losses.dir == "" || !fileExists(s.opt.Dir, s.losses.dir) {
		return l
	}
	s.mu.RLock()
	for id, held := range s.losses.held {
		var tip uint64
		if known := s.idx.logs[id]; known != nil {
			tip = known.held()
		}
		if tip < held {
			l.Logs = append(l.Logs, LostLog{id, tip, held})
		}
	}
	s.mu.RUnlock()
	slices.SortFunc(l.Logs, func(a, b LostLog) int { return a.Log.Compare(b.Log) })
	if l.Note = s.losses.note; l.Note != "" || len(l.Logs) > 0 {
		l.Dir = filepath.Join(s.opt.Dir, s.losses.dir)
	}
	return l
}

// report gives each loss as a finding.
func (l *Lost) report(fn func(r.Finding)) {
	mend := "remove this directory if nothing is missed"
	for _, x := range l.Logs {
		fn(r.Finding{Log: x.Log, Seq: x.Tip + 1, File: l.Dir, Problem: fmt.Sprintf(
			"operations up to seq %d were lost to damage: they come back from a peer that holds them; %s", x.Held, mend)})
	}
	if l.Note != "" {
		fn(r.Finding{File: l.Dir, Problem: l.Note + "; " + mend})
	}
}

// dropLosses stages the removal of what is back or dismissed.
func (s *Store) dropLosses(t *tx) {
	now := s.Lost()
	for id := range s.losses.held {
		if !slices.ContainsFunc(now.Logs, func(l LostLog) bool { return l.Log == id }) {
			t.delOther(lostKey(id))
			delete(s.losses.held, id)
		}
	}
	if !now.Any() && s.losses.dir != "" {
		t.delOther(keyLost)
		s.losses = losses{}
	}
}
