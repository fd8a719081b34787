package registry

// Limits of an answer of GET /peers.
const (
	MaxAnswer    = 64 << 10 // bytes of JSON
	DefaultLimit = 20       // peers, where the question names no limit
	MaxLimit     = 200      // peers
)

// Paths of a registry, below its base. Both are also served below Prefix.
const (
	Prefix       = "/p2p/v1" // the original's
	peersPath    = "/peers"
	announcePath = "/announce"
)

// Peer is one entry of an answer. NodeID, Host and TCPPort alone are enough to
// use it; of a peer that is not signed there is no more.
type Peer struct {
	NodeID  string   `json:"node_id"`
	Host    string   `json:"host"`     // an IP address, as the registry sees the peer
	TCPPort uint16   `json:"tcp_port"` // 0: it does not listen on TCP
	PeerID  string   `json:"peer_id"`  // "": not told
	Addrs   []string `json:"addrs"`    // multiaddrs, the best first
	Network string   `json:"network,omitempty"`
}

type peersJSON struct {
	Peers []Peer `json:"peers"`
}

type okJSON struct {
	OK bool `json:"ok"`
}

// Codes of errors: the member "error" of a failed answer. They are append-only.
const (
	CodeInvalidJSON         = "invalid_json"         // 400
	CodeInvalidAnnouncement = "invalid_announcement" // 400
	CodeInvalidLimit        = "invalid_limit"        // 400
	CodeInvalidNetwork      = "invalid_network"      // 400
	CodeInvalidRequest      = "invalid_request"      // 400: not as it must come here
	CodeUnsigned            = "signature_required"   // 401
	CodeBadSignature        = "bad_signature"        // 403
	CodeForbidden           = "forbidden"            // 403: a web page of another site asks
	CodeStale               = "stale_announcement"   // 403: ts_ms is too far from the clock in the Date header
	CodeNotFound            = "not_found"            // 404
	CodeMethod              = "method_not_allowed"   // 405
	CodeReplayed            = "replayed"             // 409
	CodeTaken               = "node_id_taken"        // 409
	CodeTooLarge            = "too_large"            // 413
	CodeTooMany             = "too_many_requests"    // 429
	CodeCrowded             = "too_many_entries"     // 429: of this address
	CodeInternal            = "internal"             // 500
	CodeFull                = "registry_full"        // 503
)

type errorJSON struct {
	Error   string `json:"error"`
	Message string `json:"message"`
}
