package wal

import (
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"time"

	r "vixp2p/replication"
)

// Options says which directory to open and how. Zero values of the fields that
// are not required give the defaults in parentheses.
type Options struct {
	// Dir is the directory of the store, made if missing. Required.
	Dir string
	// Network is the network that the directory belongs to, for life. Required.
	Network r.NetworkID
	// Key signs what this node appends. Required.
	Key ed25519.PrivateKey
	// Grant is asked, when a log of this node begins, for the certificate that its
	// genesis block delivers; an error refuses the append. The committer asks: it must
	// not call the store's writing methods. (None: an open network.)
	Grant func(space r.SpaceID) ([]byte, error)
	// Sealer is asked, when a block of this node begins, how its body is sealed; an
	// error refuses the append. (None: bodies are stored as they are.)
	Sealer r.Sealer
	// Compress packs the bodies of blocks of this node with zstd where that saves an
	// eighth at least, which every member unpacks; those that are sealed are not packed.
	Compress bool
	// Relaxed leaves out the fsync of each commit: a crash of the machine may
	// then lose acknowledged writes (G1).
	Relaxed bool
	// Logger takes one line per event (none).
	Logger *slog.Logger
	// Now is the wall clock (time.Now).
	Now func() time.Time
	// Rand gives instances, epochs and lease nonces (crypto/rand).
	Rand io.Reader
	// ReserveBytes of free disk space are left alone: a commit that would touch
	// them is refused with ErrNoSpace (64 MiB; negative: no check). Badger
	// writes through memory maps, where a full disk is a crash and not an error,
	// and needs room for one memtable and its table at any time; less than 48
	// MiB does not cover that.
	ReserveBytes int64
	// FreeBytes tells how many bytes are free for this user where path is
	// (statfs on Unix; no check elsewhere).
	FreeBytes func(path string) (uint64, error)
	// OnDamage is called, once per log and from a goroutine of its own, when a
	// read found damage in a store that is open (nil: nothing). The repair comes
	// when the store is closed and opened again; Close waits for OnDamage, so it
	// must not call Close itself.
	OnDamage func(*r.DamageError)

	// These are replaced in tests. syncFile makes a file of the database durable
	// that Badger did not; onWrite is called before a transaction goes to the disk;
	// eager stages the next one in each case.
	onWrite  func() error
	eager    bool
	bootID   func() string
	proof    func(fs.FileInfo) fileProof
	syncFile func(*os.File) error
}

const defaultReserve = 64 << 20

// withDefaults returns a copy with every default filled in.
func (o Options) withDefaults() (Options, error) {
	if o.Dir == "" {
		return o, errors.New("the store needs a directory: set Options.Dir")
	}
	if len(o.Key) != ed25519.PrivateKeySize {
		return o, errors.New("the store needs an Ed25519 key: set Options.Key")
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Rand == nil {
		o.Rand = rand.Reader
	}
	if o.ReserveBytes == 0 {
		o.ReserveBytes = defaultReserve
	}
	if o.FreeBytes == nil {
		o.FreeBytes = freeBytes
	}
	if o.onWrite == nil {
		o.onWrite = func() error { return nil }
	}
	if o.bootID == nil {
		o.bootID = bootID
	}
	if o.proof == nil {
		o.proof = proofOf
	}
	if o.syncFile == nil {
		o.syncFile = (*os.File).Sync
	}
	return o, nil
}

// self is the public half of the key.
func (o *Options) self() r.OriginKey {
	return r.OriginKey(o.Key.Public().(ed25519.PublicKey))
}
