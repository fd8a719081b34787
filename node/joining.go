package node

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	ma "github.com/multiformats/go-multiaddr"

	"vixp2p/protocols"
	"vixp2p/replication"
	"vixp2p/trust"
)

// JoinOptions say how to join a network.
type JoinOptions struct {
	// Ticket is what Invite gave. It is a secret.
	Ticket string
	// DataDir of the new member: an empty or new directory, or that of a member of the
	// same network who was revoked or whose certificate has ended. Default: the
	// place that DefaultDataDir names for Label.
	DataDir string
	Label   string
	// Addrs are further addresses of the node that made the ticket, in the forms of
	// Config.Connect.
	Addrs  []string
	Logger *slog.Logger
	Now    func() time.Time // default time.Now
}

// Join redeems a ticket at the node that made it. That node must run and be reached.
// When it returns nil the directory has a certificate, durably; if it was cut short,
// the same ticket and directory complete it. The node of the directory must not
// run.
//
// Errors: those of trust.ParseTicket, *OtherNetworkError, ErrLocked, *DialError,
// and a *protocols.CodeError of the refusal.
func Join(ctx context.Context, o JoinOptions) (*Membership, error) {
	t, err := trust.ParseTicket(o.Ticket)
	if err != nil {
		return nil, err
	}
	cfg, err := Config{DataDir: o.DataDir, Label: o.Label, Logger: o.Logger, Now: o.Now}.forDirectory()
	if err != nil {
		return nil, err
	}
	if t.Expires != 0 && cfg.Now().Unix() >= t.Expires {
		return nil, fmt.Errorf("the ticket could be used until %s: ask an admin of the network for a new one, or set this machine's clock right: %w", expiryText(t.Expires), trust.ErrExpired)
	}
	dir, key, err := openToJoin(cfg, t.Network, o.Label)
	if err != nil {
		return nil, permissionProblem(cfg.DataDir, err)
	}
	if o.Label == "" { // one that joins again keeps the label that it had
		o.Label = rememberedLabel(dir.path, cfg.Logger)
	}
	h, err := newHost(&Config{MaxPeers: 1, Logger: cfg.Logger, NoRelay: false}, key, newReach(&Config{NoAutoNAT: true, NoHolePunching: true}), nil)
	if err != nil {
		return nil, err
	}
	res, addr, err := redeem(ctx, h, t, o.Addrs, o.Label)
	if closeErr := h.Close(); err == nil && closeErr != nil {
		cfg.Logger.Debug("closing the network", "err", closeErr)
	}
	if err != nil {
		return nil, err
	}
	chain, err := trust.DecodeChain(res.Chain)
	if err == nil {
		err = namingBy(chain.Verify(res.Root[:]), endOfID)
	}
	if err == nil && chain.Leaf.Subject != replication.OriginKey(key.Public().(ed25519.PublicKey)) {
		err = errors.New("it is for another node")
	}
	if err != nil {
		return nil, fmt.Errorf("the certificate that the other node gave is of no use: ask for a new ticket: %w", err)
	}
	return settleMembership(cfg, dir, key, res.Root, cleanText(res.NetworkName, maxNameBytes), chain, t.Issuer, addr)
}

// openToJoin makes or checks the directory of a node that is to join a network.
func openToJoin(cfg Config, id replication.NetworkID, label string) (*dataDir, ed25519.PrivateKey, error) {
	have, found, err := readNetwork(cfg.DataDir)
	if err != nil {
		return nil, nil, err
	}
	want := dirNetwork{ID: id.String()}
	switch {
	case found && !have.Open && have.ID == want.ID:
		if DataDirInUse(cfg.DataDir) {
			return nil, nil, fmt.Errorf("a node is running on %s: stop it, and join then: %w", cfg.DataDir, ErrLocked)
		}
	case found:
		return nil, nil, &OtherNetworkError{Dir: cfg.DataDir, Have: have.describe(), Want: want.describe()}
	default:
		if err := refuseData(cfg.DataDir); err != nil {
			return nil, nil, err
		}
	}
	if err := os.MkdirAll(cfg.DataDir, 0o700); err != nil {
		return nil, nil, mkdirProblem(cfg.DataDir, err)
	}
	dir, err := openDataDir(cfg.DataDir, want)
	if err != nil {
		return nil, nil, err
	}
	key, err := dir.loadIdentity()
	if err != nil {
		return nil, nil, err
	}
	return dir, key, saveLabel(dir.path, label, false)
}

// redeem asks the issuer at the addresses that the ticket and the user name, one
// after the other.
func redeem(ctx context.Context, h host.Host, t *trust.Ticket, more []string, label string) (*protocols.JoinResult, string, error) {
	issuer, err := peerIDOf(t.Issuer)
	if err != nil {
		return nil, "", fmt.Errorf("the ticket names no node: ask for a new one: %w", trust.ErrTicketDamaged)
	}
	c := connector{host: h, resolve: resolveHost, timeout: DefaultHelloTimeout}
	for _, addr := range more {
		if _, err := parseTarget(addr); err != nil {
			return nil, "", fmt.Errorf("%w: %w", err, ErrInvalid)
		}
	}
	var first error
	for _, addr := range append(append([]string{}, more...), t.Addrs...) {
		target, err := parseTarget(addr)
		if err != nil {
			continue // of the ticket: a form that this version does not know
		}
		target.ID = issuer
		conn, err := c.connect(ctx, target, issuer, time.Now().Add(answerTime))
		if err == nil {
			var res *protocols.JoinResult
			if res, err = ask(ctx, h, conn, t, label); err == nil {
				return res, addr, nil
			}
			var said *protocols.CodeError
			if errors.As(err, &said) && said.FromPeer {
				return nil, "", joinError(err)
			}
		}
		if first == nil {
			first = err
		}
		if ctx.Err() != nil {
			break
		}
	}
	if first == nil {
		first = errors.New("the ticket names no address that can be used")
	}
	return nil, "", &JoinError{Issuer: issuer.String(), Cause: first}
}

// JoinError: the node that made the ticket was not reached, or did not answer.
type JoinError struct {
	Issuer string // peer ID
	Cause  error
}

func (e *JoinError) Error() string {
	return fmt.Sprintf("the node that made the ticket, %s, does not answer: see that it runs and can be reached from here, name another address of it with --addr, and join again with the same ticket: %v", e.Issuer, e.Cause)
}
func (e *JoinError) Unwrap() error { return e.Cause }

// joinError puts a refusal into words of a joiner.
func joinError(err error) error {
	if errors.Is(err, protocols.ErrBusy) || errors.Is(err, protocols.ErrHelloTimeout) {
		return fmt.Errorf("the node that made the ticket has no time now: join again in a moment with the same ticket: %w", err)
	}
	return fmt.Errorf("the node that made the ticket refuses it: %w", err)
}

func ask(ctx context.Context, h host.Host, conn network.Conn, t *trust.Ticket, label string) (*protocols.JoinResult, error) {
	opening, cancel := context.WithTimeout(network.WithAllowLimitedConn(ctx, string(protocols.JoinProtocol)), DefaultHelloTimeout)
	defer cancel()
	st, err := h.NewStream(opening, conn.RemotePeer(), protocols.JoinProtocol)
	if err != nil {
		return nil, fmt.Errorf("it does not answer joiners: see that it is an admin's node: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { st.Reset() })
	defer stop()
	return protocols.RequestJoin(st, protocols.JoinConfig{
		Peer: conn.RemotePeer(), Issuer: t.Issuer, Network: t.Network, Invite: t.Public(), Label: label,
		Sign: func(nonce [32]byte) []byte {
			self, _ := protocols.OriginOf(h.ID())
			return trust.SignJoin(t, self, nonce)
		},
	})
}

// settleMembership makes a certificate durable, and with it that the directory
// belongs to the network.
func settleMembership(cfg Config, dir *dataDir, key ed25519.PrivateKey, root replication.OriginKey, name string, chain *trust.Chain, issuer replication.OriginKey, addr string) (*Membership, error) {
	problem := func(err error) error {
		return permissionProblem(dir.path, fmt.Errorf("cannot write to the data directory: %w", err))
	}
	if err := writeCertificate(filepath.Join(dir.path, certificateFile), chain); err != nil {
		return nil, problem(err)
	}
	dir.network = membersNetwork(root, name)
	if err := dir.settle(); err != nil {
		return nil, problem(err)
	}
	if addr != "" { // so that the node finds the network at its first start
		if id, err := peerIDOf(issuer); err == nil {
			book := openAddressBook(dir.path, cfg.Logger)
			book.meet(id, "", dialText(addr), nil, cfg.Now())
			if err := book.save(); err != nil {
				cfg.Logger.Warn("where the other node is reached is not remembered: give it with --connect", "addr", addr, "err", err)
			}
		}
	}
	id, err := peerIDOf(replication.OriginKey(key.Public().(ed25519.PublicKey)))
	if err != nil {
		return nil, err
	}
	return &Membership{
		Network: replication.NetworkOfRoot(root[:]).String(), NetworkName: name, PeerID: id.String(),
		Roles: roleNames(chain.Leaf.Grants, nil), Expires: unixTime(chain.Leaf.NotAfter),
	}, nil
}

// dialText is an address as the address book keeps it.
func dialText(addr string) string {
	if a, err := ma.NewMultiaddr(addr); err == nil {
		return withoutPeer(a).String()
	}
	return addr
}

// answerJoins serves joiners.
func (m *mesh) answerJoins(decide func(context.Context, protocols.JoinDemand) (protocols.JoinGrant, error)) {
	m.service.Handle(protocols.JoinProtocol, func(st network.Stream) error {
		leave, err := m.enterJoin(st.Conn())
		if err != nil {
			return err
		}
		defer leave()
		err = protocols.AnswerJoin(st, protocols.AnswerConfig{
			Peer: st.Conn().RemotePeer(), Network: m.network, Timeout: m.timeout,
			Decide: func(d protocols.JoinDemand) (protocols.JoinGrant, error) {
				ctx, cancel := context.WithTimeout(m.dialer.ctx, protocols.DefaultJoinWait)
				defer cancel()
				return decide(ctx, d)
			},
		})
		if err != nil {
			m.refusedJoin(st, err)
			return err
		}
		m.gate.forgive(st.Conn().RemotePeer())
		return nil
	})
}

// refusedJoin logs a join that came to nothing: one line, the same one at most once a
// minute.
func (m *mesh) refusedJoin(st network.Stream, err error) {
	id := st.Conn().RemotePeer().String()
	if m.refusals.fresh("join "+id+err.Error(), m.now()) {
		m.log.Warn("join refused", "peer", id, "addr", readable(st.Conn().RemoteMultiaddr()), "err", err)
	}
}
