package kv

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"vixp2p/replication"
	"vixp2p/replication/memlog"
)

var shapes = map[string]shape{
	"sparse":  {logs: 4, blocks: 60, maxOps: 5, keys: 40, name: 0.7, maxNames: 3, big: 0.05},
	"crowded": {logs: 6, blocks: 80, maxOps: 6, keys: 2, name: 0.3, maxNames: 12, big: 0.1},
	"piling":  {logs: 6, blocks: 60, maxOps: 8, keys: 2, name: 0.06, maxNames: 90, big: 0.02},
}

// TestOrderOfArrivalDoesNotMatter feeds random histories in random orders, with
// the view closed and opened again on the way, with huge transactions and with
// one for each operation, and compares all with the pure function (design 5.2,
// G5).
func TestOrderOfArrivalDoesNotMatter(t *testing.T) {
	for name, s := range shapes {
		for seed := range uint64(4) {
			t.Run(fmt.Sprintf("%s/%d", name, seed), func(t *testing.T) {
				t.Parallel()
				rnd := rand.New(rand.NewPCG(seed, 1))
				h := makeHistory(rnd, s)
				for i, maxBatch := range []int64{0, 1} {
					disk, dir := &memlog.Disk{}, tempDir(t)
					store := openStore(t, 100, disk)
					f := newFeeder(h, rnd)
					open := func() *View {
						return openViewWith(t, Options{Dir: dir, Store: store, BootID: "boot", maxBatch: maxBatch})
					}
					v := open()
					for f.feed(t, store, 1+rnd.IntN(20)) {
						switch rnd.IntN(4) {
						case 0:
							if err := v.Close(); err != nil {
								t.Fatal(err)
							}
							v = open()
						case 1:
							settled(t, store, v)
						}
					}
					settled(t, store, v)
					checkState(t, v, h)
					if i == 0 {
						before := countRecords(v)
						if err := v.Rebuild(testContext(t)); err != nil {
							t.Fatal(err)
						}
						checkState(t, v, h)
						if after := countRecords(v); fmt.Sprint(after) != fmt.Sprint(before) {
							t.Errorf("a rebuild leaves records %v, not %v", after, before)
						}
					}
					if v.Generation() != uint64(1+(1-i)) {
						t.Errorf("generation %d", v.Generation())
					}
					if err := v.Verify(testContext(t), VerifyOptions{Deep: true}, func(f replication.Finding) { t.Errorf("deep verify: %+v", f) }); err != nil {
						t.Error(err)
					}
				}
			})
		}
	}
}
