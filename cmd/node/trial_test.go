package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"vixp2p/node/localapi"
)

// What happens to the files of the local API while the node runs: commands say
// that a node runs, and not to start one.
func TestAPIFilesOfARunningNode(t *testing.T) {
	addr, token := localapi.AddrFile, localapi.TokenFile
	for name, files := range map[string]map[string]string{
		"no token":      {token: ""},
		"other token":   {token: "garbage"},
		"no address":    {addr: ""},
		"other address": {addr: "garbage"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := runNode(t, "")
			for file, content := range files {
				path := filepath.Join(n.dir, file)
				if err := os.Remove(path); err != nil {
					t.Fatal(err)
				}
				if content == "" {
					continue
				}
				if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			for _, args := range [][]string{{"status"}, {"get", "k"}, {"put", "k", "v"}, {"wait", "--timeout", "1s"}} {
				n.vix(args...).fails(t, 1, "a node runs on "+n.dir, "missing or damaged", "start it again")
			}
			n.stop()
			n.vix("status").fails(t, 1, "no node is running")
		})
	}
	t.Run("neither", func(t *testing.T) {
		t.Parallel()
		n := runNode(t, "", "--api", "off")
		n.vix("status").fails(t, 1, "a process has "+n.dir+" open", "--api off")
	})
}

func TestEmptyArguments(t *testing.T) {
	n := runNode(t, "")
	for _, args := range [][]string{{"get", ""}, {"del", ""}, {"put", "", "v"}} {
		n.vix(args...).fails(t, 2, "the key is empty")
	}
	n.vix("connect", "").fails(t, 2, "the address is empty", "127.0.0.1:9001")
	n.vix("disconnect", "").fails(t, 2, "the peer is empty")
	n.vix("forget", "").fails(t, 2, "the peer is empty")
}

func TestUnknownCommands(t *testing.T) {
	for _, name := range []string{"doctor", "nonsense"} {
		for _, args := range [][]string{{"help", name}, {name}} {
			r := vix(t, args...)
			r.fails(t, 2, `unknown command "`+name+`"`)
			if r.out != "" || strings.Contains(r.err, "did you mean") {
				t.Errorf("%v: %q, %q", args, r.out, r.err)
			}
		}
	}
	vix(t, "help", "stauts").fails(t, 2, "did you mean status?")
	if got, want := vix(t, "help", "put").ok(t).out, vix(t, "put", "--help").ok(t).out; got != want {
		t.Errorf("help put prints %q, put --help %q", got, want)
	}
	if got, want := vix(t, "help").ok(t).out, vix(t).ok(t).out; got != want {
		t.Errorf("help prints %q, no command %q", got, want)
	}
}

// One key is one line, whatever bytes it has.
func TestKeysThatAreNoPlainText(t *testing.T) {
	n := runNode(t, "")
	lines := `{"key":"a\nb","value":"v"}
{"key":"\"quoted\"","value":"v"}
{"key_base64":"/wA=","value":"v"}
{"key":"plain é","value":"v"}
`
	watch := background(t, nil, "watch", "--data-dir", n.dir, "--from", "start", "--count", "4")
	vixIn(t, nil, lines, "load", "-", "--data-dir", n.dir).ok(t)
	if r := n.vix("ls").ok(t); r.out != "\"\\\"quoted\\\"\"\n\"a\\nb\"\nplain é\n\"\\xff\\x00\"\n" {
		t.Errorf("ls prints %s", r.out)
	}
	tail := n.vix("tail").ok(t).out
	watched := ""
	for range 4 {
		watched += watch.line() + "\n"
	}
	for _, key := range []string{`  "a\nb"  `, `  "\"quoted\""  `, `  "\xff\x00"  `, "  plain é  "} {
		if !strings.Contains(tail, key) || !strings.Contains(watched, key) {
			t.Errorf("%s: tail prints %s, watch %s", key, tail, watched)
		}
	}
}

// However large values are refused, the limit that is told is the same.
func TestLimitOfAValue(t *testing.T) {
	n := runNode(t, "")
	for _, size := range []int{1 << 20, 1<<20 + 1} {
		vixIn(t, nil, strings.Repeat("x", size), "put", "k", "-", "--data-dir", n.dir).fails(t, 1, "limit of one value, about 1 MiB")
	}
}

// A sentence has no second end that says the same again.
func TestSentencesEndOnce(t *testing.T) {
	dir := t.TempDir()
	if r := vix(t, "put", "k", "v", "--data-dir", dir); r.code != 0 {
		t.Fatalf("%+v", r)
	}
	r := vix(t, "put", "k", "v", "--space", strings.Repeat("s", 200), "--data-dir", dir)
	r.fails(t, 2, "space name")
	if strings.Contains(r.err, ": invalid data") {
		t.Errorf("%s", r.err)
	}
	vix(t, "put", "k", "v", "--replicas", "1", "--data-dir", dir).fails(t, 1, "asked for: 1 other member)")
}
