package kv

import (
	"encoding/binary"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"vixp2p/replication"
)

// TestCacheIsNeverBehind: while keys are written all the time, no read gives less than
// what was applied before it began, nor less than a read before it, with a cache that
// holds all keys, with one that throws most of them out and with none.
func TestCacheIsNeverBehind(t *testing.T) {
	const keys, readers = 20, 4
	writes := uint64(1200)
	if testing.Short() {
		writes = 400
	}
	for _, size := range []int{0, 4 << 10, -1} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			store := newStore(t, 1)
			v := openViewWith(t, Options{Dir: tempDir(t), Store: store, BootID: "boot", CacheBytes: size, pace: 1})
			ctx := testContext(t)
			name := func(k uint64) []byte { return fmt.Append(nil, "key/", k%keys) }
			var applied [keys]atomic.Uint64
			var reading sync.WaitGroup
			stop := make(chan struct{})
			for range readers {
				reading.Go(func() {
					var last [keys]uint64
					for k := uint64(0); ; k++ {
						select {
						case <-stop:
							return
						default:
						}
						least := applied[k%keys].Load()
						e, ok, err := v.Get(ctx, testSpace, name(k))
						if err != nil {
							t.Error(err)
							return
						}
						if !ok {
							if least > 0 {
								t.Errorf("key %d is gone", k%keys)
							}
							continue
						}
						n := binary.BigEndian.Uint64(e.Value)
						if n < least || n < last[k%keys] {
							t.Errorf("key %d is %d after %d was applied and %d read", k%keys, n, least, last[k%keys])
							return
						}
						last[k%keys] = n
						clear(e.Value) // it is the caller's
					}
				})
			}
			w := newAuthor(2, 1)
			var at replication.Position
			seqs := map[uint64]uint64{}
			for n := uint64(1); n <= writes; n++ {
				op := replication.Op{
					Kind: replication.KindPut, Key: name(n), HLC: replication.HLC(n), Order: n,
					Payload: binary.BigEndian.AppendUint64(nil, n),
				}
				if before := seqs[n%keys]; before > 0 {
					op.Supersedes = []replication.Dot{w.dot(before)}
				}
				seqs[n%keys] = n
				at = ingest(t, store, w, at, w.block([]replication.Op{op}, nil))
				if err := v.WaitApplied(ctx, testSpace, store.Head()); err != nil {
					t.Fatal(err)
				}
				applied[n%keys].Store(n)
			}
			close(stop)
			reading.Wait()
		})
	}
}

// TestValuesAreTheCallers: what a caller does to a value that it was given shows in no
// later read, wherever the value came from.
func TestValuesAreTheCallers(t *testing.T) {
	store := newStore(t, 1)
	v := openView(t, store, tempDir(t))
	ctx := testContext(t)
	big := strings.Repeat("b", inlineValue+1)
	reads := map[string]func(key string) ([]Entry, error){
		"get": func(key string) ([]Entry, error) {
			e, _, err := v.Get(ctx, testSpace, []byte(key))
			return []Entry{e}, err
		},
		"siblings": func(key string) ([]Entry, error) { return v.Siblings(ctx, testSpace, []byte(key), 9) },
		"list": func(key string) (list []Entry, err error) {
			return list, v.List(ctx, testSpace, []byte(key), func(e Entry) error {
				list = append(list, e)
				return nil
			})
		},
	}
	check := func(where string) {
		for key, want := range map[string]string{"short": "short value", "big": big} {
			for name, read := range reads {
				for range 2 {
					list, err := read(key)
					if err != nil || len(list) != 1 || string(list[0].Value) != want {
						t.Fatalf("%s: %s of %q: %v, %v", where, name, key, list, err)
					}
					clear(list[0].Value)
				}
			}
		}
	}
	write(t, store, v, put("short", "short value"), put("big", big))
	check("just written")
	settled(t, store, v)
	check("applied")
	if err := v.Rebuild(ctx); err != nil {
		t.Fatal(err)
	}
	check("applied anew")
}
