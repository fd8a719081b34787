package replicator

import (
	"fmt"

	"vixp2p/replication"
)

// Conn carries the messages of one session, after Hello. Package protocols has
// one over a libp2p stream.
type Conn interface {
	// Read returns the next message. What belongs to it is the caller's; release
	// gives back what was reserved for its data (nil: nothing was). It blocks
	// until there is a message, the connection breaks or Close is called. An
	// error is final.
	Read() (msg replication.Message, release func(), err error)
	// Write sends messages in this order and returns when the transport has
	// taken them. It blocks while the peer does not read, until Close is called.
	// An error is final.
	Write(msgs ...replication.Message) error
	// Close ends the connection, unblocks Read and Write and does not block on
	// the peer. The code and detail say why, as far as the transport can carry
	// that. Later calls do nothing.
	Close(code replication.Code, detail string) error
}

// PeerInfo says who is at the other end of a connection, as proven in Hello.
type PeerInfo struct {
	ID       string // as people see it: the libp2p peer ID
	Key      replication.OriginKey
	Instance replication.Instance
	Label    string
	// Spaces the peer named in Hello.
	Spaces []replication.SpaceInfo
	// Relaxed: the peer does not fsync what it commits, so that its acks are no
	// receipts.
	Relaxed bool
	// PullOnly: the peer asked for pushes only in answer to OutboxPull.
	PullOnly bool
	// Levels: the peer goes down the levels of the trie of a frontier (design 6.3).
	Levels bool
	// SharesLevels: it takes for its own way down where this node's ended.
	SharesLevels bool
	// Carries tells whether the peer gets the blocks of a space; it does not change
	// during the session, is quick and is called from several goroutines. The control
	// space everybody gets. (Every space: an open network.)
	Carries func(replication.SpaceID) bool
	// Lacks says what the peer should have and does not get in this session, for people;
	// empty: nothing. While it lacks something it counts as out of step. (Nothing.)
	Lacks func() string
	// PieceBytes overrides Options.PieceBytes, for a path that is cut often (a
	// relay); 0 leaves it.
	PieceBytes int
}

// EndError says why a session ended. It is errors.Is(err, Cause).
type EndError struct {
	Peer     string // PeerInfo.ID
	Code     replication.Code
	Detail   string
	FromPeer bool  // the peer said so
	Cause    error // of the connection, if that broke
}

func (e *EndError) Error() string {
	who := "session with " + e.Peer + " ended"
	if e.FromPeer {
		who = e.Peer + " ended the session"
	}
	switch {
	case e.Cause != nil:
		return fmt.Sprintf("%s: the connection broke: %v", who, e.Cause)
	case e.Detail != "":
		return fmt.Sprintf("%s: %s: %s", who, e.Code, e.Detail)
	}
	return fmt.Sprintf("%s: %s", who, e.Code)
}

func (e *EndError) Unwrap() error { return e.Cause }
