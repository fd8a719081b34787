package wal

import (
	"fmt"
	"strings"

	r "vixp2p/replication"
)

// This file reckons what a repair loses: what was held by everything that can
// still be read, against what was kept.

// current tells whether the small records are all there and the newest: the head
// is not older than the witness says and its digest is theirs.
func (m *mender) current(w testimony) bool {
	if !m.hasHead || w.valid && w.commits > m.head.commits {
		return false
	}
	var sum digest
	for k := range m.c.records {
		key := []byte(k)
		if value := m.c.record(key); value != nil && key[0] != kindHead {
			sum.add(recordHash(key, value))
		}
	}
	return sum == m.head.digest
}

// linked takes what a genesis block says of its origin's log before. Only this
// node's own was certainly held here.
func (m *mender) linked(g *r.Genesis) {
	if g.Origin == m.o.self() && g.PrevPos.Seq > 0 {
		m.prev[g.PrevLog] = max(m.prev[g.PrevLog], g.PrevPos.Seq)
	}
}

// losses writes the records of what is lost, by this repair or by an earlier one
// that is neither made good nor dismissed.
func (m *mender) losses(w testimony) error {
	tips, own := map[r.LogID]uint64{}, map[r.LogID]bool{}
	for _, l := range m.logs {
		tips[l.id], own[l.id] = l.held(), l.origin == m.o.self()
	}
	if !m.known {
		for id, seq := range m.prev {
			m.held[id] = max(m.held[id], seq)
		}
		for id, seq := range m.c.cursors {
			if own[id] {
				m.held[id] = max(m.held[id], seq)
			}
		}
	}
	for id, held := range m.held {
		if tips[id] < held {
			m.res.logs++
		}
	}
	m.res.note = m.missing(w)
	all := losses{dir: m.c.setAside, note: m.res.note}
	if !m.c.dismissed {
		m.earlierLosses(&all)
	}
	lost := all.note != ""
	for id, held := range m.held {
		if tips[id] >= held {
			continue
		}
		lost = true
		if err := m.small(lostKey(id), encodeCount(held)); err != nil {
			return err
		}
	}
	if !lost {
		return nil
	}
	return m.small(keyLost, all.encodeNote())
}

// missing says what is missing without it being known where; empty where every
// log's end is known.
func (m *mender) missing(w testimony) string {
	switch {
	case m.known:
		return ""
	case m.hasHead && w.valid && w.commits > m.head.commits:
		return many(w.commits-m.head.commits, "acknowledged commit is", "acknowledged commits are") + " missing and it is not known which"
	case m.hasHead:
		var n uint64
		for number := uint64(1); number <= m.numbersGiven; number++ {
			if !m.c.numbers[number] {
				n++
			}
		}
		if n -= min(n, decodeCount(m.c.record([]byte{kindFreed}))); n == 0 {
			return "" // every block is kept or known, or a cut gave it another number
		}
		return many(n, "block is missing and it is not known of which log", "blocks are missing and it is not known of which logs")
	case w.valid && w.commits > 0:
		return fmt.Sprintf("the store's head is lost: which of its %d acknowledged commits are missing is not known", w.commits)
	}
	return "the store's head is lost: whether acknowledged commits are missing is not known"
}

// earlierLosses takes what the old database says of an earlier repair.
func (m *mender) earlierLosses(all *losses) {
	var old losses
	for k := range m.c.records {
		if key := []byte(k); key[0] == kindLost {
			if value := m.c.record(key); value != nil {
				old.loaded(key, value)
			}
		}
	}
	for id, held := range old.held {
		m.held[id] = max(m.held[id], held)
	}
	if old.note != "" && !strings.Contains(all.note, old.note) {
		all.note = strings.TrimPrefix(all.note+"; before that: "+old.note, "; before that: ")
	}
	if len(all.note) > maxNote {
		all.note = all.note[:maxNote]
	}
}

// small writes a small record.
func (m *mender) small(key, value []byte) error {
	m.sum.add(recordHash(key, value))
	return m.out.Set(key, seal(key, value))
}
