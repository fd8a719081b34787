package node

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
	"unicode"

	"vixp2p/replication"
	"vixp2p/trust"
)

// InitOptions say how to found a network.
type InitOptions struct {
	// DataDir of its first member: an empty or new directory. Default: the place that
	// DefaultDataDir names for Label.
	DataDir string
	Label   string // of the first member; default as of Config
	// Name is what people call the network, at most 64 bytes; it may be empty.
	Name   string
	Logger *slog.Logger
	Now    func() time.Time // default time.Now
}

// Membership is what a data directory belongs to after Init, Join or
// ImportCertificate.
type Membership struct {
	Network     string // hex
	NetworkName string
	PeerID      string
	Roles       []string  // as Member.Roles
	Expires     time.Time // zero: never
}

// Init founds a network of members: it makes a root key, which is kept in the data
// directory until it is taken elsewhere (ExportRoot, RemoveRoot), and makes the
// node of the directory its first admin, who also writes in every space. The node
// must not run. If Init is cut short, the same call completes it.
//
// Errors: *OtherNetworkError, ErrLocked, and what is wrong with the options.
func Init(ctx context.Context, o InitOptions) (*Membership, error) {
	if err := checkNetworkTitle(o.Name); err != nil {
		return nil, err
	}
	cfg, err := Config{DataDir: o.DataDir, Label: o.Label, Logger: o.Logger, Now: o.Now, Offline: true}.forDirectory()
	if err != nil {
		return nil, err
	}
	if have, found, err := readNetwork(cfg.DataDir); err != nil {
		return nil, err
	} else if found && !have.Open {
		return completeInit(ctx, cfg, have)
	}
	if err := os.MkdirAll(cfg.DataDir, 0o700); err != nil {
		return nil, mkdirProblem(cfg.DataDir, err)
	}
	if err := refuseData(cfg.DataDir); err != nil {
		return nil, permissionProblem(cfg.DataDir, err)
	}
	root, err := makeRootKey(filepath.Join(cfg.DataDir, rootKeyFile))
	if err != nil {
		return nil, permissionProblem(cfg.DataDir, err)
	}
	network := membersNetwork(replication.OriginKey(root.Public().(ed25519.PublicKey)), o.Name)
	dir, err := openDataDir(cfg.DataDir, network)
	if err != nil {
		return nil, permissionProblem(cfg.DataDir, err)
	}
	key, err := dir.loadIdentity()
	if err != nil {
		return nil, permissionProblem(cfg.DataDir, err)
	}
	if err := saveLabel(dir.path, o.Label, false); err != nil {
		return nil, permissionProblem(cfg.DataDir, err)
	}
	self := replication.OriginKey(key.Public().(ed25519.PublicKey))
	id, err := peerIDOf(self)
	if err != nil {
		return nil, err
	}
	first, err := trust.Certificate{
		Network: replication.NetworkOfRoot(root.Public().(ed25519.PublicKey)), Subject: self, Generation: 1, Label: labelOf(dir.path, o.Label, id, cfg.Logger),
		Grants: []trust.Grant{{Role: trust.RoleAdmin}, {Role: trust.RoleWriter}}, Serial: newSerial(),
	}.Sign(root)
	if err != nil {
		return nil, fmt.Errorf("cannot certify the first member: %w", err)
	}
	// The certificate first: the network file says that all is there.
	if err := writeCertificate(filepath.Join(dir.path, certificateFile), &trust.Chain{Leaf: first}); err != nil {
		return nil, permissionProblem(cfg.DataDir, fmt.Errorf("cannot write the certificate: %w", err))
	}
	if err := dir.settle(); err != nil {
		return nil, permissionProblem(cfg.DataDir, err)
	}
	return completeInit(ctx, cfg, network)
}

// completeInit has the root key certify the first member, which is the last step of
// Init, unless that is done.
func completeInit(ctx context.Context, cfg Config, network dirNetwork) (*Membership, error) {
	done := fmt.Errorf("the data directory %s belongs to %s already: use it as it is, or name another directory for a new network", cfg.DataDir, network.describe())
	if !fileExists(filepath.Join(cfg.DataDir, rootKeyFile)) {
		return nil, done
	}
	n, err := Open(ctx, Config{DataDir: cfg.DataDir, Logger: cfg.Logger, Now: cfg.Now, Offline: true})
	if err != nil {
		return nil, err
	}
	root, err := n.members.rootKey()
	if len(n.members.state.Load().Members()) > 0 {
		err = done
	}
	first := n.members.shown.Load()
	if err == nil && first == nil {
		err = fmt.Errorf("the certificate that init made is missing from %s, which was not completed: name a new directory", cfg.DataDir)
	}
	if err == nil {
		statements := []trust.Statement{first.Leaf}
		if network.Name != "" {
			statements = append(statements, &trust.NetworkStatement{Name: network.Name, Version: 1})
		}
		err = n.do(ctx, func(e *engine) error { return n.stateAsRoot(ctx, e, root, statements) })
	}
	var out *Membership
	if err == nil {
		out = n.membershipNow()
	}
	return out, errors.Join(err, n.Close())
}

// checkNetworkTitle accepts what people may call a network.
func checkNetworkTitle(name string) error {
	if name == "" {
		return nil
	}
	if err := checkName("network's name", name); err != nil {
		return fmt.Errorf("%w: %w", err, ErrInvalid)
	}
	return nil
}

// forDirectory fills in what a command needs that works on a node's directory itself.
func (c Config) forDirectory() (Config, error) {
	c, err := c.withDirectory()
	if err != nil {
		return c, err
	}
	return c, CheckNodeDir(c.DataDir)
}

// refuseData returns an error if a directory that is to get a network has data.
func refuseData(dir string) error {
	have, found, err := readNetwork(dir)
	if err != nil {
		return err
	}
	store, err := hasStore(dir)
	if err != nil {
		return err
	}
	if found && have.Open || store {
		what := "data"
		if found {
			what = "the data of " + have.describe()
		}
		return fmt.Errorf("%s holds %s, and a data directory has one network for life: name a new directory", dir, what)
	}
	return nil
}

// makeRootKey makes the root key, or reads the one that an Init which was cut short
// has left.
func makeRootKey(path string) (ed25519.PrivateKey, error) {
	_, fresh, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("cannot make a root key: %w", err)
	}
	text, err := encodeRootKey(fresh)
	if err != nil {
		return nil, err
	}
	if err := writeOnce(path, text); err == nil {
		return fresh, nil
	} else if !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("cannot write the root key: %w", err)
	}
	if err := CheckRootKeyFile(path); err != nil {
		return nil, err
	}
	text, err = readSmall(path)
	if err != nil {
		return nil, err
	}
	key, err := parseRootKey(text)
	if err != nil {
		return nil, fmt.Errorf("the root key %s cannot be used: %w", path, err)
	}
	return key, nil
}

func newSerial() (s trust.Serial) {
	_, _ = rand.Read(s[:]) // never fails
	return s
}

// rolesText is grants for people: "writer, reader:notes".
func (m *membership) rolesText(grants []trust.Grant) string {
	return strings.Join(roleNames(grants, m.spaceName), ", ")
}

// roleNames are grants as text: the role, and the space unless it is every one;
// names tells what a space is called.
func roleNames(grants []trust.Grant, names func(replication.SpaceID) string) []string {
	out := []string{}
	for _, g := range grants {
		s := g.Role.String()
		if g.Space != (replication.SpaceID{}) {
			space := g.Space.String()
			if names != nil {
				if name := names(g.Space); name != "" {
					space = name
				}
			}
			s += ":" + space
		}
		out = append(out, s)
	}
	return out
}

// roleEnds are the ends of those of a member's roles that end before its last certificate.
func roleEnds(x *trust.Member, names func(replication.SpaceID) string) map[string]time.Time {
	later := func(a, b int64) bool { return b != 0 && (a == 0 || a > b) } // 0: never
	ends := map[string]time.Time{}
	for _, g := range x.Grants {
		var last *trust.Certificate
		for _, c := range x.Certificates {
			if slices.Contains(c.Grants, g) && (last == nil || later(c.NotAfter, last.NotAfter)) {
				last = c
			}
		}
		if last != nil && later(x.Expires(), last.NotAfter) {
			ends[roleNames([]trust.Grant{g}, names)[0]] = unixTime(last.NotAfter)
		}
	}
	return ends
}

// expiryText is the end of a certificate for people.
func expiryText(unix int64) string {
	if unix == 0 {
		return "never"
	}
	return time.Unix(unix, 0).UTC().Format(time.RFC3339)
}

// unixTime is the zero time for 0, which means never.
func unixTime(unix int64) time.Time {
	if unix == 0 {
		return time.Time{}
	}
	return time.Unix(unix, 0).UTC()
}

// cleanText leaves out what cannot be shown of a text that came from elsewhere.
func cleanText(s string, most int) string {
	s = strings.TrimSpace(strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, strings.ToValidUTF8(s, "")))
	for len(s) > most {
		r := []rune(s)
		s = strings.TrimSpace(string(r[:len(r)-1]))
	}
	return s
}
