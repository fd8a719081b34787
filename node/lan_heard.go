package node

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto/pb"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
)

const (
	// maxLANPeers bounds the peers that are remembered from announcements, and
	// maxNewcomers those of them that were heard in one interval only.
	maxLANPeers  = 256
	maxNewcomers = 32
	// maxWaiting bounds those who have no place, twice.
	maxWaiting = 4096
	// maxLANAddrs bounds the addresses that are announced, or taken from one
	// announcement.
	maxLANAddrs = 8
	// lanSilence: a peer that was not heard for so long, or so many questions, is
	// back when it is heard.
	lanSilence   = 10 * time.Second
	lanQuestions = 4
	// lanTrial is how long a peer that is heard has its place although there is no
	// session with it, when others want it.
	lanTrial = time.Minute
	// newsPause is between two of the news of one peer. After newsFree of them
	// without a session it doubles each time, up to maxNewsPause: only so often are
	// addresses that failed dialled again because somebody says that a peer is back.
	newsPause    = 5 * time.Second
	newsFree     = 4
	maxNewsPause = 5 * time.Minute
	// lanKeep is how long after it was heard an address is worth dialling.
	lanKeep = 10 * time.Minute
)

// lanPeers are the peers that were heard. Nothing tells a real announcement from
// an invented one before it is dialled, so that a flood of invented ones must
// neither push out nor hold up who is heard all the time:
//
//   - Few newcomers have a place at once (maxNewcomers). The others wait to be
//     heard in another interval, for which their ID is remembered.
//   - When all places are taken the peer that was not heard for the longest goes,
//     if it fell silent. Else who was heard twice gets the place of the one that has
//     had its own for the longest, at least lanTrial, without a session with it; that
//     one does not displace others for lanKeep.
//
// So a thousand peers that are invented once cost the dialer maxNewcomers attempts,
// and a thousand that are invented again and again a full table of them a minute.
type lanPeers struct {
	every time.Duration // between questions
	all   map[peer.ID]*lanPeer
	// young and old are those without a place that were heard in the last two
	// intervals or in the two before.
	young, old map[peer.ID]lanWaiting
	turned     time.Time // when young was empty
}

// lanWaiting is a peer that was heard and has no place.
type lanWaiting struct {
	first time.Time // when it was heard
	tried time.Time // when it lost its place to another; zero: it had none
}

// lanPeer is a peer that was heard.
type lanPeer struct {
	instance string
	addrs    []ma.Multiaddr
	first    time.Time
	at       time.Time
	steady   bool      // it was heard in two intervals
	news     bool      // it is back, or elsewhere, and that was not told yet
	told     time.Time // when news of it was told last
	times    int       // how often, since there was a session with it
}

func newLANPeers(every time.Duration) *lanPeers {
	return &lanPeers{every: every, all: map[peer.ID]*lanPeer{}, young: map[peer.ID]lanWaiting{}}
}

// silence is for how long a peer is not heard that is gone.
func (l *lanPeers) silence() time.Duration { return max(lanSilence, lanQuestions*l.every) }

// another tells that a peer is heard in another interval than at first.
func (l *lanPeers) another(first, now time.Time) bool { return now.Sub(first) >= l.every/2 }

// hear notes a peer that was heard. news tells that it is new, back or elsewhere,
// so that what failed before says nothing; ok that there was room. connected tells
// of the peers with a session.
func (l *lanPeers) hear(id peer.ID, instance string, addrs []ma.Multiaddr, connected func() []peer.ID, now time.Time) (news, ok bool) {
	p := l.all[id]
	if p == nil {
		w := l.wait(id, now)
		if !l.room(w, connected, now) {
			return false, false
		}
		p = &lanPeer{first: now, at: now, news: true, steady: l.another(w.first, now)}
		l.all[id] = p
	}
	if p.instance != instance || now.Sub(p.at) > l.silence() || !slices.EqualFunc(p.addrs, addrs, ma.Multiaddr.Equal) {
		p.news = true
	}
	p.instance, p.addrs, p.at = instance, addrs, now
	p.steady = p.steady || l.another(p.first, now)
	if p.times >= newsFree && slices.Contains(connected(), id) {
		p.times = 0
	}
	pause := newsPause
	for i := newsFree; i < p.times && pause < maxNewsPause; i++ {
		pause *= 2
	}
	if news = p.news && now.Sub(p.told) >= min(pause, maxNewsPause); news {
		p.news, p.told = false, now
		p.times++
	}
	return news, true
}

// wait notes a peer without a place and tells what is known of it.
func (l *lanPeers) wait(id peer.ID, now time.Time) lanWaiting {
	w, ok := l.young[id]
	if !ok {
		if w, ok = l.old[id]; !ok {
			w = lanWaiting{first: now}
		}
		l.keep(id, w, now)
	}
	return w
}

func (l *lanPeers) keep(id peer.ID, w lanWaiting, now time.Time) {
	if now.Sub(l.turned) >= 2*l.every || len(l.young) >= maxWaiting {
		l.old, l.young, l.turned = l.young, map[peer.ID]lanWaiting{}, now
	}
	l.young[id] = w
}

// room makes room for one more peer; false if there is none for it.
func (l *lanPeers) room(w lanWaiting, connected func() []peer.ID, now time.Time) bool {
	again := l.another(w.first, now)
	var quietest, longest peer.ID
	newcomers := 0
	for id, p := range l.all {
		switch {
		case now.Sub(p.at) > lanKeep:
			delete(l.all, id)
			continue
		case now.Sub(p.at) > l.silence():
			if quietest == "" || p.at.Before(l.all[quietest].at) {
				quietest = id
			}
		case !p.steady:
			newcomers++
		}
	}
	if !again && newcomers >= maxNewcomers {
		return false
	}
	if len(l.all) < maxLANPeers {
		return true
	}
	if quietest != "" {
		delete(l.all, quietest)
		return true
	}
	if !again || now.Sub(w.tried) < lanKeep {
		return false
	}
	live := connected()
	for id, p := range l.all {
		if now.Sub(p.first) >= lanTrial && (longest == "" || p.first.Before(l.all[longest].first)) && !slices.Contains(live, id) {
			longest = id
		}
	}
	if longest == "" {
		return false
	}
	l.keep(longest, lanWaiting{first: l.all[longest].first, tried: now}, now)
	delete(l.all, longest)
	return true
}

// count tells how many peers were heard in the last lanKeep, and when the last was.
func (l *lanPeers) count(now time.Time) (n int, last time.Time) {
	for _, p := range l.all {
		if now.Sub(p.at) < lanKeep {
			n++
		}
		if p.at.After(last) {
			last = p.at
		}
	}
	return n, last
}

// share is how many addresses of each peer are offered to the dialer, so that
// those of all peers have room there.
func (l *lanPeers) share() int {
	return min(maxLANAddrs, maxTargets/max(len(l.all), 1))
}

// hear takes an announcement, from anyone, and offers its addresses.
func (l *lan) hear(instance string, texts []string, offer func(found)) {
	l.mu.Lock()
	near := l.near
	l.mu.Unlock()
	id, addrs, err := readAnnouncement(texts, near)
	if err != nil {
		l.log.Debug("an announcement is not taken", "instance", instance, "why", err)
		return
	}
	if id == l.self {
		return
	}
	now := l.now()
	l.mu.Lock()
	news, ok := l.heard.hear(id, instance, addrs, l.connected, now)
	addrs = addrs[:min(len(addrs), l.heard.share())]
	l.mu.Unlock()
	if !ok {
		return
	}
	for _, addr := range addrs {
		if f, ok := foundAt(addr, id, fromLAN, now.Add(lanKeep)); ok {
			f.heard = news
			offer(f)
		}
	}
}

// readAnnouncement reads what anyone can have written: one member's addresses on
// links that this node is on too, at most maxLANAddrs.
func readAnnouncement(texts []string, near []lanLink) (id peer.ID, addrs []ma.Multiaddr, err error) {
	for _, text := range texts {
		value, ok := strings.CutPrefix(text, dnsaddr)
		if !ok || len(addrs) == maxLANAddrs {
			continue
		}
		full, err := ma.NewMultiaddr(value)
		if err != nil {
			return "", nil, fmt.Errorf("%q is no multiaddr: %w", value, err)
		}
		addr, who := peer.SplitAddr(full)
		switch {
		case who == "" || id != "" && who != id:
			return "", nil, fmt.Errorf("%q does not name the one peer that announces itself", value)
		case !isPlain(addr):
			continue // of a later version, perhaps
		}
		_, ip, err := hostOf(addr)
		onLink := func(l lanLink) bool { return l.has(ip) }
		if err != nil || !dialable(ip) || !slices.ContainsFunc(near, onLink) {
			continue // it cannot be reached there without a router
		}
		id = who
		addrs = append(addrs, addr)
	}
	if len(addrs) == 0 {
		return "", nil, errors.New("it has no address that can be dialled")
	}
	if key, err := id.ExtractPublicKey(); err != nil || key.Type() != pb.KeyType_Ed25519 {
		return "", nil, fmt.Errorf("%s is no Ed25519 identity", id)
	}
	return id, addrs, nil
}

// isPlain tells an IP address with TCP or QUIC and nothing more.
func isPlain(a ma.Multiaddr) bool {
	codes := make([]int, 0, 4)
	for _, c := range a {
		codes = append(codes, c.Protocol().Code)
	}
	if len(codes) == 0 || codes[0] != ma.P_IP4 && codes[0] != ma.P_IP6 {
		return false
	}
	return slices.Equal(codes[1:], []int{ma.P_TCP}) || slices.Equal(codes[1:], []int{ma.P_UDP, ma.P_QUIC_V1})
}
