package main

import (
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"vixp2p/node"
	"vixp2p/node/localapi"
)

// globalFlags are those that every command takes.
type globalFlags struct {
	dataDir string
	id      string
	space   string
	json    bool
	timeout span
	// timeoutSet tells a timeout of 0, no limit, from none given.
	timeoutSet bool
}

// root is the command tree.
func (p *program) root() *cobra.Command {
	var showVersion bool
	root := &cobra.Command{
		Use:   "vix-node",
		Short: "An offline-first peer-to-peer node",
		Long: `vix-node keeps your data on your own disk first and then brings it to every
other member of the network, over whatever path exists.

Start a node, then talk to it from another terminal:

  vix-node run --id A --listen 9001
  vix-node run --id B --listen 9002 --connect 127.0.0.1:9001
  vix-node put --id A greeting "hello from A"
  vix-node get --id B greeting

or see everything at once:

  vix-node demo

Every flag has an environment variable: VIX_ and its name, as VIX_DATA_DIR for
--data-dir. A flag on the command line is stronger; --id there is stronger than
VIX_DATA_DIR too. Exit codes: 0 done, 1 failed or not found, 2 wrong usage.`,
		SilenceErrors:     true,
		SilenceUsage:      true,
		PersistentPreRunE: p.prepare,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return nil
			}
			return unknownCommand(cmd, args[0])
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			if showVersion {
				return p.printVersion()
			}
			return cmd.Help()
		},
	}
	root.SuggestionsMinimumDistance = 2
	root.SetIn(p.stdin)
	root.SetOut(p.stdout)
	root.SetErr(p.stderr)
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return flagError(err) })

	root.Flags().BoolVarP(&showVersion, "version", "v", false, "print the versions of the program and of its formats")
	p.flags.timeout = span{unit: time.Second}
	f := root.PersistentFlags()
	f.SortFlags = false
	f.StringVar(&p.flags.id, "id", "", "the node's `label`; its data is in vix-node/LABEL of your data folder")
	f.StringVar(&p.flags.dataDir, "data-dir", "", "the `directory` of the node's data")
	f.StringVar(&p.flags.space, "space", "default", "the `space` (namespace) to use")
	f.BoolVar(&p.flags.json, "json", false, "print JSON, one object per line")
	f.Var(&p.flags.timeout, "timeout", "give up after this time, 0 = never (default: what the command says)")

	root.AddGroup(
		&cobra.Group{ID: "node", Title: "The node:"},
		&cobra.Group{ID: "network", Title: "The network of members:"},
		&cobra.Group{ID: "data", Title: "Keys and operations:"},
		&cobra.Group{ID: "tools", Title: "Tools:"},
	)
	add := func(group string, cmds ...*cobra.Command) {
		for _, c := range cmds {
			c.GroupID = group
			c.DisableFlagsInUseLine = false
			root.AddCommand(c)
		}
	}
	add("node", p.runCommand(), p.statusCommand(), p.peersCommand(), p.connectCommand(), p.disconnectCommand(), p.sendCommand(), p.messagesCommand(), p.forgetCommand(), p.waitCommand())
	add("network", p.initCommand(), p.inviteCommand(), p.joinCommand(), p.membersCommand(), p.revokeCommand(), p.spaceCommand(), p.certCommand(), p.rootKeyCommand())
	add("data", p.putCommand(), p.getCommand(), p.delCommand(), p.lsCommand(), p.watchCommand(), p.appendCommand(), p.tailCommand(), p.loadCommand())
	add("tools", p.verifyCommand(), p.registryCommand(), p.relayCommand(), p.benchCommand(), p.demoCommand(), p.versionCommand())
	root.SetHelpCommand(helpCommand())
	root.SetHelpCommandGroupID("tools")
	root.SetCompletionCommandGroupID("tools")
	completionUsage(root)
	return root
}

// helpCommand is cobra's, but that it fails for a command that is not there.
func helpCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "help [COMMAND]",
		Short: "Help about any command",
		Long:  "Print what the program, or one of its commands, does and takes.",
		RunE: func(cmd *cobra.Command, args []string) error {
			target, rest, err := cmd.Root().Find(args)
			if known := err == nil && len(args) > 1 && target != cmd.Root(); known && len(rest) > 0 {
				return usagef("help takes one command, and got %q after %s", rest[0], target.Name())
			}
			if len(args) > 0 && (err != nil || len(rest) > 0 || target == cmd.Root()) {
				return unknownCommand(cmd.Root(), args[0])
			}
			target.InitDefaultHelpFlag()
			return target.Help()
		},
	}
}

// unknownCommand suggests what begins alike: a word that only has as many letters
// in common is rarely what was meant.
func unknownCommand(root *cobra.Command, name string) error {
	near := slices.DeleteFunc(root.SuggestionsFor(name), func(s string) bool {
		return name == "" || !strings.EqualFold(s[:1], name[:1])
	})
	if len(near) > 0 {
		return usagef("unknown command %q: did you mean %s?", name, strings.Join(near, " or "))
	}
	return usagef("unknown command %q: `vix-node help` lists them", name)
}

// idle are the flags of every command that a command has no use for. One that is
// given by hand is refused; its variable may be there for other commands.
var idle = map[string][]string{
	"demo": {"id", "data-dir", "space"}, "bench": {"id", "data-dir", "space"}, "registry": {"id", "data-dir", "space", "timeout"}, "relay": {"space", "timeout"},
	"version": {"id", "data-dir", "space", "timeout"}, "help": {"id", "data-dir", "space", "timeout"},
	"completion": {"id", "data-dir", "space", "timeout"}, "vix-node": {"id", "data-dir", "space", "timeout"},
	"run": {"space"}, "status": {"space"}, "peers": {"space"}, "connect": {"space"}, "disconnect": {"space"}, "forget": {"space"},
	"init": {"space", "timeout"}, "invite": {"space"}, "join": {"space"}, "members": {"space"}, "revoke": {"space"}, "space": {"space"},
	"cert": {"space"}, "root": {"space", "timeout"},
	"send": {"space"}, "messages": {"space"}, "wait": {"space"}, "verify": {"space"},
}

func refuseIdle(cmd *cobra.Command) error {
	name := cmd.Name()
	if up := cmd.Parent(); up != nil && up.HasParent() {
		name = up.Name() // of completion bash
	}
	for _, flag := range idle[name] {
		if cmd.Flags().Changed(flag) {
			return usagef("%s has no use for --%s: leave it out", name, flag)
		}
	}
	return nil
}

// prepare runs before every command, when its flags are read.
func (p *program) prepare(cmd *cobra.Command, _ []string) error {
	if err := refuseIdle(cmd); err != nil {
		return err
	}
	if cmd.Flags().Changed("space") && p.flags.space == "" {
		// The default space would be a guess, and one that is never encrypted.
		return usagef("--space takes the name of a space, and got none: leave it out for %q", localapi.DefaultSpace)
	}
	if err := p.applyEnv(cmd); err != nil {
		return err
	}
	if f := cmd.Flags().Lookup("timeout"); f != nil {
		p.flags.timeoutSet = f.Changed
	}
	return nil
}

// exactly is cobra.ExactArgs with a sentence of ours. what names the arguments.
func exactly(n int, what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) == n {
			return nil
		}
		if len(args) < n {
			return usagef("%s needs %s", cmd.Name(), what)
		}
		if n == 0 {
			return usagef("%s takes no argument, but got %q", cmd.Name(), args[0])
		}
		return usagef("%s takes %s and no more, but got %q too", cmd.Name(), what, args[n])
	}
}

// atMostOne lets an optional argument be left out.
func atMostOne(what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) > 1 {
			return usagef("%s takes %s and no more, but got %q too", cmd.Name(), what, args[1])
		}
		return nil
	}
}

// dir is the data directory of a node that the flags name.
func (p *program) dir() (string, error) {
	switch {
	case p.flags.dataDir != "":
		return p.flags.dataDir, node.CheckNodeDir(p.flags.dataDir)
	case p.flags.id == "":
		return "", usagef("which node? Name it with --id LABEL (its data is in vix-node/LABEL of your data folder) or with --data-dir DIR")
	}
	dir, err := node.LabelDataDir(p.flags.id)
	if err != nil {
		return "", &usageError{err}
	}
	return dir, node.CheckNodeDir(dir)
}
