package node

import (
	"cmp"
	"context"
	"crypto/ed25519"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"vixp2p/protocols"
	"vixp2p/replication"
	"vixp2p/trust"
	"vixp2p/trust/keys"
)

// Certificates by hand: an admin signs one for a peer ID that reached it by other
// means, and the node of that identity imports the text, which is no secret.

// CertifyOptions say what to certify.
type CertifyOptions struct {
	// Peer is a peer ID, or of a member a label or the end of its ID. A member gets a
	// further certificate of its generation: with the roles that it has where Role
	// is empty; roles only add up. One that was revoked is admitted again, with Role.
	Peer   string
	Role   string // as of InviteOptions; of a new member the default is writer
	Spaces []string
	Label  string
	Valid  time.Duration // from now; 0: for ever
}

// Certified is a certificate as a text for Import.
type Certified struct {
	PeerID  string
	Text    string // PEM; holds the network, the certificate and where this node is reached
	Roles   []string
	Expires time.Time // zero: never
}

// Certify issues a certificate. It is durable, and goes on to the members, when it
// returns. ErrNotAdmin; ErrNoRootKey where it is to make an admin.
func (n *Node) Certify(ctx context.Context, o CertifyOptions) (*Certified, error) {
	m, err := n.needMembers()
	if err != nil {
		return nil, err
	}
	subject, err := n.parseMember(o.Peer)
	if err != nil {
		return nil, err
	}
	if to, err := keys.RecipientOf(&trust.Certificate{Subject: subject}); err != nil || !keys.Usable(to) {
		return nil, fmt.Errorf("%s is the ID of no node, because its key is no valid Ed25519 key: copy it again from what cert id printed there: %w", o.Peer, ErrInvalid)
	}
	if o.Valid < 0 || o.Valid > 0 && o.Valid < time.Second {
		return nil, fmt.Errorf("a certificate that is valid for %s: it must be 1 s or more, or 0 for ever: %w", o.Valid, ErrInvalid)
	}
	if err := checkLabel(o.Label); err != nil {
		return nil, fmt.Errorf("%w: %w", err, ErrInvalid)
	}
	m.issuing.Lock()
	defer m.issuing.Unlock()
	st := m.state.Load()
	c := trust.Certificate{Network: m.network, Subject: subject, Generation: st.NextGeneration(subject), Label: o.Label}
	if member, ok := st.Member(subject); ok {
		last := member.Certificates[len(member.Certificates)-1]
		c.X25519 = last.X25519
		c.Label = cmp.Or(o.Label, member.Label)
		switch {
		case o.Role != "":
		case member.Revoked:
			return nil, fmt.Errorf("peer %s was revoked: say with --role, and --in for single spaces, what it may do when it is admitted again: %w", originName(subject), ErrConflict)
		case len(o.Spaces) == 0:
			c.Grants = slices.Clone(member.Grants)
		}
	}
	if c.Grants == nil {
		if c.Grants, err = m.grants(o.Role, o.Spaces); err != nil {
			return nil, err
		}
	}
	c.Label = memberLabel(subject, c.Label)
	if o.Valid > 0 {
		c.NotAfter = m.now().Add(o.Valid).Unix()
	}
	leaf, err := n.certify(ctx, c)
	if err != nil {
		return nil, err
	}
	chain := &trust.Chain{Leaf: leaf}
	if leaf.IssuerGeneration != 0 {
		if chain.Issuer, err = m.admin(); err != nil {
			return nil, err
		}
	}
	return n.textOf(chain), nil
}

// Certificate is the text of a member's certificate; "" means this node's own.
// ErrNotFound: it has none.
func (n *Node) Certificate(_ context.Context, name string) (*Certified, error) {
	m, err := n.needMembers()
	if err != nil {
		return nil, err
	}
	subject := m.self
	if name != "" {
		if subject, err = n.parseMember(name); err != nil {
			return nil, err
		}
	}
	return n.certified(subject)
}

// Headers of a certificate's text.
const (
	headerRoot = "Root"
	headerName = "Network-Name"
	headerNode = "Node"    // a node of the network, its peer ID
	headerAddr = "Address" // where it is reached
)

func (n *Node) certified(subject replication.OriginKey) (*Certified, error) {
	m := n.members
	chain := m.state.Load().CertificateFor(subject, m.now())
	if chain == nil && subject == m.self {
		chain = m.shown.Load()
	}
	if chain == nil {
		return nil, fmt.Errorf("peer %s has no certificate that stands: %w", originName(subject), ErrNotFound)
	}
	return n.textOf(chain), nil
}

// textOf is a certificate as a text, with what its node needs to find the network.
func (n *Node) textOf(chain *trust.Chain) *Certified {
	m := n.members
	headers := map[string]string{headerRoot: m.root.String(), headerNode: n.ID()}
	if name := m.state.Load().NetworkName(); name != "" {
		headers[headerName] = name
	}
	if addrs, err := n.ticketAddrs(nil); err == nil {
		headers[headerAddr] = addrs[0]
	}
	text := pem.EncodeToMemory(&pem.Block{Type: certificatePEM, Headers: headers, Bytes: chain.Encode()})
	return &Certified{
		PeerID: originName(chain.Leaf.Subject), Text: string(text),
		Roles: roleNames(m.grantsOf(chain), m.spaceName), Expires: unixTime(chain.Leaf.NotAfter),
	}
}

// ImportOptions say whose certificate to import.
type ImportOptions struct {
	Text    string // as Certify gave it
	DataDir string // as of JoinOptions
	Label   string
	Logger  *slog.Logger
	Now     func() time.Time // default time.Now
}

// ImportCertificate makes the node of a directory a member by a certificate that
// came by other means; it needs no network. The node must not run.
func ImportCertificate(o ImportOptions) (*Membership, error) {
	block, _ := pem.Decode([]byte(o.Text))
	if block == nil || block.Type != certificatePEM {
		return nil, fmt.Errorf("this is no certificate: give what cert export printed, from the line BEGIN to the line END: %w", ErrInvalid)
	}
	chain, err := trust.DecodeChain(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("the certificate is damaged: export it again: %w", err)
	}
	var root replication.OriginKey
	if raw, err := hex.DecodeString(block.Headers[headerRoot]); err != nil || len(raw) != len(root) {
		return nil, fmt.Errorf("the text does not name the network's root key: export the certificate again: %w", ErrInvalid)
	} else {
		copy(root[:], raw)
	}
	if err := chain.Verify(root[:]); err != nil {
		return nil, fmt.Errorf("the certificate does not lead to the root key that the text names: export it again: %w", namingBy(err, endOfID))
	}
	cfg, err := Config{DataDir: o.DataDir, Label: o.Label, Logger: o.Logger, Now: o.Now}.forDirectory()
	if err != nil {
		return nil, err
	}
	dir, key, err := openToJoin(cfg, replication.NetworkOfRoot(root[:]), o.Label)
	if err != nil {
		return nil, permissionProblem(cfg.DataDir, err)
	}
	if self := replication.OriginKey(key.Public().(ed25519.PublicKey)); chain.Leaf.Subject != self {
		return nil, fmt.Errorf("the certificate is for %s, and the node of %s is %s: ask for one for this peer ID: %w", originName(chain.Leaf.Subject), cfg.DataDir, originName(self), ErrInvalid)
	}
	var issuer replication.OriginKey
	addr := ""
	if id, err := peer.Decode(block.Headers[headerNode]); err == nil {
		if _, err := parseTarget(block.Headers[headerAddr]); err == nil {
			if issuer, err = protocols.OriginOf(id); err == nil {
				addr = block.Headers[headerAddr]
			}
		}
	}
	return settleMembership(cfg, dir, key, root, cleanText(block.Headers[headerName], maxNameBytes), chain, issuer, addr)
}

// PrepareIdentity makes the identity of a directory that is to join a network, and
// returns its peer ID: what an admin needs for Certify.
func PrepareIdentity(dataDir, label string) (string, error) {
	cfg, err := Config{DataDir: dataDir, Label: label}.forDirectory()
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(cfg.DataDir, 0o700); err != nil {
		return "", mkdirProblem(cfg.DataDir, err)
	}
	dir, err := openDataDir(cfg.DataDir, cfg.anyNetwork())
	if err != nil {
		return "", permissionProblem(cfg.DataDir, err)
	}
	key, err := dir.loadIdentity()
	if err != nil {
		return "", permissionProblem(cfg.DataDir, err)
	}
	if err := saveLabel(dir.path, label, false); err != nil {
		return "", permissionProblem(cfg.DataDir, err)
	}
	id, err := peerIDOf(replication.OriginKey(key.Public().(ed25519.PublicKey)))
	return id.String(), err
}

// anyNetwork is whatever network the directory has.
func (c *Config) anyNetwork() dirNetwork {
	if have, found, err := readNetwork(c.DataDir); err == nil && found {
		return have
	}
	return openNetwork(DefaultNetworkName)
}

// RootKey is the network's root key of a data directory as a text, which whoever has
// it can do anything in the network with. ErrNoRootKey.
func RootKey(dataDir string) ([]byte, error) {
	_, path, root, err := rootOf(dataDir)
	if err != nil {
		return nil, err
	}
	key, err := readRootKey(path, root)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrNoRootKey
	}
	if err != nil {
		return nil, err
	}
	return encodeRootKey(key)
}

// ImportRootKey brings a root key, as RootKey gave it, to a data directory of its
// network.
func ImportRootKey(dataDir string, text []byte) error {
	have, path, root, err := rootOf(dataDir)
	if err != nil {
		return err
	}
	key, err := parseRootKey(text)
	if err != nil {
		return fmt.Errorf("the text cannot be used: %w: give what root export printed: %w", err, ErrInvalid)
	}
	if replication.OriginKey(key.Public().(ed25519.PublicKey)) != root {
		return fmt.Errorf("this is the root key of another network, and %s belongs to %s: %w", dataDir, have.describe(), ErrInvalid)
	}
	out, err := encodeRootKey(key)
	if err != nil {
		return err
	}
	if err := replaceFile(path, out); err != nil {
		return permissionProblem(dataDir, fmt.Errorf("cannot write the root key: %w", err))
	}
	return nil
}

// RemoveRootKey takes the root key off a data directory. ErrNoRootKey.
func RemoveRootKey(dataDir string) error {
	_, path, _, err := rootOf(dataDir)
	if err != nil {
		return err
	}
	err = os.Remove(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return errNoKeyToRemove
	case err != nil:
		return permissionProblem(dataDir, fmt.Errorf("cannot remove the root key: %w", err))
	}
	return syncDir(dataDir)
}

// rootOf is where a data directory keeps the root key of its network.
func rootOf(dataDir string) (have dirNetwork, path string, root replication.OriginKey, err error) {
	have, found, err := readNetwork(dataDir)
	if err == nil && (!found || have.Open) {
		err = ErrNoMembers
	}
	if err == nil {
		root, err = have.root()
	}
	return have, filepath.Join(dataDir, rootKeyFile), root, err
}

func fileExists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
