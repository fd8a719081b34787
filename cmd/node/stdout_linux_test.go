package main

import (
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// outputCommands print something.
var outputCommands = []string{
	"version", "version --json", "--version", "help", "help put", "put --help", "", "completion bash", "verify", "verify --json",
	"get k", "get k --json", "get k --conflicts", "ls", "ls --json", "tail", "put k v --json", "append note x --json", "load - --json",
}

// onDir names the data directory, where a command takes one.
func onDir(args, dir string) string {
	if word, _, _ := strings.Cut(args, " "); slices.Contains([]string{"", "help", "completion", "version", "--version"}, word) {
		return args
	}
	return args + " --data-dir " + dir
}

// into runs a command whose standard output is f.
func into(t *testing.T, f *os.File, args string) (code int, said string) {
	t.Helper()
	cmd := command(t, nil, strings.Fields(args)...)
	var errs strings.Builder
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(`{"key":"l","value":1}`), f, &errs
	_ = cmd.Run() // its exit code tells
	return cmd.ProcessState.ExitCode(), errs.String()
}

// An output that cannot be written is a failure, of every command.
func TestFullOutput(t *testing.T) {
	dir := t.TempDir()
	if r := vix(t, "put", "k", "v", "--data-dir", dir); r.code != 0 {
		t.Fatalf("%+v", r)
	}
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	fails := func(args string) {
		t.Helper()
		code, said := into(t, full, args)
		if code != exitFailed || said != "vix-node: cannot write the output: no space left on device; what the command has done stays done\n" {
			t.Errorf("%q: exit %d, %q", args, code, said)
		}
	}
	for _, args := range outputCommands {
		fails(onDir(args, dir))
	}
	fails("run --quiet --log-level off --data-dir " + dir)
	fails("registry --listen 127.0.0.1:0 --log-level off")
	fails("relay --listen 127.0.0.1:0 --log-level off --data-dir " + t.TempDir())
	n := runNode(t, dir, "--discovery", "off")
	for _, args := range []string{"status", "status --json", "peers", "wait --json", "watch --from start --count 1", "get k"} {
		fails(args + " --data-dir " + n.dir)
	}
	if code, said := into(t, full, "demo"); code != exitFailed || !strings.Contains(said, "nobody reads its output") {
		t.Errorf("demo: exit %d, %q", code, said)
	}
}

// A reader that has seen enough (`| head`) is told nothing.
func TestClosedOutput(t *testing.T) {
	dir := t.TempDir()
	if r := vix(t, "put", "k", "v", "--data-dir", dir); r.code != 0 {
		t.Fatalf("%+v", r)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	_ = r.Close()
	for _, args := range outputCommands {
		if _, said := into(t, w, onDir(args, dir)); said != "" {
			t.Errorf("%q says %q", args, said)
		}
	}
	// Where the caller has switched the signal off, as services managers do.
	cmd := exec.CommandContext(t.Context(), "sh", "-c", `trap "" PIPE; exec "$0" version`, binary)
	var said strings.Builder
	cmd.Stdout, cmd.Stderr = w, &said
	_ = cmd.Run()
	if said.String() != "" {
		t.Errorf("without the signal: %q", said.String())
	}
}
