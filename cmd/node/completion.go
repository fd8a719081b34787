package main

import (
	"strings"

	"github.com/spf13/cobra"
)

// completionUsage makes the command completion, and refuses shells that it does not
// know and arguments after one.
func completionUsage(root *cobra.Command) {
	root.InitDefaultCompletionCmd()
	completion, _, err := root.Find([]string{"completion"})
	if err != nil {
		return // cobra has none any more
	}
	var shells []string
	for _, shell := range completion.Commands() {
		shells = append(shells, shell.Name())
		shell.Args = exactly(0, "")
	}
	completion.Args = cobra.ArbitraryArgs
	completion.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return cmd.Help()
		}
		return usagef("there is no completion for the shell %q: use one of %s", args[0], strings.Join(shells, ", "))
	}
}
