package memlog_test

import (
	"math/rand/v2"
	"testing"

	"vixp2p/replication"
	"vixp2p/replication/logtest"
	"vixp2p/replication/memlog"
)

// dir is a Disk as a directory of the suite.
type dir struct {
	disk  *memlog.Disk
	store *memlog.Store // opened last
	rand  *rand.ChaCha8
}

func (d *dir) Open(o logtest.OpenOptions) (replication.Store, error) {
	s, err := memlog.Open(memlog.Options{Network: o.Network, Key: o.Key, Now: o.Now, Grant: o.Grant, Rand: d.rand, Disk: d.disk})
	if err != nil {
		return nil, err
	}
	d.store = s
	return s, nil
}

func (d *dir) Clone(testing.TB) logtest.Dir { return &dir{disk: d.disk.Clone(), rand: d.rand} }
func (d *dir) Crash()                       { d.store.Crash() }
func (d *dir) SetFull(full bool)            { d.disk.SetFull(full) }
func (d *dir) LoseLast()                    { d.disk.Rollback(1) }

func (d *dir) Damage(log replication.LogID, seq uint64) {
	if !d.disk.Damage(log, seq) {
		panic("there is no such block")
	}
}

func TestSuite(t *testing.T) {
	seed := byte(0) // no two directories may draw the same epochs
	logtest.Run(t, logtest.Factory{New: func(testing.TB) logtest.Dir {
		seed++
		return &dir{disk: &memlog.Disk{}, rand: rand.NewChaCha8([32]byte{seed})}
	}})
}
