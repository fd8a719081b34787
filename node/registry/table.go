package registry

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"time"

	ma "github.com/multiformats/go-multiaddr"
)

// maxAge is by how much the time of a signed announcement may differ from the
// registry's clock. An older one is refused as a replay; a node whose clock is
// wrong learns the registry's from the answer (Client.Announce).
const maxAge = 2 * time.Minute

// Reasons why a table refuses an announcement.
var (
	errStale    = fmt.Errorf("the announcement's ts_ms differs by more than %s from this registry's clock: it is old, or a clock is wrong", maxAge)
	errReplayed = errors.New("this announcement of the peer, or a later one, has arrived before")
	errTaken    = errors.New("a signed entry from this address has that node_id: sign the announcement, or use another node_id")
	errFull     = errors.New("the registry is full: try again later")
	errCrowded  = errors.New("this address has as many entries as one address may have")
)

// table is what was announced and has not expired.
type table struct {
	ttl        time.Duration
	maxEntries int
	perAddress int

	mu       sync.Mutex // guards below
	entries  map[entryKey]*entry
	byAddr   map[netip.Prefix]map[entryKey]*entry // the same entries; no empty maps
	modified bool                                 // since the last export, more than by renewals
}

// entryKey tells entries apart: a signed one by its peer ID, wherever it is; any
// other by where it comes from and its name, so that nobody displaces it from
// elsewhere.
type entryKey struct {
	peerID string // of a signed entry; the rest is empty then
	host   netip.Addr
	nodeID string
}

// entry is one announcement. Those that are signed have been verified.
type entry struct {
	a    *Announcement
	host netip.Addr // of the connection that brought it
	seen time.Time  // when
}

func newTable(ttl time.Duration, maxEntries, perAddress int) *table {
	return &table{
		ttl: ttl, maxEntries: maxEntries, perAddress: perAddress,
		entries: map[entryKey]*entry{}, byAddr: map[netip.Prefix]map[entryKey]*entry{},
	}
}

func (e *entry) key() entryKey {
	if e.a.PeerID != "" {
		return entryKey{peerID: e.a.PeerID}
	}
	return entryKey{host: e.host, nodeID: e.a.NodeID}
}

// listed tells whether the entry is still shown.
func (e *entry) listed(now time.Time, ttl time.Duration) bool { return now.Sub(e.seen) < ttl }

// useless tells whether the entry may be forgotten. A signed one is kept until its
// announcement is too old to be played again: its time is what refuses that.
func (e *entry) useless(now time.Time, ttl time.Duration) bool {
	return !e.listed(now, ttl) && (e.a.PeerID == "" || now.UnixMilli() > int64(e.a.TimeMS)+maxAge.Milliseconds())
}

// addressOf is what counts as one address in limits: an IPv4 address, or the
// IPv6 network that a subscriber usually has.
func addressOf(host netip.Addr) netip.Prefix {
	bits := 32
	if host.Is6() {
		bits = 56
	}
	p, _ := host.Prefix(bits) // fails only for no address at all, which then counts as one
	return p
}

// put takes an announcement that was verified. Errors: the reasons above.
func (t *table) put(a *Announcement, host netip.Addr, now time.Time) (fresh bool, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	e := &entry{a: a, host: host, seen: now}
	old := t.entries[e.key()]
	if a.PeerID != "" {
		if age := now.UnixMilli() - int64(a.TimeMS); max(age, -age) > maxAge.Milliseconds() {
			return false, errStale
		}
		if old != nil && a.TimeMS <= old.a.TimeMS {
			return false, errReplayed
		}
	}
	if err := t.roomLocked(e, old, now); err != nil {
		return false, err
	}
	fresh = old == nil || !old.listed(now, t.ttl)
	if fresh || old.host != host || old.a.TCPPort != a.TCPPort || !slices.Equal(old.a.Addrs, a.Addrs) {
		t.modified = true
	}
	t.addLocked(e)
	return fresh, nil
}

// roomLocked sees to it that e may be added in place of old, which may be nil.
func (t *table) roomLocked(e, old *entry, now time.Time) error {
	address := addressOf(e.host)
	for key, other := range t.byAddr[address] {
		switch {
		case other.useless(now, t.ttl):
			t.removeLocked(key)
		case other.host != e.host || other.a.NodeID != e.a.NodeID || other == old:
		case e.a.PeerID == "" && other.a.PeerID != "" && other.listed(now, t.ttl):
			return errTaken
		case e.a.PeerID != "" && other.a.PeerID == "":
			t.removeLocked(key) // the same node, which signs now
		}
	}
	if len(t.byAddr[address]) >= t.perAddress && (old == nil || addressOf(old.host) != address) {
		return errCrowded
	}
	if old == nil && len(t.entries) >= t.maxEntries {
		t.sweepLocked(now)
		if len(t.entries) >= t.maxEntries {
			return errFull
		}
	}
	return nil
}

// addLocked puts e in the place of the entry with its key.
func (t *table) addLocked(e *entry) {
	key, address := e.key(), addressOf(e.host)
	t.dropLocked(key)
	t.entries[key] = e
	if t.byAddr[address] == nil {
		t.byAddr[address] = map[entryKey]*entry{}
	}
	t.byAddr[address][key] = e
}

// removeLocked forgets an entry.
func (t *table) removeLocked(key entryKey) {
	t.dropLocked(key)
	t.modified = true
}

func (t *table) dropLocked(key entryKey) {
	e := t.entries[key]
	if e == nil {
		return
	}
	address := addressOf(e.host)
	delete(t.entries, key)
	delete(t.byAddr[address], key)
	if len(t.byAddr[address]) == 0 {
		delete(t.byAddr, address)
	}
}

// sweep forgets what is useless.
func (t *table) sweep(now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.sweepLocked(now)
}

func (t *table) sweepLocked(now time.Time) {
	for key, e := range t.entries {
		if e.useless(now, t.ttl) {
			t.removeLocked(key)
		}
	}
}

// list is a random choice of up to limit entries, and at most MaxAnswer bytes of
// them: with a network, those of that network first, then those that tell none.
// local tells that who asks is on this machine.
func (t *table) list(limit int, network string, local bool, now time.Time) []Peer {
	t.mu.Lock()
	defer t.mu.Unlock()
	var first, second []*entry
	for _, e := range t.entries {
		switch {
		case !e.listed(now, t.ttl):
		case network == "" || e.a.Network == network:
			first = append(first, e)
		case e.a.Network == "":
			second = append(second, e)
		}
	}
	peers, room := []Peer{}, MaxAnswer-len(`{"peers":[]}`)-1
	for _, group := range [][]*entry{first, second} {
		rand.Shuffle(len(group), func(i, j int) { group[i], group[j] = group[j], group[i] })
		for _, e := range group {
			p, ok := e.peer(local)
			if !ok {
				continue
			}
			data, err := json.Marshal(p)
			if room -= len(data) + len(","); err != nil || room < 0 || len(peers) == limit {
				return peers
			}
			peers = append(peers, p)
		}
	}
	return peers
}

// peer is the entry as an answer shows it. A loopback address is of use on this
// machine only: others get an address from the announcement, if it has one.
func (e *entry) peer(local bool) (Peer, bool) {
	p := Peer{
		NodeID: e.a.NodeID, Host: e.host.String(), TCPPort: e.a.TCPPort,
		PeerID: e.a.PeerID, Addrs: slices.Clone(e.a.Addrs), Network: e.a.Network,
	}
	if p.Addrs == nil {
		p.Addrs = []string{} // rather than null
	}
	if local || !e.host.IsLoopback() {
		return p, true
	}
	for _, s := range e.a.Addrs {
		if at, ok := tcpAddress(s); ok && !at.Addr().IsLoopback() {
			p.Host, p.TCPPort = at.Addr().String(), at.Port()
			return p, true
		}
	}
	return p, false
}

// tcpAddress is the IP address and TCP port of a direct multiaddr.
func tcpAddress(s string) (at netip.AddrPort, ok bool) {
	addr, err := ma.NewMultiaddr(s)
	if err != nil || len(addr) < 2 || addr[1].Protocol().Code != ma.P_TCP {
		return at, false
	}
	if len(addr) > 2 && addr[2].Protocol().Code == ma.P_P2P && len(addr) > 3 {
		return at, false // through a relay
	}
	ip, err := netip.ParseAddr(addr[0].Value())
	port, portErr := strconv.ParseUint(addr[1].Value(), 10, 16)
	return netip.AddrPortFrom(ip, uint16(port)), err == nil && portErr == nil
}

// export returns the entries that are listed, the newest first, if there was a
// change since the last time.
func (t *table) export(now time.Time) (list []entry, changed bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.modified {
		return nil, false
	}
	t.modified = false
	for _, e := range t.entries {
		if e.listed(now, t.ttl) {
			list = append(list, *e)
		}
	}
	slices.SortFunc(list, func(a, b entry) int {
		return cmp.Or(b.seen.Compare(a.seen), cmp.Compare(a.a.NodeID, b.a.NodeID))
	})
	return list, true
}

// changed makes the next export return everything.
func (t *table) changed() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.modified = true
}

// restore takes entries of an earlier run. They count as seen now: their nodes
// could not announce themselves meanwhile.
func (t *table) restore(list []entry, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, e := range list {
		if len(t.entries) >= t.maxEntries || len(t.byAddr[addressOf(e.host)]) >= t.perAddress {
			continue
		}
		e.seen = now
		t.addLocked(&e)
	}
}

func (t *table) size() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.entries)
}
