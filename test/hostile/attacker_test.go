//go:build linux

package hostile

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"

	"vixp2p/protocols"
	"vixp2p/replication"
)

// An attack runs in a process of its own, so that its processor time is not the
// tested node's or the honest peers'. It is the test binary with this variable set to
// its orders, says "begun" with its first peer ID once it is under way and "enough" once
// it has done what its name says, goes on until its standard input ends, and then says
// what it did. It has one core at most, and what others leave of it: on a machine of two
// an attacker that wants all would be measured.
const ordersVar = "VIX_TEST_ATTACK"

// orders say what to attack, and as whom.
type orders struct {
	Attack  string
	As      where // one of them
	Target  string
	Network replication.NetworkID
	// Members are who the attacker is in a network of members: each of the goroutines
	// of an attack is one of them. None: whoever it likes.
	Members []identity
}

// identity is a member that turned bad.
type identity struct {
	Key         ed25519.PrivateKey
	Certificate []byte
}

// attacker is a client without manners.
type attacker struct {
	attack
	orders
	target peer.AddrInfo
	space  replication.SpaceID
	did    sync.Map // what it did -> *atomic.Int64
	begin  sync.Once
	enough sync.Once
}

// attackMain runs an attack.
func attackMain(text string) int {
	a := &attacker{}
	err := json.Unmarshal([]byte(text), &a.orders)
	if err == nil {
		var target *peer.AddrInfo
		if target, err = peer.AddrInfoFromString(a.Target); err == nil {
			a.target = *target
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	a.attack = attacks[slices.IndexFunc(attacks, func(b attack) bool { return b.name == a.Attack })]
	a.space = replication.SpaceOf(a.Network, replication.DefaultSpace)
	_ = syscall.Setpriority(syscall.PRIO_PROCESS, 0, 19)
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		cancel()
	}()
	a.run(ctx, a)
	a.did.Range(func(what, n any) bool {
		fmt.Printf("%d %s\n", n.(*atomic.Int64).Load(), what)
		return true
	})
	return 0
}

// begun says that the attack is under way, and who attacks.
func (a *attacker) begun(h host.Host) {
	a.begin.Do(func() { fmt.Printf("begun %s\n", h.ID()) })
}

// count counts something that the attacker did.
func (a *attacker) count(what string, n int) {
	c, _ := a.did.LoadOrStore(what, new(atomic.Int64))
	if total := c.(*atomic.Int64).Add(int64(n)); what == a.unit && total >= a.amount {
		a.enough.Do(func() { fmt.Println("enough") })
	}
}

// again is the pause between connections of all goroutines of an attack. Loopback may
// make any number, and an address of another machine 10 a second: this is what ten such
// addresses may make.
const again = 10 * time.Millisecond

// loop runs fn again and again, in n goroutines, each with a host of its own that is
// new after every lives calls (0: never): another peer, unless it is a member.
func (a *attacker) loop(ctx context.Context, n, lives int, fn func(ctx context.Context, h host.Host) error) {
	var all sync.WaitGroup
	for who := range n {
		all.Go(func() {
			for ctx.Err() == nil {
				h := a.newHost(who)
				for i := 0; ctx.Err() == nil && (lives == 0 || i < lives); i++ {
					if err := fn(ctx, h); err != nil {
						a.count("errors", 1)
					}
					pause(ctx, time.Duration(n)*again)
				}
				_ = h.Close()
			}
		})
	}
	all.Wait()
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// newHost is a libp2p host without limits: a member, or one that nobody knows.
func (a *attacker) newHost(who int) host.Host {
	_, key, err := ed25519.GenerateKey(nil)
	if len(a.Members) > 0 {
		key = a.Members[who].Key
	}
	var id crypto.PrivKey
	if err == nil {
		id, err = crypto.UnmarshalEd25519PrivateKey(key)
	}
	var h host.Host
	if err == nil {
		h, err = libp2p.New(libp2p.Identity(id), libp2p.NoListenAddrs, libp2p.DisableRelay(), libp2p.DisableMetrics(),
			libp2p.ResourceManager(&network.NullResourceManager{}), libp2p.Ping(false))
	}
	if err != nil {
		panic(err)
	}
	return h
}

// member is who a host is; nothing if it is no member.
func (a *attacker) member(h host.Host) (m identity) {
	for _, m := range a.Members {
		if h.ID().MatchesPublicKey(publicKey(m.Key)) {
			return m
		}
	}
	return identity{}
}

func publicKey(key ed25519.PrivateKey) crypto.PubKey {
	pub, err := crypto.UnmarshalEd25519PublicKey(key.Public().(ed25519.PublicKey))
	if err != nil {
		panic(err)
	}
	return pub
}

// dial connects anew, whatever came of it before.
func (a *attacker) dial(ctx context.Context, h host.Host) (network.Conn, error) {
	_ = h.Network().ClosePeer(a.target.ID)
	if sw, ok := h.Network().(*swarm.Swarm); ok {
		sw.Backoff().Clear(a.target.ID)
	}
	a.count("dials", 1)
	if err := h.Connect(ctx, a.target); err != nil {
		return nil, err
	}
	conns := h.Network().ConnsToPeer(a.target.ID)
	if len(conns) == 0 {
		return nil, errors.New("the connection was closed at once")
	}
	return conns[0], nil
}

// stream opens a stream on a new connection.
func (a *attacker) stream(ctx context.Context, h host.Host, p protocol.ID) (network.Stream, error) {
	if _, err := a.dial(ctx, h); err != nil {
		return nil, err
	}
	return h.NewStream(ctx, a.target.ID, p)
}

// hello runs the handshake as a member would, if it is one.
func (a *attacker) hello(h host.Host, st network.Stream, id replication.NetworkID) (*protocols.Session, error) {
	cfg := protocols.HelloConfig{
		Network: id, Self: h.ID(), Peer: a.target.ID, Label: "evil", Certificate: a.member(h).Certificate,
	}
	if len(a.Members) == 0 {
		cfg.Spaces = []replication.SpaceInfo{{ID: a.space, Name: replication.DefaultSpace}}
	}
	random(cfg.Instance[:])
	random(cfg.Boot[:])
	cfg.Attempt = 1
	return protocols.Initiate(st, cfg)
}

// session opens a session on a new connection.
func (a *attacker) session(ctx context.Context, h host.Host) (*protocols.Conn, network.Stream, error) {
	st, err := a.stream(ctx, h, protocols.SyncProtocol)
	if err != nil {
		return nil, nil, err
	}
	s, err := a.hello(h, st, a.Network)
	if err != nil {
		return nil, nil, err
	}
	a.count("sessions", 1)
	context.AfterFunc(ctx, func() { _ = st.Reset() })
	return protocols.NewConn(s), st, nil
}

// pump reads what the node says until the session ends. It hands questions about the
// data to asked, and says that it knows what the node does of the rest, without which a
// member is not asked about data.
func (a *attacker) pump(c *protocols.Conn, asked func(q *replication.FrontierDigest)) {
	for {
		m, release, err := c.Read()
		if err != nil {
			return
		}
		release()
		if q, ok := m.(*replication.FrontierDigest); ok && !q.Reply {
			switch {
			case q.Space != a.space:
				same := *q
				same.Reply = true
				_ = c.Write(&same)
			case asked != nil:
				asked(q)
			}
		}
		if p, ok := m.(*replication.Ping); ok {
			_ = c.Write(&replication.Pong{Nonce: p.Nonce})
		}
	}
}

func random(p []byte) { _, _ = rand.Read(p) }

// uvarint is a frame's length.
func uvarint(v uint64) []byte { return binary.AppendUvarint(nil, v) }

// author writes blocks of a log of its own, good and bad.
type author struct {
	key   ed25519.PrivateKey
	space replication.SpaceID
	gen   *replication.Genesis
	log   replication.LogID
	pos   replication.Position
	hlc   replication.HLC
}

// author begins a log: a member one of its own, in an open network that of anybody.
func (a *attacker) author(h host.Host, hlc replication.HLC) *author {
	m := a.member(h)
	if m.Key == nil {
		var err error
		if _, m.Key, err = ed25519.GenerateKey(nil); err != nil {
			panic(err)
		}
	}
	o := &author{key: m.Key, space: a.space, hlc: hlc, gen: &replication.Genesis{Network: a.Network, Space: a.space, Grant: m.Certificate}}
	random(o.gen.Epoch[:])
	copy(o.gen.Origin[:], m.Key.Public().(ed25519.PublicKey))
	o.log = o.gen.LogID()
	return o
}

// block appends a signed block with one key set to a value.
func (o *author) block(key, value string) []byte {
	o.hlc++
	body := replication.EncodeBody(o.log, []replication.Op{{Kind: replication.KindPut, Key: []byte(key), Payload: []byte(value), HLC: o.hlc, Order: uint64(o.hlc)}})
	return o.sealed(body, uint64(len(body)), replication.CodecNone)
}

// sealed appends a signed block of one operation with a body as it is.
func (o *author) sealed(body []byte, rawLen uint64, codec replication.Codec) []byte {
	h := &replication.Header{
		Log: o.log, FirstSeq: o.pos.Seq + 1, Count: 1, Prev: o.pos.Hash,
		BodyHash: sha256.Sum256(body), BodyLen: uint64(len(body)), RawLen: rawLen, Codec: codec,
		FirstHLC: o.hlc, LastHLC: o.hlc,
	}
	if o.pos.Seq == 0 {
		h.Genesis = o.gen
	}
	header := replication.AppendHeader(nil, h)
	hash := replication.Hash(sha256.Sum256(header))
	o.pos = replication.Position{Seq: o.pos.Seq + 1, Hash: hash}
	return replication.AppendBlock(nil, header, replication.SignBlock(o.key, hash), body)
}

// push is a run of the log from a position to its end.
func (o *author) push(from replication.Position, run ...[]byte) *replication.WalPush {
	data := bytes.Join(run, nil)
	return &replication.WalPush{Space: o.space, Log: o.log, From: from, End: o.pos, Total: uint64(len(data)), Data: data}
}
