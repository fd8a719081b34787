package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"vixp2p/node/localapi"
)

// buffered gathers what fn prints into larger writes. An output that nobody
// reads any more (`ls | head`) ends fn.
func (p *program) buffered(fn func() error) error {
	w := bufio.NewWriterSize(p.stdout, 64<<10)
	plain := p.stdout
	p.stdout = w
	defer func() { p.stdout = plain }()
	return errors.Join(fn(), w.Flush())
}

// following runs a command that prints what comes: to be interrupted is its
// normal end, and so is the end of --timeout unless a count was asked for.
func (p *program) following(cmd *cobra.Command, n need, count int, endless bool, fn func(ctx context.Context, b localapi.Backend) error) error {
	var ended error
	err := p.with(cmd, n, p.timeLimit(0), func(ctx context.Context, b localapi.Backend) error {
		err := fn(ctx, b)
		if endless && ctx.Err() != nil && isEnding(err) {
			ended = context.Cause(ctx)
			return nil
		}
		return err
	})
	switch {
	case err != nil || ended == nil || errors.Is(ended, errInterrupted):
		return err
	case count > 0:
		return localapi.Errorf(localapi.CodeTimeout, "the time is up before %d came: give it more with --timeout, or ask for fewer with --count", count)
	}
	return nil
}

func (p *program) watchCommand() *cobra.Command {
	var from string
	n := &count{}
	cmd := &cobra.Command{
		Use:   "watch [PREFIX]",
		Short: "Follow what becomes of keys",
		Long: `Print what becomes of the keys, or of those that begin with PREFIX, from now on:
put, delete, conflict (written at several members at one time), or reset (the
cursor is of another history: what follows starts from the beginning). What a
revocation changed has its cause behind it.
With --json each line has a cursor; --from goes on after it, without a gap.
It needs a running node. Ctrl-C ends it.`,
		Example: `  vix-node watch --id B user/
  vix-node watch --id B --json --from "$CURSOR" --count 10`,
		Args: atMostOne("a prefix"),
		RunE: func(cmd *cobra.Command, args []string) error {
			q := localapi.Watch{From: from, Count: n.value}
			if len(args) > 0 {
				q.Prefix = []byte(args[0])
			}
			return p.following(cmd, needNode, n.value, true, func(ctx context.Context, b localapi.Backend) error {
				return b.Watch(ctx, p.flags.space, q, func(ev localapi.Event) error {
					if p.flags.json {
						return p.print(ev)
					}
					return printEvent(p.stdout, ev)
				})
			})
		},
	}
	cmd.Flags().StringVar(&from, "from", "", "a `cursor` that an earlier watch printed, or start")
	cmd.Flags().Var(n, "count", "end after so many events, 0 = never")
	return cmd
}

func printEvent(w io.Writer, ev localapi.Event) error {
	if ev.EventEntry == nil {
		_, err := fmt.Fprintf(w, "%-8s\n", ev.Event)
		return err
	}
	value := ""
	if ev.Event != localapi.EventDelete {
		value = "  " + shown(ev.Value.String(), 120)
	}
	if ev.Cause != "" {
		value += "  (" + ev.Cause + ")"
	}
	_, err := fmt.Fprintf(w, "%-8s  %s%s\n", ev.Event, keyText(ev.Key), value)
	return err
}

func (p *program) tailCommand() *cobra.Command {
	var from string
	var follow, aside bool
	n := &count{}
	cmd := &cobra.Command{
		Use:   "tail",
		Short: "Print operations in order of arrival",
		Long: `Print the operations of all members, in the order in which they became durable
here, from the first one: puts, deletes, and what append wrote.
With --json each line has a cursor; --from goes on after it, without a gap. Bytes
that are no text stand under key_base64, payload_base64 and kind_base64.
--follow goes on with what comes; Ctrl-C ends it.
--set-aside prints what a revocation took out of view, log by log, instead: it is
kept for 30 days.`,
		Example: `  vix-node tail --id A
  vix-node tail --id A --json --follow --from "$CURSOR"`,
		Args: exactly(0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if aside && (follow || from != "") {
				return usagef("what is set aside has no order of arrival: leave --from and --follow out with --set-aside")
			}
			needs := needData
			if follow {
				needs = needNode
			}
			run := func() error {
				return p.following(cmd, needs, n.value, follow, func(ctx context.Context, b localapi.Backend) error {
					q := localapi.Tail{From: from, Follow: follow, Count: n.value, SetAside: aside}
					return b.Tail(ctx, p.flags.space, q, func(r localapi.Record) error {
						if p.flags.json {
							return p.print(r)
						}
						return printRecord(p.stdout, r)
					})
				})
			}
			if follow {
				return run()
			}
			return p.buffered(run)
		},
	}
	cmd.Flags().StringVar(&from, "from", "", "a `cursor` that an earlier tail printed, or now")
	cmd.Flags().BoolVar(&follow, "follow", false, "go on with what comes")
	cmd.Flags().Var(n, "count", "end after so many operations, 0 = no limit")
	cmd.Flags().BoolVar(&aside, "set-aside", false, "print what a revocation took out of view")
	return cmd
}

func printRecord(w io.Writer, r localapi.Record) error {
	key := ""
	if len(r.Key.Bytes()) > 0 {
		key = "  " + keyText(r.Key)
	}
	kept := ""
	if r.Until != nil {
		kept = "  (kept until " + r.Until.String() + ")"
	}
	_, err := fmt.Fprintf(w, "%s  %s  %s/%d  %s%s  %s%s\n", r.Time, short(r.Origin), short(r.Log), r.Seq, shown(r.Kind.String(), 0), key, shown(r.Payload.String(), 120), kept)
	return err
}
