package registry

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"vixp2p/replication"
)

// Limits of an announcement. All but the first are in bytes or counts of the
// decoded values.
const (
	MaxAnnouncement = 1024 // bytes of JSON, as in the original

	maxNodeID   = 64
	maxAddrs    = 16
	maxAddr     = 256
	maxCaps     = 16
	maxCapName  = 32
	maxCapValue = 64
	networkTag  = 32 // hex digits
	// maxExact: integers up to this one survive every JSON reader, those that
	// keep numbers as float64 too.
	maxExact = 1<<53 - 1
)

// Errors of announcements; what is returned wraps them with the reason.
var (
	ErrInvalid      = errors.New("the announcement is not valid")
	ErrNotJSON      = errors.New("it is not one JSON object")
	ErrTooLarge     = fmt.Errorf("the announcement is longer than %d bytes", MaxAnnouncement)
	ErrUnsigned     = errors.New("the announcement names a peer ID and is not signed")
	ErrBadSignature = errors.New("the announcement's signature is not that of its peer ID")
)

func invalidf(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrInvalid, fmt.Sprintf(format, args...))
}

// Announcement says who a node is and where it is reached: what a registry is
// told. NodeID, TCPPort, TimeMS, Nonce and Cap are the original's; the rest is
// optional, and who does not know it leaves it out.
type Announcement struct {
	// NodeID is the name that a node goes by: 1 to 64 bytes of printable text.
	// Nodes of this project use their peer ID, because a label is not for
	// strangers (G7); a NodeID that reads as a peer ID must be PeerID.
	NodeID string
	// TCPPort is where the node listens, 1 to 65535; 0 if it does not listen on
	// TCP, which Addrs must then make up for.
	TCPPort uint16
	// TimeMS is when it was made, in milliseconds since 1970, and Nonce a number
	// drawn for it. A signed one has a time; others may leave both 0.
	TimeMS uint64
	Nonce  uint64
	// Cap tells what the node can do, such as "proto": "1.0".
	Cap map[string]string

	// PeerID is the node's libp2p peer ID in base58. With it, Sig is needed.
	PeerID string
	// Addrs are multiaddrs without the peer ID, the best first; only with PeerID.
	Addrs []string
	// Network is the NetworkTag of the node's network.
	Network string
	// Sig is the Ed25519 signature of PeerID's key over SignedBytes.
	Sig []byte
}

// announcementJSON has the members in the order in which they are written.
type announcementJSON struct {
	NodeID  string            `json:"node_id"`
	TCPPort uint16            `json:"tcp_port"`
	TimeMS  uint64            `json:"ts_ms"`
	Nonce   uint64            `json:"nonce"`
	Cap     map[string]string `json:"cap"`
	PeerID  string            `json:"peer_id,omitempty"`
	Addrs   []string          `json:"addrs,omitempty"`
	Network string            `json:"network,omitempty"`
	Sig     []byte            `json:"sig,omitempty"` // encoding/json: standard base64
}

// NetworkTag stands for a network without telling its id or name: 32 hex digits.
// Members can compute it, others can only see which announcements have the same
// one, or try the names of open networks.
func NetworkTag(id replication.NetworkID) string {
	return replication.HashParts("vix/announce-network/1", id[:]).String()[:networkTag]
}

// NewNonce draws a nonce.
func NewNonce() uint64 {
	var b [8]byte
	rand.Read(b[:]) // never fails (crypto/rand)
	return binary.BigEndian.Uint64(b[:]) & maxExact
}

// Encode is the announcement as JSON. Errors: ErrInvalid, ErrTooLarge.
func (a *Announcement) Encode() ([]byte, error) {
	if err := a.Check(); err != nil {
		return nil, err
	}
	return a.encode()
}

func (a *Announcement) encode() ([]byte, error) {
	v := announcementJSON(*a)
	if v.Cap == nil {
		v.Cap = map[string]string{} // {} rather than null
	}
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false) // it goes into no web page, and room is short
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	data := bytes.TrimSuffix(buf.Bytes(), []byte("\n"))
	if len(data) > MaxAnnouncement {
		return nil, fmt.Errorf("%w: it has %d", ErrTooLarge, len(data))
	}
	return data, nil
}

// Decode reads an announcement. It is strict: each known member once, of the
// right type and within its limits, and nothing after the object. Members that
// it does not know are skipped. It does not look at the signature: Verify does.
// Errors: ErrInvalid, where it applies with ErrNotJSON, and ErrTooLarge.
func Decode(data []byte) (*Announcement, error) {
	if len(data) > MaxAnnouncement {
		return nil, ErrTooLarge
	}
	if !utf8.Valid(data) {
		return nil, fmt.Errorf("%w: %w: it is not UTF-8 text", ErrInvalid, ErrNotJSON)
	}
	members, err := readObject(data)
	switch {
	case errors.Is(err, ErrNotJSON):
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	case err != nil:
		return nil, invalidf("%v", err)
	}
	a := &Announcement{Cap: map[string]string{}}
	for name, raw := range members {
		var err error
		switch name {
		case "node_id":
			a.NodeID, err = readString(raw)
		case "tcp_port":
			var n uint64
			n, err = readNumber(raw, 65535)
			a.TCPPort = uint16(n)
		case "ts_ms":
			a.TimeMS, err = readNumber(raw, maxExact)
		case "nonce":
			a.Nonce, err = readNumber(raw, 1<<64-1)
		case "cap":
			err = a.readCap(raw)
		case "peer_id":
			a.PeerID, err = readString(raw)
		case "addrs":
			err = a.readAddrs(raw)
		case "network":
			a.Network, err = readString(raw)
		case "sig":
			var s string
			if s, err = readString(raw); err == nil && s != "" {
				a.Sig, err = base64.StdEncoding.Strict().DecodeString(s)
			}
		}
		if err != nil {
			return nil, invalidf("%s: %v", name, err)
		}
	}
	for _, name := range []string{"node_id", "tcp_port"} {
		if members[name] == nil {
			return nil, invalidf("it has no %s", name)
		}
	}
	return a, a.Check()
}

func (a *Announcement) readCap(raw json.RawMessage) error {
	members, err := readObject(raw)
	if err != nil {
		return err
	}
	for name, raw := range members {
		if a.Cap[name], err = readString(raw); err != nil {
			return fmt.Errorf("%q: %w", name, err)
		}
	}
	return nil
}

func (a *Announcement) readAddrs(raw json.RawMessage) error {
	var list []json.RawMessage
	if err := json.Unmarshal(raw, &list); err != nil || raw[0] != '[' {
		return errors.New("it must be a list of text")
	}
	for _, raw := range list {
		s, err := readString(raw)
		if err != nil {
			return err
		}
		a.Addrs = append(a.Addrs, s)
	}
	return nil
}

// Check tells what is wrong with the values. It does not look at the signature
// beyond its presence: an error is always ErrInvalid.
func (a *Announcement) Check() error {
	if err := checkText(a.NodeID, 1, maxNodeID); err != nil {
		return invalidf("node_id: %v", err)
	}
	if err := a.checkIdentity(); err != nil {
		return err
	}
	switch {
	case a.TCPPort == 0 && len(a.Addrs) == 0:
		return invalidf("tcp_port: it must be 1 to 65535 where there are no addrs")
	case a.TimeMS > maxExact:
		return invalidf("ts_ms: %d is later than any time", a.TimeMS)
	case len(a.Cap) > maxCaps:
		return invalidf("cap: %d entries are more than %d", len(a.Cap), maxCaps)
	case len(a.Addrs) > maxAddrs:
		return invalidf("addrs: %d addresses are more than %d", len(a.Addrs), maxAddrs)
	case a.Network != "" && !isNetworkTag(a.Network):
		return invalidf("network: it must be %d lower-case hex digits", networkTag)
	}
	for name, value := range a.Cap {
		if err := checkText(name, 1, maxCapName); err != nil {
			return invalidf("cap: a name: %v", err)
		}
		if err := checkText(value, 0, maxCapValue); err != nil {
			return invalidf("cap: %q: %v", name, err)
		}
	}
	for _, s := range a.Addrs {
		if err := checkText(s, 1, maxAddr); err != nil {
			return invalidf("addrs: %v", err)
		}
		if _, err := ma.NewMultiaddr(s); err != nil {
			return invalidf("addrs: %q is not a multiaddr such as /ip4/192.0.2.1/tcp/9001", s)
		}
	}
	return nil
}

func (a *Announcement) checkIdentity() error {
	if a.PeerID == "" {
		switch {
		case len(a.Sig) > 0:
			return invalidf("sig: there is no peer_id whose signature it could be")
		case len(a.Addrs) > 0:
			return invalidf("addrs: they need a peer_id, and its signature")
		}
		if _, ok := asPeer(a.NodeID); ok {
			return invalidf("node_id: it reads as a peer ID, so peer_id and sig must prove it")
		}
		return nil
	}
	id, err := peer.Decode(a.PeerID)
	if err != nil || id.String() != a.PeerID {
		return invalidf("peer_id: %q is not a peer ID in base58", shorten(a.PeerID))
	}
	if _, err := publicKey(id); err != nil {
		return invalidf("peer_id: %v", err)
	}
	if other, ok := asPeer(a.NodeID); ok && other != id {
		return invalidf("node_id: it reads as the peer ID of another node than peer_id")
	}
	if a.TimeMS == 0 {
		return invalidf("ts_ms: what names a peer_id needs its time, in milliseconds since 1970")
	}
	return nil
}

// SignedBytes are what a signature covers: every member but sig, in this order,
//
//	"vix/announce/1\x00"
//	text(node_id) uvarint(tcp_port) uvarint(ts_ms) uvarint(nonce)
//	text(peer_id) text(network)
//	uvarint(count of addrs) text(addr)...
//	uvarint(count of cap)   text(name) text(value)...      names ascending by bytes
//
// where text(s) is uvarint(bytes of s) and s in UTF-8, as it is after JSON was
// decoded, and an absent member counts as empty or 0.
func (a *Announcement) SignedBytes() []byte {
	b := []byte("vix/announce/1\x00")
	text := func(s string) {
		b = binary.AppendUvarint(b, uint64(len(s)))
		b = append(b, s...)
	}
	text(a.NodeID)
	for _, n := range []uint64{uint64(a.TCPPort), a.TimeMS, a.Nonce} {
		b = binary.AppendUvarint(b, n)
	}
	text(a.PeerID)
	text(a.Network)
	b = binary.AppendUvarint(b, uint64(len(a.Addrs)))
	for _, s := range a.Addrs {
		text(s)
	}
	b = binary.AppendUvarint(b, uint64(len(a.Cap)))
	for _, name := range slices.Sorted(maps.Keys(a.Cap)) {
		text(name)
		text(a.Cap[name])
	}
	return b
}

// readObject reads one JSON object and nothing after it, each member once.
func readObject(data []byte) (map[string]json.RawMessage, error) {
	dec := json.NewDecoder(bytes.NewReader(data))
	if tok, err := dec.Token(); err != nil || tok != json.Delim('{') {
		return nil, ErrNotJSON
	}
	members := map[string]json.RawMessage{}
	for dec.More() {
		tok, err := dec.Token()
		name, ok := tok.(string)
		if err != nil || !ok {
			return nil, ErrNotJSON
		}
		if members[name] != nil {
			return nil, fmt.Errorf("%q is there twice", shorten(name))
		}
		var raw json.RawMessage
		if err := dec.Decode(&raw); err != nil {
			return nil, ErrNotJSON
		}
		members[name] = raw
	}
	if _, err := dec.Token(); err != nil {
		return nil, ErrNotJSON
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%w: something follows it", ErrNotJSON)
	}
	return members, nil
}

func readString(raw json.RawMessage) (s string, err error) {
	if raw[0] != '"' || json.Unmarshal(raw, &s) != nil {
		return "", errors.New("it must be text")
	}
	return s, nil
}

func readNumber(raw json.RawMessage, most uint64) (uint64, error) {
	n, err := strconv.ParseUint(string(raw), 10, 64)
	if err != nil || n > most {
		return 0, fmt.Errorf("it must be a whole number from 0 to %d", most)
	}
	return n, nil
}

func checkText(s string, least, most int) error {
	switch {
	case len(s) < least || len(s) > most:
		return fmt.Errorf("it has %d bytes, and must have %d to %d", len(s), least, most)
	case !utf8.ValidString(s) || strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }):
		return errors.New("it has characters that cannot be shown")
	}
	return nil
}

func isNetworkTag(s string) bool {
	return len(s) == networkTag && strings.Trim(s, "0123456789abcdef") == ""
}

// shorten makes a foreign word fit to be part of a sentence, and shortenTo more
// than that.
func shorten(s string) string { return shortenTo(s, 80) }

func shortenTo(s string, most int) string {
	s = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '.'
		}
		return r
	}, strings.ToValidUTF8(s, "."))
	if r := []rune(s); len(r) > most {
		return string(r[:most]) + "..."
	}
	return s
}
