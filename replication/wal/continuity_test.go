package wal

import (
	"bytes"
	"fmt"
	"maps"
	"path/filepath"
	"strings"
	"testing"

	r "vixp2p/replication"
)

// TestJudge is the table of doc.go.
func TestJudge(t *testing.T) {
	h := head{commits: 10, prev: r.Hash{9}}
	id := identity{boot: "boot", lease: fileProof{1, 2}, nonce: [16]byte{3}, witness: 4}
	lease := leaseFile{present: true, proof: id.lease, nonce: id.nonce}
	wit := testimony{present: true, valid: true, inode: 4, commits: 10, head: h.hash()}
	behind := func(n uint64, hash r.Hash) testimony {
		w := wit
		w.commits, w.head = 10-n, hash
		return w
	}
	unreadable := wit
	unreadable.valid = false
	ahead := wit
	ahead.commits = 11
	other := wit
	other.head = r.Hash{1}
	renamed := wit
	renamed.inode = 5
	copied := lease
	copied.proof.ctime = 3
	for _, tc := range []struct {
		name                  string
		boot                  string
		lease                 leaseFile
		wit                   testimony
		epoch, instance, lost bool
		why                   string
	}{
		{"nothing changed", "boot", lease, wit, true, true, false, ""},
		{"killed before the witness", "boot", lease, behind(1, h.prev), true, true, false, ""},
		{"another commit before", "boot", lease, behind(1, r.Hash{1}), false, false, true, "not the one"},
		{"witness rolled back", "boot", lease, behind(2, r.Hash{1}), false, false, false, "older than the store"},
		{"witness unreadable", "boot", lease, unreadable, false, false, false, "damaged"},
		{"reboot", "next", lease, wit, false, true, false, ""},
		{"reboot, witness not written back", "next", lease, behind(5, r.Hash{1}), false, true, false, ""},
		{"reboot, witness torn", "next", lease, unreadable, false, true, false, ""},
		{"no boot id", "", lease, wit, false, true, false, ""},
		{"store behind", "boot", lease, ahead, false, false, true, "1 acknowledged commit is missing"},
		{"store behind after a reboot", "next", lease, ahead, false, false, true, "missing"},
		{"another head", "boot", lease, other, false, false, true, "not the one"},
		{"lease copied", "boot", copied, wit, false, false, false, "lease"},
		{"lease copied to another machine", "next", copied, wit, false, false, false, "lease"},
		{"lease missing", "boot", leaseFile{}, wit, false, false, false, "lease"},
		{"witness replaced", "boot", lease, renamed, false, false, false, "witness"},
		{"witness missing", "boot", lease, testimony{}, false, false, false, "witness"},
		{"witness missing after a reboot", "next", lease, testimony{}, false, false, false, "witness"},
	} {
		c := judge(&id, &h, tc.boot, tc.lease, tc.wit, false)
		if c.keepEpoch != tc.epoch || c.keepInstance != tc.instance || c.lost != tc.lost ||
			!strings.Contains(c.why, tc.why) || (c.why == "") != tc.instance {
			t.Errorf("%s: %+v", tc.name, c)
		}
	}
	none := id
	none.boot = ""
	if c := judge(&none, &h, "", lease, wit, true); c.keepEpoch {
		t.Error("two unknown boot ids count as the same boot")
	}
	relaxed := id
	relaxed.relaxed = true
	for _, tc := range []struct {
		name            string
		boot            string
		clean           bool
		epoch, instance bool
	}{
		{"relaxed, killed", "boot", false, true, true},
		{"relaxed, closed before a reboot", "next", true, false, true},
		{"relaxed, power cut", "next", false, false, false},
		{"relaxed, no boot id", "", false, false, false},
	} {
		c := judge(&relaxed, &h, tc.boot, lease, wit, tc.clean)
		if c.keepEpoch != tc.epoch || c.keepInstance != tc.instance || c.unsynced == tc.instance || c.lost {
			t.Errorf("%s: %+v", tc.name, c)
		}
	}
}

// TestPowerCut rolls the database and the witness back to what happened to be on
// disk. Arrival numbers are then given again: with relaxed durability, where that
// is to be expected, the instance is new, so that nobody goes on from the lost
// ones.
func TestPowerCut(t *testing.T) {
	for _, tc := range []struct {
		name    string
		relaxed bool // when it happened
		clean   bool // closed before the machine stopped
		boot    string
		fresh   bool // the instance
	}{
		{"relaxed", true, false, "next", true},
		{"relaxed, closed before", true, true, "next", false},
		{"relaxed, killed only", true, false, "first", false},
		{"synced", false, false, "next", false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			boot := "first"
			mod := func(o *Options) {
				o.Relaxed, o.bootID, o.proof = tc.relaxed, func() string { return boot }, sameProof
			}
			dir := fastDir(t)
			s := openAt(t, dir, "a", mod)
			var first r.Appended
			for range 5 {
				first = mustAppend(t, s, put("k", "v"))
			}
			img := takeImage(t, dir)
			lost := mustAppend(t, s, put("k", "lost"))
			switch {
			case tc.clean:
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
				img = takeImage(t, dir)
			case tc.boot == "first":
				img = takeImage(t, dir) // the page cache outlives the process
			}
			dir = fastDir(t)
			img.write(t, dir)
			before := s.Info().Instance
			boot, tc.relaxed = tc.boot, false // how it is opened next does not matter
			s = openAt(t, dir, "a", mod)
			if fresh := s.Info().Instance != before; fresh != tc.fresh || fresh != strings.Contains(s.Info().Recovered, "relaxed") {
				t.Errorf("new instance: %v, found %q", fresh, s.Info().Recovered)
			}
			next := mustAppend(t, s, put("k", "next"))
			if (next.First.Log == first.First.Log) != (boot == "first") {
				t.Error("the epoch")
			}
			if next.First.Log == lost.First.Log && next.First.Seq <= lost.First.Seq {
				t.Errorf("seq %d is given twice", next.First.Seq)
			}
			mustBeWhole(t, s)
		})
	}
}

// TestPowerCutLeavesHoles loses the end of the value log, which was not synced,
// where the records that point into it were written back: the log ends before.
func TestPowerCutLeavesHoles(t *testing.T) {
	boot := "first"
	mod := func(o *Options) { o.Relaxed, o.bootID, o.proof = true, func() string { return boot }, sameProof }
	dir := fastDir(t)
	s := openAt(t, dir, "a", mod)
	text := func(i int) string { return fmt.Sprint("text ", i, strings.Repeat("x", 100<<10)) }
	var id r.LogID
	for i := range 6 {
		id = mustAppend(t, s, put("k", text(i))).First.Log
	}
	img := maps.Clone(takeImage(t, dir))
	hit := false
	for name, f := range img {
		if i := bytes.Index(f.data, []byte(text(4))); filepath.Ext(name) == ".vlog" && i >= 0 {
			img[name] = imageFile{f.size, f.data[:i]}
			hit = true
		}
	}
	if !hit {
		t.Fatal("the value log was not found")
	}
	dir = fastDir(t)
	img.write(t, dir)
	boot = "next"
	before := s.Info().Instance
	s = openAt(t, dir, "a", mod)
	if s.Info().Instance == before || !strings.Contains(s.Info().Recovered, "relaxed") {
		t.Errorf("%+v", s.Info())
	}
	if l, _ := s.Log(id); l.Tip.Seq != 4 {
		t.Errorf("the log ends at %d, want 4", l.Tip.Seq)
	}
	mustBeRepaired(t, s)
}
