package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"vixp2p/node"
	"vixp2p/node/localapi"
)

// sendTimeout is how long send waits for the recipient by default.
const sendTimeout = 30 * time.Second

func (p *program) sendCommand() *cobra.Command {
	ttl := &count{min: 1, max: node.MaxMessageTTL}
	lifetime := &span{unit: time.Second, min: time.Millisecond, max: node.MaxMessageLifetime, noZero: "leave it out for 24 hours"}
	cmd := &cobra.Command{
		Use:   "send PEER TEXT|-",
		Short: "Send a message to a member, who need not be connected",
		Long: `Send a message to a member, named by its label, its peer ID, or the end of that (6
characters or more), and return when it has it (at most 30 s, or --timeout; 0 =
until it is delivered or expires). One that this node never met has no label here:
use its peer ID. It travels hop by hop through members that are
connected with each other, sealed so that only its recipient can read it, and is
stored on its way: if the time is up it goes on being tried, for 24 hours or
--lifetime. - reads the text from standard input.`,
		Example: `  vix-node send --id A B "the pump was checked"
  vix-node send --id A 12D3KooW... - < note.txt
  vix-node send --id A B "no further than a neighbour's neighbour" --ttl 2 --timeout 5s`,
		Args: exactly(2, "a peer and a text, or - for standard input"),
		RunE: func(cmd *cobra.Command, args []string) error {
			text, err := p.message(args[1])
			if err != nil {
				return err
			}
			m := localapi.Send{Peer: args[0], Text: text, TTL: ttl.value, Lifetime: lifetime.value, Timeout: p.timeLimit(sendTimeout)}
			if err := m.Check(); err != nil {
				return err
			}
			// The node ends the wait, so that it can tell how far the message came.
			limit := time.Duration(0)
			if m.Timeout > 0 {
				limit = m.Timeout + lockPatience
			}
			return p.with(cmd, needNode, limit, func(ctx context.Context, b localapi.Backend) error {
				var stored *localapi.Sent
				m.Stored = func(s localapi.Sent) { stored = &s }
				sent, err := b.Send(ctx, m)
				if err != nil && ctx.Err() != nil && bareEnding(err) {
					err = p.unwaited(ctx, err, stored)
				}
				if failed, ok := errors.AsType[*localapi.Error](err); ok && failed.Sent != nil {
					sent = *failed.Sent
				} else if err != nil {
					return err
				}
				if p.flags.json {
					err = errors.Join(err, p.print(sent))
				}
				return err
			})
		},
	}
	cmd.Flags().Var(ttl, "ttl", "how many links it may cross (default: that of the route, or 8)")
	cmd.Flags().Var(lifetime, "lifetime", "how long it goes on being tried, at most 7 days (default 24 h)")
	return cmd
}

// unwaited says what becomes of a message whose sender does not wait any longer;
// stored is nil if the node has not said yet that it holds it.
func (p *program) unwaited(ctx context.Context, err error, stored *localapi.Sent) error {
	if stored == nil {
		return localapi.Errorf(localapi.CodeOf(err), "%w before the node had answered: see with `vix-node status %s` whether a message more is on its way from here before you send it again", context.Cause(ctx), p.nodeFlag())
	}
	told := localapi.Errorf(localapi.CodeUndelivered, "%w: %s has not acknowledged the message yet; it is stored here and goes on being tried by itself until %s; `vix-node status %s` tells how many are on their way", context.Cause(ctx), stored.To, stored.Expires, p.nodeFlag())
	told.Sent = stored
	return told
}

// message is an argument's bytes, or standard input for "-".
func (p *program) message(arg string) ([]byte, error) {
	if arg != "-" {
		return []byte(arg), nil
	}
	b, err := io.ReadAll(io.LimitReader(p.stdin, node.MaxMessageBytes+1))
	if err != nil {
		return nil, fmt.Errorf("cannot read standard input: %w", err)
	}
	if len(b) > node.MaxMessageBytes {
		return nil, localapi.Errorf(localapi.CodeTooLarge, "standard input has more than the limit of one message, %d bytes: put it under a key and send the key, or split it", node.MaxMessageBytes)
	}
	return b, nil
}

func (p *program) messagesCommand() *cobra.Command {
	var from string
	var follow bool
	n := &count{}
	cmd := &cobra.Command{
		Use:   "messages",
		Short: "Print the messages to this node",
		Long: `Print the messages that members sent to this node with send, in the order in which
they arrived, from the first that is kept. What was printed is kept until there is
no room for new ones (10,000, or 64 MiB).
With --json each line has a cursor; --from goes on after it.
--follow goes on with what comes; Ctrl-C ends it.`,
		Example: `  vix-node messages --id B
  vix-node messages --id B --follow --json --from "$CURSOR"`,
		Args: exactly(0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			in := localapi.Inbox{From: from, Follow: follow, Count: n.value}
			run := func() error {
				return p.following(cmd, needNode, n.value, follow, func(ctx context.Context, b localapi.Backend) error {
					return b.Messages(ctx, in, func(m localapi.Message) error {
						if p.flags.json {
							return p.print(m)
						}
						_, err := fmt.Fprintf(p.stdout, "%s  %s  %s\n", m.Time, m.From, shown(m.Text.String(), 0))
						return err
					})
				})
			}
			if follow {
				return run()
			}
			return p.buffered(run)
		},
	}
	cmd.Flags().StringVar(&from, "from", "", "a `cursor` that an earlier messages printed, or now")
	cmd.Flags().BoolVar(&follow, "follow", false, "go on with what comes")
	cmd.Flags().Var(n, "count", "end after so many messages, 0 = no limit")
	return cmd
}

// messageRows are the lines of status about messages.
func messageRows(m *localapi.Messages, routes []localapi.Route, row func(name, format string, args ...any)) {
	if m == nil {
		return
	}
	row("messages", "%d here (%d not read), %d on their way from here, %d carried for others", m.Inbox, m.Unread, m.Outbox, m.Transit-m.Replies)
	if m.Problem != "" {
		row("MESSAGES OFF", "%s", m.Problem)
	}
	if m.Recovered != "" {
		row("MESSAGES LOST", "%s", m.Recovered)
	}
	first := true
	for _, r := range routes {
		if r.Source == "session" {
			continue // the peers are listed
		}
		row(map[bool]string{true: "routes"}[first], "%s through %s, %s, TTL %d", short(r.Target), short(r.NextHop), r.Source, r.TTL)
		first = false
	}
}
