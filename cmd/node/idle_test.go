package main

import (
	"strings"
	"testing"
)

// A flag that a command would leave without an effect is refused, and its variable
// ignored.
func TestFlagsWithoutAnEffect(t *testing.T) {
	dir := t.TempDir()
	for args, words := range map[string]string{
		"registry --id A":                 "registry has no use for --id: leave it out",
		"registry --data-dir " + dir:      "registry has no use for --data-dir",
		"registry --timeout 1":            "registry has no use for --timeout",
		"demo --id A":                     "demo has no use for --id",
		"demo --data-dir " + dir:          "demo has no use for --data-dir",
		"relay --space x":                 "relay has no use for --space",
		"version --id A":                  "version has no use for --id",
		"--version --id A":                "vix-node has no use for --id",
		"help put --data-dir x":           "help has no use for --data-dir",
		"completion bash --id A":          "completion has no use for --id",
		"status --space x --id A":         "status has no use for --space",
		"run --space x --id A":            "run has no use for --space",
		"wait --space x --id A":           "wait has no use for --space",
		"run --relay-reservations 5":      "--relay-reservations limits what --relay-service does for others",
		"run --relay-circuits 5":          "--relay-circuits limits",
		"run --relay-data 1M":             "--relay-data limits",
		"run --relay-duration 60":         "--relay-duration limits",
		"run --json --tui on":             "--tui on and --json do not go together",
		"run --quiet --tui on":            "--tui on and --quiet do not go together",
		"run --announce off":              "--announce is about the registry",
		"run --boot-interval 5":           "--boot-interval is about the registry",
		"run --connect-delay 500":         "--connect-delay delays what --connect names",
		"run --network-name=":             "--network-name takes a name of 1 to 64 bytes",
		"completion tcsh":                 `no completion for the shell "tcsh": use one of bash, fish, powershell, zsh`,
		"completion bash zsh":             `bash takes no argument, but got "zsh"`,
		"run --json --tui on --timeout 1": "--tui on and --json do not go together",
	} {
		fields := strings.Fields(args)
		if fields[0] == "run" && !strings.Contains(args, "--id") {
			fields = append(fields, "--data-dir", dir)
		}
		vix(t, fields...).fails(t, exitUsage, words)
	}
	env := []string{"VIX_ID=A", "VIX_DATA_DIR=" + dir, "VIX_SPACE=x", "VIX_TIMEOUT=5"}
	vixIn(t, env, "", "version").ok(t)
	vixIn(t, env, "", "help", "put").ok(t)
	vixIn(t, env, "", "status").fails(t, 1, "no node is running")
}
