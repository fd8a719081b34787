package node

import (
	"errors"

	"vixp2p/replication"
)

// Errors of the node. Those of package replication that a caller meets are
// repeated here, so that a program needs to import node alone.
var (
	// ErrNotFound: the key has no value.
	ErrNotFound = errors.New("not found")
	// ErrSelf: an address leads to this node itself.
	ErrSelf = errors.New("it is this node itself: name another one")
	// ErrOffline: the node was opened without a network.
	ErrOffline = errors.New("this node is open without a network, and has no peers: run it")
	// ErrNotConnected: there is no session with that peer.
	ErrNotConnected = errors.New("no session with this peer")
	// ErrReplicas: fewer members than asked for have stated to this node that they
	// hold a write; see ReplicaError.
	ErrReplicas = errors.New("not enough replicas")

	ErrConflict    = replication.ErrConflict
	ErrTooLarge    = replication.ErrTooLarge
	ErrNoSpace     = replication.ErrNoSpace
	ErrClosed      = replication.ErrClosed
	ErrCursorReset = replication.ErrCursorReset
	ErrLocked      = replication.ErrLocked
	ErrDamaged     = replication.ErrDamaged
	ErrInvalid     = replication.ErrInvalid
	ErrNoKey       = replication.ErrNoKey
	ErrNotReader   = replication.ErrNotReader
)

// errNodeClosed is what every call gets once Close has begun.
var errNodeClosed = errorString{"the node is closed: open it again", replication.ErrClosed}

// errorString is a message of its own for a sentinel.
type errorString struct {
	text string
	is   error
}

func (e errorString) Error() string { return e.text }
func (e errorString) Unwrap() error { return e.is }
