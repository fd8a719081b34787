package wal

import (
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
		{"store behind", "boot", lease, ahead, false, false, true, "1 acknowledged commits are missing"},
		{"store behind after a reboot", "next", lease, ahead, false, false, true, "missing"},
		{"another head", "boot", lease, other, false, false, true, "not the one"},
		{"lease copied", "boot", copied, wit, false, false, false, "lease"},
		{"lease copied to another machine", "next", copied, wit, false, false, false, "lease"},
		{"lease missing", "boot", leaseFile{}, wit, false, false, false, "lease"},
		{"witness replaced", "boot", lease, renamed, false, false, false, "witness"},
		{"witness missing", "boot", lease, testimony{}, false, false, false, "witness"},
		{"witness missing after a reboot", "next", lease, testimony{}, false, false, false, "witness"},
	} {
		c := judge(&id, &h, tc.boot, tc.lease, tc.wit)
		if c.keepEpoch != tc.epoch || c.keepInstance != tc.instance || c.lost != tc.lost ||
			!strings.Contains(c.why, tc.why) || (c.why == "") != tc.instance {
			t.Errorf("%s: %+v", tc.name, c)
		}
	}
	none := id
	none.boot = ""
	if c := judge(&none, &h, "", lease, wit); c.keepEpoch {
		t.Error("two unknown boot ids count as the same boot")
	}
}
