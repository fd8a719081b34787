package wal

import (
	"bytes"
	"os/exec"
	"sync/atomic"
	"testing"

	"github.com/dgraph-io/badger/v4"

	r "vixp2p/replication"
	"vixp2p/replication/logtest"
)

// TestSuite runs the conformance suite. Crashes and lost transactions are tested
// with real processes and files in this package.
func TestSuite(t *testing.T) {
	logtest.Run(t, logtest.Factory{New: func(t testing.TB) logtest.Dir {
		return &suiteDir{t: t, path: t.TempDir()}
	}})
}

// TestSuiteAhead is the same where each transaction is staged while the one before it
// is on its way to the disk.
func TestSuiteAhead(t *testing.T) {
	if testing.Short() {
		t.Skip("ahead_test.go has the order of things; this is its breadth")
	}
	logtest.Run(t, logtest.Factory{New: func(t testing.TB) logtest.Dir {
		return &suiteDir{t: t, path: t.TempDir(), eager: true}
	}})
}

type suiteDir struct {
	t     testing.TB
	path  string
	eager bool
	full  atomic.Bool
	store *Store
}

func (d *suiteDir) Open(o logtest.OpenOptions) (r.Store, error) {
	s, err := Open(Options{
		Dir: d.path, Network: o.Network, Key: o.Key, Now: o.Now, Grant: o.Grant, Sealer: o.Sealer, eager: d.eager,
		FreeBytes: func(string) (uint64, error) {
			if d.full.Load() {
				return 1 << 20, nil
			}
			return 1 << 40, nil
		},
	})
	if err != nil {
		return nil, err
	}
	d.store = s
	return s, nil
}

func (d *suiteDir) Clone(t testing.TB) logtest.Dir {
	to := t.TempDir()
	if out, err := exec.Command("cp", "-a", d.path+"/.", to).CombinedOutput(); err != nil {
		t.Fatalf("cp: %v: %s", err, out)
	}
	return &suiteDir{t: t, path: to, eager: d.eager}
}

func (d *suiteDir) SetFull(full bool) { d.full.Store(full) }

// Damage writes a block with a flipped byte over the stored one.
func (d *suiteDir) Damage(log r.LogID, seq uint64) {
	l, _ := d.store.state(log)
	err := d.store.db.Update(func(txn *badger.Txn) error {
		key, value, err := lastAtOrBefore(txn, blockPrefix(l.num), blockKey(l.num, seq))
		if err != nil {
			return err
		}
		value = bytes.Clone(value)
		value[len(value)-trailerLen-1] ^= 1
		return txn.Set(key, value)
	})
	if err != nil {
		d.t.Fatal(err)
	}
}
