package localapi

import (
	"context"
	"time"
)

// Backend is what the local API answers from. All methods are safe for
// concurrent use. An emit function's error ends the call, which returns it.
type Backend interface {
	Status(ctx context.Context) (Status, error)

	// Connect dials an address and returns when Hello is done.
	Connect(ctx context.Context, addr string) (Connected, error)
	// Disconnect ends the session with a peer, named by its ID or unique label,
	// and does not dial it again until told to.
	Disconnect(ctx context.Context, peer string) (Disconnected, error)
	// Forget ends the session with a peer, named as for Disconnect, and removes it
	// from the address book.
	Forget(ctx context.Context, peer string) (Forgotten, error)
	// Wait returns when the condition holds; CodeTimeout if ctx ends first.
	Wait(ctx context.Context, w Wait) error

	// Get returns a key's winner with all Siblings; CodeNotFound if it has none.
	Get(ctx context.Context, space string, key []byte) (Entry, error)
	// List emits the keys in order, each with its Siblings if it has several.
	List(ctx context.Context, space string, q List, emit func(Entry) error) error
	// Write makes one batch durable, as one transaction. With Replicas it then
	// waits; CodeReplicas carries what was written.
	Write(ctx context.Context, space string, w Write) (Written, error)

	// Watch emits what happens to keys until ctx ends or Count events came.
	Watch(ctx context.Context, space string, q Watch, emit func(Event) error) error
	// Tail emits operations in order of arrival here.
	Tail(ctx context.Context, space string, q Tail, emit func(Record) error) error

	// Send makes a message durable here and waits for the recipient's own
	// acknowledgement; CodeUndelivered carries what was sent.
	Send(ctx context.Context, m Send) (Sent, error)
	// Messages emits the messages to this node in order of arrival.
	Messages(ctx context.Context, in Inbox, emit func(Message) error) error

	// Verify checks every hash, signature and index, and emits what is wrong.
	// With rebuild it makes the view anew from the logs first.
	Verify(ctx context.Context, rebuild bool, emit func(Finding) error) error

	Members
}

// Version says who wrote what when: part of every answer about a write.
type Version struct {
	Origin string `json:"origin"` // peer ID
	Log    string `json:"log"`    // hex
	Seq    uint64 `json:"seq"`    // from 1
	Time   Time   `json:"time"`
}

// Sibling is one of the concurrent values of a key.
type Sibling struct {
	Value
	Version
}

// Entry is a key with its winning value.
type Entry struct {
	Key
	Value
	Version
	// Conflicts counts the siblings besides the winner.
	Conflicts int `json:"conflicts"`
	// Siblings are all values, the winner first; `get --json` leaves them out.
	Siblings []Sibling `json:"siblings,omitempty"`
}

// Conflicts is the answer of `get --conflicts`.
type Conflicts struct {
	Key
	Siblings []Sibling `json:"siblings"`
}

// Written is where a write stands; Seq is that of the batch's last operation.
type Written struct {
	Log      string `json:"log"`
	Seq      uint64 `json:"seq"`
	Replicas int    `json:"replicas"` // other members that stated that they hold it durably
	// Note is a sentence about what a write that is durable here will not do.
	Note string `json:"note,omitempty"`
}

// Kinds of events of a watch.
const (
	EventPut      = "put"
	EventDelete   = "delete"
	EventConflict = "conflict" // the key has several values now
	EventReset    = "reset"    // the cursor is of another history: what follows starts from the beginning
)

// CauseRevocation: writes of the key count no more, beyond the cut of a revoked
// peer.
const CauseRevocation = "revocation"

// Event is one change of a key.
type Event struct {
	Cursor string `json:"cursor"`
	Event  string `json:"event"`
	// Cause is why the key changed, if not because it was written.
	Cause string `json:"cause,omitempty"`
	*EventEntry
}

// EventEntry is the part of an event that a reset does not have. Value and
// Version are of the key's winner; a delete has neither.
type EventEntry struct {
	Key
	Value
	*Version
	Conflicts int `json:"conflicts"`
}

// Kinds of operations of a tail, besides those that applications name.
const (
	KindPut    = "put"
	KindDelete = "delete"
)

// Record is one operation of a tail. Key is empty where the operation has none.
type Record struct {
	Cursor string `json:"cursor,omitempty"` // of what is set aside there is none
	Version
	Kind
	Key
	Payload
	// Since is when an operation that is set aside was, Until how long it is kept at
	// least; nil for one that counts.
	Since *Time `json:"set_aside,omitempty"`
	Until *Time `json:"kept_until,omitempty"`
}

// Finding is one thing that Verify found wrong. Log, Seq and File are empty
// where they do not apply.
type Finding struct {
	Log     string `json:"log"`
	Seq     uint64 `json:"seq"`
	File    string `json:"file"`
	Problem string `json:"problem"`
}

// List asks for keys.
type List struct {
	Prefix    []byte
	Conflicts bool // only keys with several values
}

// Watch asks for events of keys. From "" means from now on.
type Watch struct {
	Prefix []byte
	From   string
	Count  int // end after so many events; 0: never
}

// Tail asks for operations. From "" means from the first.
type Tail struct {
	From   string
	Follow bool // go on with what comes
	Count  int  // end after so many; 0: no limit
	// SetAside asks for what a cut took out of view, log by log, in the place of what
	// counts; From and Follow are of no use then.
	SetAside bool
}

// Wait is a condition on the node: it answers; and Peers > 0: so many peers are
// Connected; and Synced: nothing is pending or missing with any of them, at
// least one, and the view has caught up.
type Wait struct {
	Peers  int
	Synced bool
}

// Operations of a write.
const (
	OpPut    = "put"
	OpDelete = "delete"
	OpAppend = "append"
)

// Op is one operation to write: put has Key and Value, delete Key, append Kind
// and Payload.
type Op struct {
	Op      string
	Key     []byte
	Value   []byte
	Kind    string
	Payload []byte
}

// Write is a batch: one transaction.
type Write struct {
	Ops []Op
	// Replicas is how many other members must state that they hold the batch
	// durably before the answer; Timeout bounds the wait, 0 leaves it to the
	// context.
	Replicas int
	Timeout  time.Duration
	// Durable, if not nil, is called when the batch is durable here and the wait for
	// Replicas, of which there is at least one, begins.
	Durable func(Written)
}

// Connected is the answer of Connect.
type Connected struct {
	PeerID string `json:"peer_id"`
	Addr   string `json:"addr"`
	// Note is a sentence about why the node had left the peer alone until now.
	Note string `json:"note,omitempty"`
}

// Disconnected is the answer of Disconnect.
type Disconnected struct {
	PeerID string `json:"peer_id"`
}

// Forgotten is the answer of Forget.
type Forgotten struct {
	PeerID string `json:"peer_id"`
}

// Status is what a node tells about itself (design 10).
type Status struct {
	PeerID     string           `json:"peer_id"`
	Label      string           `json:"label"`
	Instance   string           `json:"instance"`
	Network    string           `json:"network"` // id, or "open"
	Listen     []string         `json:"listen"`
	Durability string           `json:"durability"`
	Peers      []Peer           `json:"peers"`
	Counters   Counters         `json:"counters"`
	Spaces     map[string]Space `json:"spaces"`

	// Beyond the contract.
	NetworkName string `json:"network_name,omitempty"`
	DataDir     string `json:"data_dir,omitempty"`
	Version     string `json:"version,omitempty"`
	Started     *Time  `json:"started,omitempty"` // when the node opened its directory
	Offline     bool   `json:"offline,omitempty"`
	MaxRate     int64  `json:"max_rate,omitempty"` // bytes per second in each direction; 0: no limit
	// Recovered tells what opening found wrong with the directory, Lost what
	// repairs could not keep and no peer has sent since, Damage what was found
	// since the start and is not repaired yet.
	Recovered string   `json:"recovered,omitempty"`
	Lost      string   `json:"lost,omitempty"`
	Damage    []string `json:"damage,omitempty"`
	Repairs   int      `json:"repairs,omitempty"` // since the start
	// Copies tells that another node runs from a copy of the directory.
	Copies    bool       `json:"copies,omitempty"`
	Endpoints []Endpoint `json:"endpoints,omitempty"`
	Sync      *Sync      `json:"sync,omitempty"`
	Discovery *Discovery `json:"discovery,omitempty"`
	Reach     *Reach     `json:"reach,omitempty"` // nil if offline
	Messages  *Messages  `json:"messages,omitempty"`
	Routes    []Route    `json:"routes,omitempty"` // of messages
	// Membership is nil in an open network.
	Membership *Membership `json:"membership,omitempty"`
}

// Reach is how others reach the node, and what it does for that.
type Reach struct {
	// Reachability is "public": others have reached one of its addresses from
	// outside; "private": they have tried in vain; "unknown": nobody has tried, or
	// no public address is known.
	Reachability string   `json:"reachability"`
	Confirmed    []string `json:"confirmed,omitempty"`  // addresses that were reached
	Advertised   []string `json:"advertised,omitempty"` // as configured
	AutoNAT      bool     `json:"autonat"`
	RelayClient  bool     `json:"relay_client"`
	Relays       []Relay  `json:"relays,omitempty"`
	HolePunching bool     `json:"hole_punching"`
	Punched      uint64   `json:"punched"`      // relayed connections that became direct ones
	PunchFailed  uint64   `json:"punch_failed"` // attempts in vain
	PortMapping  bool     `json:"port_mapping"`
	Gateway      bool     `json:"gateway,omitempty"` // a router that maps ports was found
	Mapped       []string `json:"mapped,omitempty"`  // addresses that it forwards
	// Service is nil where the node relays for nobody.
	Service *RelayService `json:"relay_service,omitempty"`
}

// Relay is a relay and the place that the node has there.
type Relay struct {
	Relay  string `json:"relay"` // as configured, or the peer ID of a member
	PeerID string `json:"peer_id,omitempty"`
	// Addrs are where peers reach the node through it; none: it has no place there.
	Addrs      []string `json:"addrs"`
	Until      *Time    `json:"until,omitempty"`
	LimitBytes uint64   `json:"limit_bytes,omitempty"` // a connection, each direction
	LimitS     float64  `json:"limit_s,omitempty"`
	Error      string   `json:"error,omitempty"`
}

// RelayService is what the node relays for others.
type RelayService struct {
	Reservations  int64  `json:"reservations"` // peers that have a place now
	Circuits      int64  `json:"circuits"`     // relayed connections now
	CircuitsTotal uint64 `json:"circuits_total"`
	Bytes         uint64 `json:"bytes"` // both directions, since the start
	Refused       uint64 `json:"refused"`
	// The limits.
	MaxReservations int     `json:"max_reservations"`
	MaxCircuits     int     `json:"max_circuits"` // of one peer
	MaxBytes        int64   `json:"max_bytes"`    // of a circuit, each direction
	MaxS            float64 `json:"max_s"`        // of a circuit
}

// Endpoint is an address that the node has dialled.
type Endpoint struct {
	Endpoint  string `json:"endpoint"` // scheme://host:port
	Failures  int    `json:"failures"` // in a row; 0 after success
	LastError string `json:"last_error,omitempty"`
	NextDial  *Time  `json:"next_dial,omitempty"`
	// Sources tells who named it: "static" (the configuration), "connect", "lan",
	// "dht", "registry", "remembered"; empty: nobody any more.
	Sources []string `json:"sources"`
	PeerID  string   `json:"peer_id,omitempty"` // who answers there, or is said to
}

// StateConnected is the state of a peer with a live session.
const StateConnected = "Connected"

// Peer is one peer as this node sees it. Pending is durable here and not yet
// stated by the peer; missing is stated by the peer and not yet durable here.
type Peer struct {
	PeerID       string  `json:"peer_id"`
	Label        string  `json:"label"`
	State        string  `json:"state"`
	Direction    string  `json:"direction"` // "in" or "out"; "" without a session
	Addr         string  `json:"addr"`
	RTTMillis    float64 `json:"rtt_ms"` // 0: not measured yet
	PendingOps   uint64  `json:"pending_ops"`
	PendingBytes uint64  `json:"pending_bytes"`
	MissingOps   uint64  `json:"missing_ops"`
	LastAck      *Time   `json:"last_ack"` // null: never

	// Beyond the contract.
	//
	// Settled: there is a session, and frontiers were compared: the numbers are
	// exact. Else pending follows from what the peer stated last, or one of Spaces says
	// Why.
	Settled bool `json:"settled"`
	// Durability is "strict", or "relaxed": it does not fsync, so that it counts for
	// no --replicas; empty where that is not known.
	Durability string   `json:"durability,omitempty"`
	LastError  string   `json:"last_error,omitempty"` // why not connected, or why refused
	Paused     []Paused `json:"paused,omitempty"`     // logs that do not flow, and why
	Spaces     []Flow   `json:"spaces,omitempty"`
	// Copies tells that several copies of one data directory use this identity.
	Copies     bool  `json:"copies,omitempty"`
	SkewMillis int64 `json:"skew_ms,omitempty"` // by how much its clock is ahead
	Relayed    bool  `json:"relayed,omitempty"` // the session goes through a relay
	// PutOutUntil is until when the node neither lets in nor dials the peer, because it
	// broke the protocol; LastError says how. nil: it does both.
	PutOutUntil *Time `json:"put_out_until,omitempty"`
}

// Flow is pending and missing of one space.
type Flow struct {
	Space        string `json:"space"`
	PendingOps   uint64 `json:"pending_ops"`
	PendingBytes uint64 `json:"pending_bytes"`
	MissingOps   uint64 `json:"missing_ops"`
	Settled      bool   `json:"settled"` // frontiers were compared: the numbers are exact
	// Why the space is not exchanged although both have a role in it.
	Why string `json:"why,omitempty"`
}

// Paused is a log that is not exchanged with a peer.
type Paused struct {
	Space string `json:"space"`
	Log   string `json:"log"`
	Why   string `json:"why"`
}

// Counters count since the start.
type Counters struct {
	PeersTotal          uint64 `json:"peers_total"`
	PeersConnected      uint64 `json:"peers_connected"`
	HandshakesStarted   uint64 `json:"handshakes_started"`
	HandshakesCompleted uint64 `json:"handshakes_completed"`
	ConnectAttempts     uint64 `json:"connect_attempts"`
	ConnectDeduped      uint64 `json:"connect_deduped"`
	ConnectFailures     uint64 `json:"connect_failures"`
	BackoffSkips        uint64 `json:"backoff_skips"`
	TrackedEndpoints    uint64 `json:"tracked_endpoints"`
}

// Totals are what a running node's own line of statistics shows; its JSON is that
// of the line.
type Totals struct {
	Counters
	Ops     uint64 `json:"ops"`     // held durably, over all spaces
	Pending uint64 `json:"pending"` // operations, summed over all peers

	Label      string `json:"-"`
	Durability string `json:"-"`
	Settled    bool   `json:"-"` // frontiers were compared with every connected peer
	Ended      bool   `json:"-"` // a certificate that ended keeps a space from some peer
	Damaged    bool   `json:"-"`
	Sync       *Sync  `json:"-"` // nil: nothing is missing
}

// Space is one space's totals. Equal FrontierDigests: the same writes are held.
// Equal ViewDigests: the key-value views show the same.
type Space struct {
	Ops            uint64 `json:"ops"`
	Bytes          uint64 `json:"bytes"`
	Keys           uint64 `json:"keys"`
	Conflicts      uint64 `json:"conflicts"`
	Logs           int    `json:"logs"`
	FrontierDigest string `json:"frontier_digest"`
	ViewDigest     string `json:"view_digest"`

	// Beyond the contract.
	ForkedLogs int    `json:"forked_logs,omitempty"`
	ViewError  string `json:"view_error,omitempty"` // why the view cannot be read
	Sealed     bool   `json:"sealed,omitempty"`     // no role of this node lets it read the space
	// SetAside are operations that a cut took out of view and that are kept still.
	SetAside uint64 `json:"set_aside,omitempty"`
}

// Sync is how far the node is with what its peers have and it has not.
type Sync struct {
	Done       uint64  `json:"done"`  // operations
	Total      uint64  `json:"total"` // operations
	Percent    float64 `json:"percent"`
	RemainingS float64 `json:"remaining_s"` // -1: not known yet
}

// Pong is the answer of ping.
type Pong struct {
	OK      bool   `json:"ok"`
	Pong    bool   `json:"pong"`
	PeerID  string `json:"peer_id"`
	Version string `json:"version"`
}
