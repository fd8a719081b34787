package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/mdp/qrterminal/v3"
	"github.com/spf13/cobra"

	"vixp2p/node"
	"vixp2p/node/localapi"
)

// adminTimeout is the default of what an admin states; revoke gathers for half of it.
const adminTimeout = 20 * time.Second

func (p *program) initCommand() *cobra.Command {
	var name string
	cmd := &cobra.Command{
		Use:   "init",
		Short: "Found a network of members, in a new data directory",
		Long: `Found a network of members in a new data directory. Its node is the first member:
an admin, who may write in every space. Others come in by invite and join; nobody else
is let in or learns anything.

The directory also holds the network's root key, which makes and revokes admins. Put
a copy of it away (root export), take it off the machine (root remove), and make a
second admin (invite --role admin, before that): then a lost machine costs nothing
but itself.`,
		Example: "  vix-node init --id A --name shop\n  vix-node run --id A --listen 9001",
		Args:    exactly(0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			dir, err := p.dir()
			if err != nil {
				return err
			}
			m, err := node.Init(cmd.Context(), node.InitOptions{DataDir: dir, Label: p.flags.id, Name: name, Logger: p.warnings()})
			if err != nil {
				return node.APIError(err)
			}
			if p.flags.json {
				return p.print(membershipOf(m))
			}
			fmt.Fprintf(p.stdout, "network %s\nthis node %s is its first member and admin\n", titleOf(m), m.PeerID)
			return nil
		},
	}
	cmd.Flags().StringVar(&name, "name", "", "what people call the network, 1 to 64 bytes")
	return cmd
}

// membership is a result of init, join and cert import.
type membership struct {
	Network     string         `json:"network"`
	NetworkName string         `json:"network_name,omitempty"`
	PeerID      string         `json:"peer_id"`
	Roles       []string       `json:"roles"`
	Expires     *localapi.Time `json:"expires"`
}

func membershipOf(m *node.Membership) membership {
	out := membership{Network: m.Network, NetworkName: m.NetworkName, PeerID: m.PeerID, Roles: m.Roles}
	if !m.Expires.IsZero() {
		out.Expires = &localapi.Time{Time: m.Expires}
	}
	return out
}

func titleOf(m *node.Membership) string {
	if m.NetworkName == "" {
		return m.Network
	}
	return fmt.Sprintf("%s (%s)", shown(m.NetworkName, 0), m.Network)
}

// warnings is the log of a command that works on a directory itself.
func (p *program) warnings() *slog.Logger { return newLogger(p.stderr, slog.LevelWarn, "text") }

// roleFlags say what somebody is to be.
type roleFlags struct {
	role   choice
	spaces texts
	label  string
	valid  span
}

func newRoleFlags(role string) *roleFlags {
	return &roleFlags{
		role:  choice{role, []string{node.RoleWriter, node.RoleReader, node.RoleRelay, node.RoleAdmin}},
		valid: span{unit: time.Second, max: 100 * 365 * day},
	}
}

func (f *roleFlags) add(cmd *cobra.Command, role string) {
	fs := cmd.Flags()
	fs.SortFlags = false
	fs.Var(&f.role, "role", "what the node may do: "+role)
	fs.Var(&f.spaces, "in", "`space` in which it counts; repeatable (default: every one)")
	fs.StringVar(&f.label, "label", "", "what people call the node, if it does not say itself")
	fs.Var(&f.valid, "valid", "how long the certificate is valid, such as 90d; 0 = for ever")
}

func (p *program) inviteCommand() *cobra.Command {
	f := newRoleFlags(node.RoleWriter)
	var addrs addresses
	var qr bool
	expires := &span{unit: time.Second, value: node.DefaultInviteExpiry, min: time.Second, max: node.MaxInviteExpiry, noZero: "a ticket must end some time"}
	cmd := &cobra.Command{
		Use:   "invite",
		Short: "Make a ticket that lets one node join",
		Long: `Make a ticket: one string to copy, and nothing else on standard output. Whoever has it
can join with one node, once, until it expires; so hand it on like a password. The
joiner asks this node, which must be running and reached by then. --qr also draws it
on standard error.

Roles: writer reads and writes, reader reads, relay stores and passes on. An admin
invites and revokes, and writes in every space; only a node that holds the root key
can invite one.`,
		Example: `  vix-node invite --id A
  vix-node invite --id A --role reader --in notes --expires 1h --valid 90d --qr`,
		Args: exactly(0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return p.with(cmd, needData, p.timeLimit(adminTimeout), func(ctx context.Context, b localapi.Backend) error {
				in, err := b.Invite(ctx, localapi.Invite{
					Role: f.role.value, Spaces: f.spaces, Label: f.label, Expires: expires.value, Valid: f.valid.value, Addrs: addrs,
				})
				if err != nil {
					return err
				}
				p.note(in.Note)
				if qr {
					qrterminal.GenerateWithConfig(strings.ToUpper(in.Ticket), qrterminal.Config{
						Level: qrterminal.L, Writer: p.stderr, HalfBlocks: true, QuietZone: 2,
						BlackChar: qrterminal.BLACK_BLACK, WhiteChar: qrterminal.WHITE_WHITE,
						BlackWhiteChar: qrterminal.BLACK_WHITE, WhiteBlackChar: qrterminal.WHITE_BLACK,
					})
				}
				if p.flags.json {
					return p.print(in)
				}
				_, err = fmt.Fprintln(p.stdout, in.Ticket)
				return err
			})
		},
	}
	f.add(cmd, "writer, reader, relay or admin")
	cmd.Flags().Var(expires, "expires", "how long the ticket can be used, at most a year (default 24 h)")
	cmd.Flags().Var(&addrs, "addr", "address at which the joiner reaches this node, if not where it listens; repeatable")
	cmd.Flags().BoolVar(&qr, "qr", false, "also draw the ticket as a QR code, on standard error")
	return cmd
}

func (p *program) joinCommand() *cobra.Command {
	var addrs addresses
	cmd := &cobra.Command{
		Use:   "join TICKET|-",
		Short: "Join a network with a ticket, in a new data directory",
		Long: `Join the network of a ticket, in a new data directory: the node that made the ticket
is asked for a certificate (at most 30 s, or --timeout), which is kept there. Then run
the node: it remembers where the other one was reached. - reads the ticket from
standard input, so that it does not show in the list of processes.

A node that was revoked, or whose certificate has ended, joins again in its own
directory with a new ticket.`,
		Example: `  vix-node join --id B vix1-...
  vix-node join --id B - < ticket.txt && vix-node run --id B --listen 9002`,
		Args: exactly(1, "a ticket, or - for standard input"),
		RunE: func(cmd *cobra.Command, args []string) error {
			dir, err := p.dir()
			if err != nil {
				return err
			}
			ticket, err := p.smallText("ticket", args[0])
			if err != nil {
				return err
			}
			ctx, cancel := within(cmd.Context(), p.timeLimit(joinTimeout))
			defer cancel()
			_, again, _ := node.DataDirNetwork(dir)
			m, err := node.Join(ctx, node.JoinOptions{Ticket: ticket, DataDir: dir, Label: p.flags.id, Addrs: addrs, Logger: p.warnings()})
			if err != nil {
				return p.explain(ctx, node.APIError(err))
			}
			if again {
				p.noteUntaken(ctx, dir)
			}
			return p.printJoined(m)
		},
	}
	cmd.Flags().Var(&addrs, "addr", "further address of the node that made the ticket; repeatable")
	return cmd
}

const joinTimeout = 30 * time.Second

func (p *program) printJoined(m *node.Membership) error {
	if p.flags.json {
		return p.print(membershipOf(m))
	}
	_, err := fmt.Fprintf(p.stdout, "this node %s is a member of network %s: %s\n", m.PeerID, titleOf(m), strings.Join(m.Roles, ", "))
	return err
}

// maxSmallText bounds tickets and certificates, in bytes.
const maxSmallText = 64 << 10

// smallText is an argument, or standard input for "-".
func (p *program) smallText(what, arg string) (string, error) {
	if arg != "-" {
		return arg, nil
	}
	b, err := io.ReadAll(io.LimitReader(p.stdin, maxSmallText+1))
	if err != nil {
		return "", fmt.Errorf("cannot read standard input: %w", err)
	}
	if len(b) > maxSmallText {
		return "", localapi.Errorf(localapi.CodeTooLarge, "standard input is more than %d bytes, which is no %s", maxSmallText, what)
	}
	return withoutMark(b), nil
}

// withoutMark is a text without the byte order mark that some editors begin a file with.
func withoutMark(text []byte) string { return strings.TrimPrefix(string(text), "\ufeff") }

func (p *program) membersCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "members",
		Short: "List the members of the network",
		Long: `List who is certified in the network, as far as this node has heard, and the invites
that nobody has used. With --json a line each: members, then invites. Of writes that
a revocation took out of view, and that are kept for 30 days, it says whose they are
and how many; "tail --set-aside" prints them.`,
		Example: "  vix-node members --id A",
		Args:    exactly(0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return p.with(cmd, needData, p.timeLimit(adminTimeout), func(ctx context.Context, b localapi.Backend) error {
				list, err := b.Members(ctx)
				if err != nil {
					return err
				}
				for _, u := range list.Untaken {
					p.note(untakenText(u))
				}
				for _, m := range list.Members {
					for _, w := range m.SetAside {
						p.note(setAsideText(p.nodeFlag(), &m, w))
					}
				}
				if p.flags.json {
					for _, m := range list.Members {
						err = errors.Join(err, p.print(m))
					}
					for _, in := range list.Invites {
						err = errors.Join(err, p.print(in))
					}
					return err
				}
				t := table(p.stdout)
				fmt.Fprintln(t, "PEER\tLABEL\tROLES\tSTATE\tEXPIRES")
				for _, m := range list.Members {
					state := m.State
					if m.Self {
						state += " (this node)"
					}
					fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\n", m.PeerID, shown(m.Label, 24), shown(strings.Join(m.Roles, ", "), 40), state, memberExpiry(&m))
				}
				for _, in := range list.Invites {
					fmt.Fprintf(t, "invite %s\t%s\t%s\t%s\t%s\n", in.Invite, shown(in.Label, 24), shown(strings.Join(in.Roles, ", "), 40), in.State, expiry(in.Expires))
				}
				return t.Flush()
			})
		},
	}
}

func expiry(t *localapi.Time) string {
	if t == nil {
		return "never"
	}
	return t.String()
}

// memberExpiry is when a member's last certificate ends, and which roles end before.
func memberExpiry(m *localapi.Member) string {
	var sooner []string
	for _, role := range m.Roles {
		if at, ok := m.RoleEnds[role]; ok {
			sooner = append(sooner, role+" "+at.String())
		}
	}
	if len(sooner) == 0 {
		return expiry(m.Expires)
	}
	return fmt.Sprintf("%s (%s)", expiry(m.Expires), shown(strings.Join(sooner, ", "), 80))
}

func (p *program) revokeCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "revoke PEER|INVITE",
		Short: "Put a member out of the network, or take an invite back",
		Long: `Put out a member, named by its label, its ID, or the end of that (6 characters or
more), or take back an invite, named by its key as members lists it. The member has no
session with anybody any more, and what it writes from now on counts nowhere. What
it wrote before stays, up to what this node and the members connected to it hold: it
first gathers that, for 10 s at most. Members that are not reached may hold more of
it, which will not count; they are listed.

An admin is revoked with the root key, by a node that holds it.`,
		Example: "  vix-node revoke --id A B",
		Args:    exactly(1, "a member: its label, its ID, or the end of that; or the key of an invite"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if args[0] == "" {
				return usagef("the member is empty: give its label or ID, as `members` lists them")
			}
			return p.with(cmd, needData, p.timeLimit(adminTimeout), func(ctx context.Context, b localapi.Backend) error {
				in := localapi.Revoke{Name: args[0]}
				if at, ok := ctx.Deadline(); ok { // half of the time for what is gathered, the rest for saying it
					in.Gather = max(time.Until(at)/2, time.Millisecond)
				}
				r, err := b.Revoke(ctx, in)
				if err != nil {
					return err
				}
				p.note(r.Note)
				if p.flags.json {
					return p.print(r)
				}
				if r.Invite != "" {
					fmt.Fprintf(p.stdout, "invite %s is taken back\n", r.Invite)
					return nil
				}
				fmt.Fprintf(p.stdout, "%s is revoked\n", r.PeerID)
				for _, c := range r.Cuts {
					fmt.Fprintf(p.stdout, "kept of log %s in space %s: up to %d\n", short(c.Log), shown(c.Space, 0), c.Seq)
				}
				if r.Behind != "" {
					p.note("connected members may hold more of it, which will not count: " + r.Behind)
				}
				if len(r.Unreached) > 0 {
					p.note(fmt.Sprintf("%s not connected here, and what they alone hold of it will not count: %s",
						many(uint64(len(r.Unreached)), "member is", "members are"), strings.Join(withLabels(ctx, b, r.Unreached), ", ")))
				}
				return nil
			})
		},
	}
}

// withLabels are members for people, as far as labels of them are known.
func withLabels(ctx context.Context, b localapi.Backend, ids []string) []string {
	list, err := b.Members(ctx)
	if err != nil {
		return ids
	}
	names := map[string]string{}
	for _, m := range list.Members {
		if m.Label != "" {
			names[m.PeerID] = fmt.Sprintf("%s (%s)", shown(m.Label, 24), m.PeerID)
		}
	}
	out := make([]string, len(ids))
	for i, id := range ids {
		out[i] = cmp.Or(names[id], id)
	}
	return out
}

func (p *program) spaceCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "space",
		Short: "Create and list the spaces of the network",
		Long:  "Create and list the spaces of a network of members. The space default is always there.",
		Args:  subcommands,
		RunE:  needsSubcommand,
	}
	var encrypted bool
	create := &cobra.Command{
		Use:   "create NAME",
		Short: "Create a space; for admins",
		Long: `Create a space: from then on members with a role in it may use it, wherever they hear
of it. It is for admins. A space that exists stays as it is.

With --encrypted, what is written in it can be read by its writers and readers alone:
relays keep and pass on what they cannot read. A space is encrypted from the beginning
or never.`,
		Example: "  vix-node space create --id A notes\n  vix-node space create --id A --encrypted diary",
		Args:    exactly(1, "a name"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return p.with(cmd, needData, p.timeLimit(adminTimeout), func(ctx context.Context, b localapi.Backend) error {
				s, err := b.CreateSpace(ctx, localapi.NewSpace{Name: args[0], Encrypted: encrypted})
				p.note(s.Note)
				if err == nil && p.flags.json {
					err = p.print(s)
				}
				return err
			})
		},
	}
	create.Flags().BoolVar(&encrypted, "encrypted", false, "seal what is written in it for its writers and readers")
	list := &cobra.Command{
		Use:     "list",
		Short:   "List the spaces of the network",
		Long:    "List the spaces of the network, as far as this node has heard.",
		Example: "  vix-node space list --id A",
		Args:    exactly(0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return p.with(cmd, needData, p.timeLimit(adminTimeout), func(ctx context.Context, b localapi.Backend) error {
				spaces, err := b.ListSpaces(ctx)
				if err != nil {
					return err
				}
				if p.flags.json {
					for _, s := range spaces {
						err = errors.Join(err, p.print(s))
					}
					return err
				}
				t := table(p.stdout)
				fmt.Fprintln(t, "SPACE\tENCRYPTED\tCARRIED HERE")
				yes := map[bool]string{true: "yes", false: "no"}
				for _, s := range spaces {
					fmt.Fprintf(t, "%s\t%s\t%s\n", shown(s.Name, 0), yes[s.Encrypted], yes[s.Carried])
				}
				return t.Flush()
			})
		},
	}
	cmd.AddCommand(create, list)
	return cmd
}

// subcommands refuses arguments of a command that has only subcommands.
func subcommands(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	return usagef("unknown command %q of %s: `vix-node help %s` lists them", args[0], cmd.Name(), cmd.Name())
}

// needsSubcommand is what such a command says when it is called alone.
func needsSubcommand(cmd *cobra.Command, _ []string) error {
	var names []string
	for _, sub := range cmd.Commands() {
		names = append(names, sub.Name())
	}
	last := len(names) - 1
	return usagef("%s does nothing alone: say %s or %s after it", cmd.Name(), strings.Join(names[:last], ", "), names[last])
}

func (p *program) certCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "cert",
		Short: "Show, issue and import certificates by hand",
		Long: `Certificates by hand, for a node that cannot reach an admin's: it tells its peer ID
(cert id), an admin issues a certificate for it (cert export), and the node imports
the text (cert import), which is no secret.`,
		Args: subcommands,
		RunE: needsSubcommand,
	}
	id := &cobra.Command{
		Use:     "id",
		Short:   "Print the peer ID of a node that is to be certified",
		Long:    "Print the peer ID of a data directory's node, of which the identity is made if there is none.",
		Example: "  vix-node cert id --id B",
		Args:    exactly(0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			dir, err := p.dir()
			if err != nil {
				return err
			}
			id, err := node.PrepareIdentity(dir, p.flags.id)
			if err != nil {
				return node.APIError(err)
			}
			if p.flags.json {
				return p.print(struct {
					PeerID string `json:"peer_id"`
				}{id})
			}
			_, err = fmt.Fprintln(p.stdout, id)
			return err
		},
	}
	show := &cobra.Command{
		Use:     "show [PEER]",
		Short:   "Print a member's certificate",
		Long:    "Print the certificate of this node, or of another member, as a text for cert import.",
		Example: "  vix-node cert show --id A",
		Args:    atMostOne("a member: its label, its ID, or the end of that"),
		RunE: func(cmd *cobra.Command, args []string) error {
			name := ""
			if len(args) > 0 {
				name = args[0]
			}
			return p.with(cmd, needData, p.timeLimit(adminTimeout), func(ctx context.Context, b localapi.Backend) error {
				c, err := b.Certificate(ctx, name)
				return p.printCertificate(c, err)
			})
		},
	}
	f := newRoleFlags("")
	export := &cobra.Command{
		Use:   "export PEER",
		Short: "Issue a certificate for a peer ID; for admins",
		Long: `Issue a certificate for a peer ID that reached an admin by other means, and print it as
a text for cert import. It also goes to the members like data. A member gets a further
one, by default with the roles that it has: that is how a certificate that ends is
renewed, also while its node is running.`,
		Example: `  vix-node cert export --id A 12D3KooW... --role writer > b.pem
  vix-node cert export --id A B --valid 90d > b.pem`,
		Args: exactly(1, "a peer ID, or a member"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if args[0] == "" {
				return usagef("the peer is empty: give its peer ID")
			}
			return p.with(cmd, needData, p.timeLimit(adminTimeout), func(ctx context.Context, b localapi.Backend) error {
				c, err := b.Certify(ctx, localapi.Certify{Peer: args[0], Role: f.role.value, Spaces: f.spaces, Label: f.label, Valid: f.valid.value})
				p.note(c.Note)
				return p.printCertificate(c, err)
			})
		},
	}
	f.add(export, "writer, reader, relay or admin (default: what it has, else writer)")
	imported := &cobra.Command{
		Use:     "import FILE|-",
		Short:   "Become a member by a certificate, in a new data directory",
		Long:    "Make the node of a data directory a member by a certificate that an admin has exported for its peer ID. It needs no network; the node must not be running. - reads standard input.",
		Example: "  vix-node cert import --id B b.pem",
		Args:    exactly(1, "a file, or - for standard input"),
		RunE: func(cmd *cobra.Command, args []string) error {
			dir, err := p.dir()
			if err != nil {
				return err
			}
			text, err := p.smallFile("certificate", args[0])
			if err != nil {
				return err
			}
			_, again, _ := node.DataDirNetwork(dir)
			m, err := node.ImportCertificate(node.ImportOptions{Text: text, DataDir: dir, Label: p.flags.id, Logger: p.warnings()})
			if err != nil {
				return contentError(err)
			}
			if again {
				p.noteUntaken(cmd.Context(), dir)
			}
			return p.printJoined(m)
		},
	}
	cmd.AddCommand(id, show, export, imported)
	return cmd
}

func (p *program) printCertificate(c localapi.Certificate, err error) error {
	switch {
	case err != nil:
		return err
	case p.flags.json:
		return p.print(c)
	}
	_, err = fmt.Fprint(p.stdout, c.Text)
	return err
}

// smallFile is a file's text, or standard input for "-".
func (p *program) smallFile(what, name string) (string, error) {
	if name == "-" {
		return p.smallText(what, name)
	}
	info, err := os.Stat(name)
	switch {
	case err != nil:
		return "", fmt.Errorf("cannot read the %s: %w", what, err)
	case info.Size() > maxSmallText:
		return "", localapi.Errorf(localapi.CodeTooLarge, "%s is more than %d bytes, which is no %s: name the right file", name, maxSmallText, what)
	}
	b, err := os.ReadFile(name)
	if err != nil {
		return "", fmt.Errorf("cannot read the %s: %w", what, err)
	}
	return withoutMark(b), nil
}

// contentError is an error about what a file holds or standard input says, with which
// nothing is wrong in the command line.
func contentError(err error) error {
	if err = node.APIError(err); localapi.CodeOf(err) == localapi.CodeUsage {
		return localapi.Errorf(localapi.CodeTicket, "%w", err)
	}
	return err
}

func (p *program) rootKeyCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "root",
		Short: "Export, import and remove the network's root key",
		Long: `The root key makes and revokes the admins of a network, and is needed for nothing else.
init leaves it in the data directory. Export it to a place that is safe, such as a
stick in a drawer, and remove it from the machine. Whoever has it has the network;
without any copy of it admins go on to invite and revoke members, and nobody can make or
revoke an admin any more.`,
		Args: subcommands,
		RunE: needsSubcommand,
	}
	var out string
	export := &cobra.Command{
		Use:     "export",
		Short:   "Write the root key to a file",
		Long:    "Write the root key to a new file, mode 0600. The key stays in the data directory too.",
		Example: "  vix-node root export --id A --out /media/stick/shop-root.key",
		Args:    exactly(0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			dir, err := p.dir()
			if err != nil {
				return err
			}
			if out == "" {
				return usagef("root export needs --out and the name of a new file")
			}
			key, err := node.RootKey(dir)
			if err != nil {
				return node.APIError(err)
			}
			return writeNewFile(out, key)
		},
	}
	export.Flags().StringVar(&out, "out", "", "the new `file`")
	imported := &cobra.Command{
		Use:     "import FILE|-",
		Short:   "Bring the root key to this data directory",
		Long:    "Bring the root key of the network, as root export wrote it, to a data directory of the same network. - reads standard input.",
		Example: "  vix-node root import --id C /media/stick/shop-root.key",
		Args:    exactly(1, "a file, or - for standard input"),
		RunE: func(cmd *cobra.Command, args []string) error {
			dir, err := p.dir()
			if err != nil {
				return err
			}
			err = node.CheckRootKeyFile(args[0])
			if _, absent := errors.AsType[*fs.PathError](err); err != nil && !absent { // "-", or reading says what is wrong
				return localapi.Errorf(localapi.CodeNotAllowed, "%v", err)
			}
			text, err := p.smallFile("root key", args[0])
			if err != nil {
				return err
			}
			if err := node.ImportRootKey(dir, []byte(text)); err != nil {
				return contentError(err)
			}
			return nil
		},
	}
	remove := &cobra.Command{
		Use:     "remove",
		Short:   "Take the root key off this data directory",
		Long:    "Take the root key off the data directory. Export it first: without any copy nobody can make or revoke admins any more. --yes says that there is one.",
		Example: "  vix-node root remove --id A --yes",
		Args:    exactly(0, ""),
	}
	yes := remove.Flags().Bool("yes", false, "there is a copy of the key elsewhere")
	remove.RunE = func(cmd *cobra.Command, _ []string) error {
		dir, err := p.dir()
		if err != nil {
			return err
		}
		if !*yes {
			return usagef("root remove takes the key off this machine for good: export it first (root export), and say --yes")
		}
		if err := node.RemoveRootKey(dir); err != nil {
			return node.APIError(err)
		}
		return nil
	}
	cmd.AddCommand(export, imported, remove)
	return cmd
}

// writeNewFile writes a secret to a file that does not exist yet.
func writeNewFile(name string, data []byte) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	switch {
	case errors.Is(err, fs.ErrExist):
		return fmt.Errorf("the file %s exists, and is not written over: name a new one", name)
	case err != nil:
		return fmt.Errorf("cannot write a new file there: %w", err)
	}
	_, err = f.Write(data)
	err = errors.Join(err, f.Sync(), f.Close())
	if err != nil {
		return fmt.Errorf("cannot write the root key: %w", err)
	}
	return nil
}

// membershipRows are the lines of status about a network of members.
func membershipRows(m *localapi.Membership, row func(name, format string, args ...any)) {
	if m == nil {
		return
	}
	roles := strings.Join(m.Roles, ", ")
	if roles == "" {
		roles = "no role"
	}
	row("member", "%s, %s, expires %s", shown(roles, 0), m.State, expiry(m.Expires))
	root := ""
	if m.RootKey {
		root = "; the root key is on this machine"
	}
	row("members", "%d%s", m.Members, root)
	for _, u := range m.Untaken {
		row("NOT TAKEN", "%s", untakenText(u))
	}
}

// untakenText says which of its own writes a revoked node keeps to itself.
func untakenText(u localapi.Untaken) string {
	which := fmt.Sprintf("%s of this node in space %s, from %d of log %s on", many(u.Ops, "operation", "operations"), shown(u.Space, 40), u.From, short(u.Log))
	if u.Cut {
		return which + ": members do not take them, which are beyond the cut of its revocation"
	}
	return which + ": no member has said that it holds them, and this node was revoked; where members cut, perhaps before that, is not known here"
}

// setAsideText says what is kept of a member and does not count. nodeFlag names
// this node.
func setAsideText(nodeFlag string, m *localapi.Member, w localapi.SetAside) string {
	who := short(m.PeerID)
	if m.Label != "" {
		who = shown(m.Label, 24) + " (" + who + ")"
	}
	text := fmt.Sprintf("%s of %s in space %s, in %s, are out of view since %s, because they do not count, and kept until %s",
		many(w.Ops, "operation", "operations"), who, shown(w.Space, 40), many(uint64(w.Logs), "log", "logs"), w.Since, w.Until)
	if strings.HasPrefix(w.Space, "vix/") {
		return text // the control logs hold no values
	}
	return text + ": `vix-node tail " + nodeFlag + " --set-aside --space " + shown(w.Space, 40) + "` prints them"
}

// noteUntaken says what a node that joined again loses from view when it runs, and how
// to keep it. It is a help only: that it fails fails nothing.
func (p *program) noteUntaken(ctx context.Context, dir string) {
	opened, err := p.openDir(ctx, dir, needData)
	if err != nil {
		return
	}
	defer opened.Close()
	list, err := opened.Untaken(ctx)
	if err != nil {
		return
	}
	for _, u := range list {
		if u.Cut || strings.HasPrefix(u.Space, "vix/") {
			continue // is out of view already; the control logs hold no values
		}
		p.note(fmt.Sprintf("members do not take %s of this node in space %s, from %d of log %s on, whose values are out of view once the node runs: before that, save the lines of that log that `vix-node ls %s --space %s --json` prints, and write them anew with load",
			many(u.Ops, "operation", "operations"), shown(u.Space, 40), u.From, short(u.Log), p.nodeFlag(), shown(u.Space, 40)))
	}
}
