package replication

import (
	"errors"
	"fmt"
	"time"

	"vixp2p/replication/canonical"
)

// Sentinels. Match them with errors.Is; the errors that carry them say what was
// wrong and what to do.
var (
	// ErrInvalid: bytes that break a rule of the format.
	ErrInvalid = canonical.ErrInvalid
	// ErrTooLarge: an operation, key or batch beyond the limits of design 4.3.
	ErrTooLarge = errors.New("too large")
	// ErrTooNew: written by a later version than this code understands.
	ErrTooNew = errors.New("written by a newer version")
	// ErrSignature: a signature that its origin did not make.
	ErrSignature = errors.New("bad signature")
	// ErrUnknownLog: a log that is not in this store.
	ErrUnknownLog = errors.New("unknown log")
	// ErrForked: two signed blocks of one log at one position.
	ErrForked = errors.New("forked log")
	// ErrGap: blocks that do not follow what is held.
	ErrGap = errors.New("gap")
	// ErrConflict: a conditional write whose condition no longer holds.
	ErrConflict = errors.New("the key has changed")
	// ErrNoSpace: the disk is too full to write safely; retry when there is room.
	ErrNoSpace = errors.New("disk full")
	// ErrDamaged: stored bytes are not what was written.
	ErrDamaged = errors.New("damaged data")
	// ErrClosed: the store or session is closed.
	ErrClosed = errors.New("closed")
	// ErrCursorReset: a cursor of another instance or generation; start again.
	ErrCursorReset = errors.New("cursor of another history")
	// ErrLocked: another process uses the data directory.
	ErrLocked = errors.New("data directory in use")
	// ErrBusy: a bounded queue is full; retry later.
	ErrBusy = errors.New("busy")
	// ErrNotAllowed: the origin may not write in the space.
	ErrNotAllowed = errors.New("not allowed")
	// ErrRevoked: a peer, certificate or invite that was revoked, or a write beyond
	// a revocation's cut.
	ErrRevoked = errors.New("revoked")
	// ErrUpgradeNeeded: a critical operation of a kind that this version does
	// not know.
	ErrUpgradeNeeded = errors.New("upgrade needed")
	// ErrNoKey: a content key of an encrypted space that is not here yet.
	ErrNoKey = errors.New("waits for a content key")
	// ErrNotReader: this node carries an encrypted space and may not read it.
	ErrNotReader = errors.New("not a reader")
)

// InvalidError says why bytes are not what they claim to be. It is
// errors.Is(err, ErrInvalid).
type InvalidError = canonical.Error

func invalidf(format string, args ...any) error { return canonical.Invalidf(format, args...) }

// VersionError: a format or protocol of another version.
type VersionError struct {
	What      string
	Got, Want uint64
}

func (e *VersionError) Error() string {
	mend := "upgrade the program that made it"
	if e.Got > e.Want {
		mend = "upgrade this program"
	}
	return fmt.Sprintf("%s version %d where this program knows %d: %s", e.What, e.Got, e.Want, mend)
}
func (e *VersionError) Is(t error) bool { return t == ErrTooNew && e.Got > e.Want || t == ErrInvalid }

// TooLargeError: a value beyond its limit.
type TooLargeError struct {
	What      string
	Size, Max int
}

func (e *TooLargeError) Error() string {
	return fmt.Sprintf("the %s is %d bytes, more than the limit of %d: split it or store it elsewhere and write a reference", e.What, e.Size, e.Max)
}
func (e *TooLargeError) Is(t error) bool { return t == ErrTooLarge }

// SignatureError: the run that ends at this seq is not signed by its origin.
type SignatureError struct {
	Log LogID
	Seq uint64
}

func (e *SignatureError) Error() string {
	return fmt.Sprintf("the signature of log %s at seq %d is not its origin's", e.Log.Short(), e.Seq)
}
func (e *SignatureError) Is(t error) bool { return t == ErrSignature || t == ErrInvalid }

// VoidError: the body of a stored block breaks a rule, so that none of its
// operations counts anywhere.
type VoidError struct {
	Log      LogID
	FirstSeq uint64
	Cause    error
}

func (e *VoidError) Error() string {
	return fmt.Sprintf("block %s/%d is void: %v", e.Log.Short(), e.FirstSeq, e.Cause)
}
func (e *VoidError) Unwrap() error { return e.Cause }

// DamageError: what is stored at a place is not what was written there.
type DamageError struct {
	Log     LogID
	Seq     uint64 // 0 where no single log is concerned
	File    string // the directory or file, as far as it is known
	Problem string
}

func (e *DamageError) Error() string {
	where := e.File
	if e.Seq != 0 {
		where += fmt.Sprintf(", log %s at seq %d", e.Log.Short(), e.Seq)
	}
	return fmt.Sprintf("damaged data in %s: %s; it is fetched again from peers that hold it", where, e.Problem)
}
func (e *DamageError) Is(t error) bool { return t == ErrDamaged }

// SkewWarning: an origin's clock is further ahead than MaxSkew.
type SkewWarning struct {
	Origin OriginKey
	Ahead  time.Duration
}
