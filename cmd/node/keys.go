package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"vixp2p/node/localapi"
)

// replicaTimeout is how long a write waits for other members by default.
const replicaTimeout = 30 * time.Second

// replicas adds --replicas to a command that writes.
func replicas(cmd *cobra.Command) *count {
	n := &count{max: 1000}
	cmd.Flags().Var(n, "replicas", "return when so many members that have a session with this node hold the write durably (at most 30 s, or --timeout)")
	return n
}

func (p *program) putCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "put KEY VALUE|-",
		Short: "Set a key's value",
		Long: `Set a key's value, and replace every value of it that this node has seen.
It returns when the write is durable here. - reads the value from standard input.
--replicas counts the members that told this node itself that they hold the write:
those that have a session with it, not those that get it through others.`,
		Example: `  vix-node put --id A user/1 '{"name":"Ada"}'
  vix-node put --id A photo - < photo.jpg
  vix-node put --id A important "keep this" --replicas 2 --timeout 10s`,
		Args: exactly(2, "a key and a value, or - for standard input"),
	}
	n := replicas(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		value, err := p.content(args[1])
		if err != nil {
			return err
		}
		return p.write(cmd, n.value, localapi.Op{Op: localapi.OpPut, Key: []byte(args[0]), Value: value}, false)
	}
	return cmd
}

func (p *program) delCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "del KEY",
		Short:   "Delete a key",
		Long:    "Delete a key: every value of it that this node has seen. To delete what is not there is no error.",
		Example: "  vix-node del --id A user/1",
		Args:    exactly(1, "a key"),
	}
	n := replicas(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return p.write(cmd, n.value, localapi.Op{Op: localapi.OpDelete, Key: []byte(args[0])}, false)
	}
	return cmd
}

func (p *program) appendCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "append KIND PAYLOAD|-",
		Short: "Append one operation of your own kind",
		Long: `Append one operation of a kind that your application names, with any payload.
It shows in tail, at every member, and does not touch the keys.
- reads the payload from standard input.`,
		Example: `  vix-node append --id A note "the pump was checked"
  vix-node tail --id B --follow`,
		Args: exactly(2, "a kind and a payload, or - for standard input"),
	}
	n := replicas(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		payload, err := p.content(args[1])
		if err != nil {
			return err
		}
		return p.write(cmd, n.value, localapi.Op{Op: localapi.OpAppend, Kind: args[0], Payload: payload}, true)
	}
	return cmd
}

// content is an argument's bytes, or standard input for "-".
func (p *program) content(arg string) ([]byte, error) {
	if arg != "-" {
		return []byte(arg), nil
	}
	b, err := io.ReadAll(io.LimitReader(p.stdin, localapi.MaxValue+1))
	if err != nil {
		return nil, fmt.Errorf("cannot read standard input: %w", err)
	}
	if len(b) > localapi.MaxValue {
		return nil, localapi.Errorf(localapi.CodeTooLarge, "standard input has more than the limit of one value, %s", localapi.ValueLimit)
	}
	return b, nil
}

// appended is the answer of append, which counts no replicas unless asked to.
type appended struct {
	Log  string `json:"log"`
	Seq  uint64 `json:"seq"`
	Note string `json:"note,omitempty"`
}

// write writes one operation. A write that is durable here and not yet at as
// many members as asked for still prints where it stands.
func (p *program) write(cmd *cobra.Command, replicas int, op localapi.Op, plain bool) error {
	if err := op.Check(); err != nil {
		return err
	}
	w := localapi.Write{Ops: []localapi.Op{op}, Replicas: replicas}
	limit := p.timeLimit(0)
	if replicas > 0 {
		// The node ends the wait, so that it can tell how far the write came.
		if w.Timeout = p.timeLimit(replicaTimeout); w.Timeout > 0 {
			limit = w.Timeout + lockPatience
		}
	}
	return p.with(cmd, needStore, limit, func(ctx context.Context, b localapi.Backend) error {
		durable := false
		w.Durable = func(localapi.Written) { durable = true }
		written, err := b.Write(ctx, p.flags.space, w)
		var failed *localapi.Error
		switch {
		case err == nil:
		case ctx.Err() != nil && bareEnding(err) && durable:
			err = localapi.Errorf(localapi.CodeReplicas, "%w: the write is durable here and goes on to other members by itself; `vix-node wait --synced %s` tells when those that are connected have it", context.Cause(ctx), p.nodeFlag())
		case ctx.Err() != nil && bareEnding(err):
			return localapi.Errorf(localapi.CodeOf(err), "%w before the node had answered: see with `vix-node tail %s` whether the write is there before you repeat it", context.Cause(ctx), p.nodeFlag())
		case !errors.As(err, &failed):
			return err
		case failed.Written != nil:
			written = *failed.Written
		case failed.Code == localapi.CodeTooLarge:
			return op.TooLarge(failed)
		default:
			return err
		}
		p.note(written.Note)
		if !p.flags.json {
			return err
		}
		if plain && replicas == 0 {
			return p.print(appended{written.Log, written.Seq, written.Note})
		}
		return errors.Join(err, p.print(written))
	})
}

func (p *program) getCommand() *cobra.Command {
	var conflicts bool
	cmd := &cobra.Command{
		Use:   "get KEY",
		Short: "Print a key's value",
		Long: `Print a key's value: its bytes and nothing else, but for the end of the line on a
terminal. A key that was written at
several members at one time has several values: get prints the winner, which is
the same everywhere, and --conflicts lists all. The next put resolves them.`,
		Example: `  vix-node get --id A user/1
  vix-node get --id A user/1 --conflicts`,
		Args: exactly(1, "a key"),
		RunE: func(cmd *cobra.Command, args []string) error {
			key := localapi.Op{Op: localapi.OpDelete, Key: []byte(args[0])}
			if err := key.Check(); err != nil {
				return err
			}
			return p.with(cmd, needData, p.timeLimit(0), func(ctx context.Context, b localapi.Backend) error {
				e, err := b.Get(ctx, p.flags.space, []byte(args[0]))
				if err != nil {
					return err
				}
				switch {
				case conflicts:
					return p.print(localapi.Conflicts{Key: e.Key, Siblings: e.Siblings})
				case p.flags.json:
					e.Siblings = nil
					return p.print(e)
				}
				value := e.Value.Bytes()
				if p.terminal(p.stdout) && !bytes.HasSuffix(value, []byte("\n")) {
					value = append(value, '\n') // for the eyes alone: elsewhere the bytes are what counts
				}
				_, err = p.stdout.Write(value)
				return err
			})
		},
	}
	cmd.Flags().BoolVar(&conflicts, "conflicts", false, "print all values as JSON, the winner first")
	return cmd
}

func (p *program) lsCommand() *cobra.Command {
	var conflicts bool
	cmd := &cobra.Command{
		Use:   "ls [PREFIX]",
		Short: "List keys",
		Long: `List the keys, or those that begin with PREFIX, in order, one a line. A key that
is not plain text, or begins with a quote, is in quotes with escapes.`,
		Example: `  vix-node ls --id A user/
  vix-node ls --id A --conflicts --json
  vix-node ls --id A --json > backup.jsonl      # load can read it`,
		Args: atMostOne("a prefix"),
		RunE: func(cmd *cobra.Command, args []string) error {
			q := localapi.List{Conflicts: conflicts}
			if len(args) > 0 {
				q.Prefix = []byte(args[0])
			}
			return p.buffered(func() error {
				return p.with(cmd, needData, p.timeLimit(0), func(ctx context.Context, b localapi.Backend) error {
					return b.List(ctx, p.flags.space, q, func(e localapi.Entry) error {
						if p.flags.json {
							return p.print(e)
						}
						_, err := fmt.Fprintln(p.stdout, keyText(e.Key))
						return err
					})
				})
			})
		},
	}
	cmd.Flags().BoolVar(&conflicts, "conflicts", false, "only keys with several values")
	return cmd
}
