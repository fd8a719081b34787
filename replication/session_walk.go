package replication

import "slices"

// sortedEntries is entries ascending by log, each log once with its highest
// position. It returns its argument where that is so already, else a copy.
func sortedEntries(entries []FrontierEntry) []FrontierEntry {
	sorted := true
	for i := 1; i < len(entries) && sorted; i++ {
		sorted = entries[i-1].Log.Compare(entries[i].Log) < 0
	}
	if sorted {
		return entries
	}
	out := append([]FrontierEntry(nil), entries...)
	slices.SortFunc(out, func(a, b FrontierEntry) int {
		if c := a.Log.Compare(b.Log); c != 0 {
			return c
		}
		return cmpSeq(b.Pos, a.Pos)
	})
	n := 0
	for i := range out {
		if i == 0 || out[i].Log != out[n-1].Log {
			out[n] = out[i]
			n++
		}
	}
	return out[:n]
}

// sortedKeys is the keys of a map in order, so that no map order shows in what a
// session does.
func sortedKeys[V any](m map[LogID]V) []LogID {
	keys := make([]LogID, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, LogID.Compare)
	return keys
}

// walkFrontiers calls fn for every log of three sorted lists, in order, with its
// position in each; zero where a list does not have it.
func walkFrontiers(a, b, c []FrontierEntry, fn func(log LogID, a, b, c Position)) {
	lists := [3][]FrontierEntry{a, b, c}
	for {
		var log LogID
		found := false
		for _, l := range lists {
			if len(l) > 0 && (!found || l[0].Log.Compare(log) < 0) {
				log, found = l[0].Log, true
			}
		}
		if !found {
			return
		}
		var pos [3]Position
		for i, l := range lists {
			if len(l) > 0 && l[0].Log == log {
				pos[i] = l[0].Pos
				lists[i] = l[1:]
			}
		}
		fn(log, pos[0], pos[1], pos[2])
	}
}

// validPosition: a position has a hash exactly where it has a seq.
func validPosition(p Position) bool { return (p.Seq == 0) == p.Hash.IsZero() }
