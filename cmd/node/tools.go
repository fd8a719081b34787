package main

import (
	"context"
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"

	"vixp2p/node"
	"vixp2p/node/localapi"
)

// version of the program; a release build sets it with -ldflags "-X main.version=...".
var version = "0.1.0-dev"

func (p *program) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the versions of the program and of its formats",
		Args:  exactly(0, ""),
		RunE:  func(*cobra.Command, []string) error { return p.printVersion() },
	}
}

func (p *program) printVersion() error {
	v := versionInfo{Version: version, Commit: commit(), Go: runtime.Version(), OS: runtime.GOOS, Arch: runtime.GOARCH, Formats: node.FormatVersions()}
	if p.flags.json {
		return p.print(v)
	}
	_, err := fmt.Fprintf(p.stdout, "vix-node %s\ncommit   %s\nbuilt    %s %s/%s\nformats  data directory %d, block %d, protocol %s, local API %d\n",
		v.Version, v.Commit, v.Go, v.OS, v.Arch,
		v.Formats.DataDirectory, v.Formats.Block, v.Formats.Protocol, v.Formats.LocalAPI)
	return err
}

type versionInfo struct {
	Version string       `json:"version"`
	Commit  string       `json:"commit"`
	Go      string       `json:"go"`
	OS      string       `json:"os"`
	Arch    string       `json:"arch"`
	Formats node.Formats `json:"formats"`
}

// commit is what the program was built from, as far as the build noted it.
func commit() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	rev, changed := "unknown", ""
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision":
			rev = s.Value
		case s.Key == "vcs.modified" && s.Value == "true":
			changed = " and changes"
		}
	}
	return rev + changed
}

func (p *program) verifyCommand() *cobra.Command {
	var rebuild bool
	cmd := &cobra.Command{
		Use:   "verify",
		Short: "Check every hash, signature and index",
		Long: `Check every stored block's hashes and signature, the indexes, and the view of the
keys. What is damaged is listed, and the exit code is 1; a running node fetches
it again from peers that hold it. --rebuild makes the view anew from the logs
first.`,
		Example: "  vix-node verify --id A\n  vix-node verify --id A --rebuild",
		Args:    exactly(0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			found := []localapi.Finding{}
			err := p.with(cmd, needData, p.timeLimit(0), func(ctx context.Context, b localapi.Backend) error {
				return b.Verify(ctx, rebuild, func(f localapi.Finding) error {
					found = append(found, f)
					return nil
				})
			})
			if err != nil {
				return err
			}
			return p.printFindings(found)
		},
	}
	cmd.Flags().BoolVar(&rebuild, "rebuild", false, "make the view of the keys anew first")
	return cmd
}

func (p *program) printFindings(found []localapi.Finding) error {
	ok := len(found) == 0
	switch {
	case p.flags.json:
		if err := p.print(struct {
			OK       bool               `json:"ok"`
			Findings []localapi.Finding `json:"findings"`
		}{ok, found}); err != nil {
			return err
		}
	case ok:
		fmt.Fprintln(p.stdout, "ok: every hash, signature and index is right")
	default:
		t := table(p.stdout)
		fmt.Fprintln(t, "LOG\tSEQ\tFILE\tPROBLEM")
		for _, f := range found {
			fmt.Fprintf(t, "%s\t%d\t%s\t%s\n", short(f.Log), f.Seq, f.File, shown(f.Problem, 0))
		}
		if err := t.Flush(); err != nil {
			return err
		}
	}
	if !ok {
		return localapi.Errorf(localapi.CodeDamaged, "%s wrong: run the node with peers connected, which fetches damaged data again, and verify once more", many(uint64(len(found)), "thing is", "things are"))
	}
	return nil
}
