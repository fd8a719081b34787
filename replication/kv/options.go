package kv

import (
	"errors"
	"log/slog"
	"math"
	"time"

	"vixp2p/replication"
)

// Options says where the view lives and what it is made from. Zero values of the
// fields that are not required give the defaults in parentheses.
type Options struct {
	// Dir is the view's directory, made if missing. It holds derived data only:
	// removing it while the view is closed costs a rebuild. Required.
	Dir string
	// Store has the logs. It must stay open until Close has returned. Required.
	Store replication.Store
	// Opener has the content keys of encrypted spaces (none: no space is encrypted).
	// Tell KeysChanged of every change of what it answers.
	Opener replication.Opener
	// Logger takes one line per event (none).
	Logger *slog.Logger
	// BootID names the boot of the machine. Files that a killed process left are
	// kept (and checked) if it is the one that they were written under; the view
	// does not sync them, so after another they are rebuilt. Empty: always.
	BootID string
	// OverlayBytes bounds what the view holds in memory of this node's writes
	// that are not applied yet; Admit waits above it (32 MiB).
	OverlayBytes int
	// CacheBytes bounds what the view keeps in memory of keys that were read or written
	// lately (64 MiB; negative: nothing).
	CacheBytes int
	// ReserveBytes of free disk space are left alone: with less the view stops
	// applying and goes on when there is more (64 MiB; negative: no check).
	// Badger writes through memory maps, where a full disk is a crash and not an
	// error.
	ReserveBytes int64
	// FreeBytes tells how many bytes are free where path is (statfs on Unix; no
	// check elsewhere).
	FreeBytes func(path string) (uint64, error)

	// memTable is the size of Badger's memtables in bytes (16 MiB).
	memTable int64
	// maxBatch bounds the bytes of a transaction (what Badger takes).
	maxBatch int64
	// retryMin is the first pause after a failed step, doubling (500 ms).
	retryMin time.Duration
	// pace is the pause of a space after a step while nobody waits for the next one
	// (5 ms). So what is written all the time is applied in few transactions, beside
	// the commits of the logs and not between them.
	pace time.Duration
	// checkFirst is how many bytes of tables that seem unchanged are compared with
	// what was closed before anything is read (64 MiB; negative: none).
	checkFirst int64
	// stuckPause is the pause before a space that is stuck is tried again (1 min).
	stuckPause time.Duration
}

const (
	defaultOverlay  = 32 << 20
	defaultCache    = 64 << 20
	defaultReserve  = 64 << 20
	defaultRetryMin = 500 * time.Millisecond
	defaultPace     = 5 * time.Millisecond
	retryMax        = 30 * time.Second
	defaultStuck    = time.Minute
	defaultFirst    = 64 << 20
)

// withDefaults returns a copy with every default filled in.
func (o Options) withDefaults() (Options, error) {
	if o.Dir == "" || o.Store == nil {
		return o, errors.New("the key-value view needs a directory and a store: set Options.Dir and Options.Store")
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.OverlayBytes <= 0 {
		o.OverlayBytes = defaultOverlay
	}
	if o.CacheBytes == 0 {
		o.CacheBytes = defaultCache
	}
	if o.ReserveBytes == 0 {
		o.ReserveBytes = defaultReserve
	}
	if o.FreeBytes == nil {
		o.FreeBytes = freeBytes
	}
	if o.memTable == 0 {
		o.memTable = defaultMemTable
	}
	if o.maxBatch == 0 {
		o.maxBatch = math.MaxInt64
	}
	if o.retryMin == 0 {
		o.retryMin = defaultRetryMin
	}
	if o.pace == 0 {
		o.pace = defaultPace
	}
	if o.checkFirst == 0 {
		o.checkFirst = defaultFirst
	}
	if o.stuckPause == 0 {
		o.stuckPause = defaultStuck
	}
	return o, nil
}
