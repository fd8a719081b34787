package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"vixp2p/node"
	"vixp2p/node/localapi"
)

// Defaults of --timeout.
const (
	connectTimeout = 10 * time.Second
	waitTimeout    = 60 * time.Second
)

func (p *program) connectCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "connect ADDR",
		Short: "Connect the running node to a peer",
		Long: `Connect the running node to a peer at host:port, tcp://host:port,
quic://host:port or a multiaddr, and return when both have said hello (at most
10 s, or --timeout). The node keeps the connection from then on. A peer that it put
out because it broke the protocol is let in again by that.`,
		Example: "  vix-node connect --id A 127.0.0.1:9002",
		Args:    exactly(1, "an address such as 127.0.0.1:9001"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if args[0] == "" {
				return usagef("the address is empty: give one such as 127.0.0.1:9001")
			}
			return p.with(cmd, needNode, p.timeLimit(connectTimeout), func(ctx context.Context, b localapi.Backend) error {
				c, err := b.Connect(ctx, args[0])
				if err != nil && errors.Is(context.Cause(ctx), localapi.ErrTimeUp) && bareEnding(err) {
					return localapi.Errorf(localapi.CodeTimeout, "%s has not answered in %s: check the address, and that no firewall is in between, or give it more time with --timeout", args[0], p.timeLimit(connectTimeout))
				}
				if err != nil {
					return err
				}
				if p.flags.json {
					return p.print(c)
				}
				fmt.Fprintf(p.stdout, "connected to %s at %s\n", c.PeerID, c.Addr)
				p.note(c.Note)
				return nil
			})
		},
	}
}

func (p *program) disconnectCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "disconnect PEER",
		Short: "End the running node's session with a peer",
		Long: `End the session with a peer, named by its label, its ID, or the end of that (6
characters or more), and leave it alone until connect, or until the node starts
again. The peer leaves this node alone too, until its user connects or it starts
again: then it is let in.`,
		Example: "  vix-node disconnect --id A B",
		Args:    exactly(1, "a peer: its label, its ID, or the end of that"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if args[0] == "" {
				return usagef("the peer is empty: give its label or ID, as `peers` lists them")
			}
			return p.with(cmd, needNode, p.timeLimit(connectTimeout), func(ctx context.Context, b localapi.Backend) error {
				d, err := b.Disconnect(ctx, args[0])
				if err != nil {
					return err
				}
				if p.flags.json {
					return p.print(d)
				}
				fmt.Fprintf(p.stdout, "disconnected from %s\n", d.PeerID)
				return nil
			})
		},
	}
}

func (p *program) forgetCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "forget PEER",
		Short: "Forget a peer that was connected once",
		Long: `Forget a peer, named by its label, its ID, or the end of that (6 characters or
more): a running node ends its session with it, and nobody dials it again after a
restart; peers and status list it no more, and nothing is pending towards it. It does
not keep the peer away: one that dials is let in, and remembered again, and so is one
that --connect or discovery names at the next start. What it stated about writes stays
known to --replicas.`,
		Example: "  vix-node forget --id A B",
		Args:    exactly(1, "a peer: its label, its ID, or the end of that"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if args[0] == "" {
				return usagef("the peer is empty: give its label or ID, as `peers` lists them")
			}
			return p.with(cmd, needData, p.timeLimit(connectTimeout), func(ctx context.Context, b localapi.Backend) error {
				f, err := b.Forget(ctx, args[0])
				if err != nil {
					return err
				}
				if p.flags.json {
					return p.print(f)
				}
				fmt.Fprintf(p.stdout, "%s is forgotten\n", f.PeerID)
				return nil
			})
		},
	}
}

func (p *program) waitCommand() *cobra.Command {
	peers := &count{max: 10000}
	var synced bool
	cmd := &cobra.Command{
		Use:   "wait",
		Short: "Wait until the node answers, has peers, or is in step with them",
		Long: `Wait for the node to answer, which may not have been started yet; with --peers
for so many connected peers; with --synced until nothing is pending towards or
missing from any of them, of which there is at least one, and the keys show it.
It fails when the time is up: 60 s, or --timeout.`,
		Example: `  vix-node wait --id A --peers 1 --timeout 10s
  vix-node wait --id B --synced && vix-node get --id B greeting`,
		Args: exactly(0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			dir, err := p.dir()
			if err != nil {
				return err
			}
			ctx, cancel := within(cmd.Context(), p.timeLimit(waitTimeout))
			defer cancel()
			err = p.wait(ctx, dir, localapi.Wait{Peers: peers.value, Synced: synced})
			if err = p.explain(ctx, err); err == nil && p.flags.json {
				return p.print(struct {
					OK bool `json:"ok"`
				}{true})
			}
			return err
		},
	}
	cmd.Flags().Var(peers, "peers", "wait for so many connected peers")
	cmd.Flags().BoolVar(&synced, "synced", false, "wait until nothing is pending or missing with any of them")
	return cmd
}

// wait asks the node, and again if it is not there yet or goes away meanwhile.
func (p *program) wait(ctx context.Context, dir string, w localapi.Wait) error {
	var found error // by the last whole attempt, of a directory that is in use
	for {
		c, err := localapi.Dial(ctx, dir)
		if err == nil {
			err = c.Wait(ctx, w)
			c.Close()
		} else if ctx.Err() == nil {
			found = nil
			if _, deaf := errors.AsType[*localapi.DeafError](err); deaf || isFilesError(err) {
				found = err
			}
		} else {
			err = localapi.ErrNotRunning // the time was up while asking
		}
		if !errors.Is(err, localapi.ErrNotRunning) && localapi.CodeOf(err) != localapi.CodeClosed {
			return err
		}
		ended := sleep(ctx, pollEvery)
		switch {
		case ended == nil:
		case !errors.Is(ended, localapi.ErrTimeUp):
			return ended
		case found != nil && node.DataDirInUse(dir):
			return localapi.Errorf(localapi.CodeTimeout, "the time is up: %w", found)
		default:
			return localapi.Errorf(localapi.CodeTimeout, "the time is up and no node answers for %s: start it with `vix-node run %s`", dir, p.nodeFlag())
		}
	}
}
