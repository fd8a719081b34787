package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// What only a directory or a file is in the way of fails with 1; a command line that
// cannot be right, with 2.
func TestStateIsNoWrongUsage(t *testing.T) {
	dir, open := t.TempDir(), t.TempDir()
	in := func(dir string, args ...string) result { return vix(t, append(args, "--data-dir", dir)...) }
	in(dir, "init", "--id", "A").done(t)
	in(open, "put", "k", "v").done(t)
	in(dir, "space", "create", "notes").ok(t)
	key := filepath.Join(t.TempDir(), "root.key")
	in(dir, "root", "export", "--out", key).ok(t)
	nothing := filepath.Join(t.TempDir(), "nothing")
	if err := os.WriteFile(nothing, []byte("hello"), 0o600); err != nil {
		t.Fatal(err)
	}
	other := t.TempDir()
	in(other, "init").done(t)
	peer := strings.TrimSpace(in(t.TempDir(), "cert", "id").out)
	cert := filepath.Join(t.TempDir(), "cert.pem")
	if err := os.WriteFile(cert, []byte(in(dir, "cert", "export", peer).out), 0o600); err != nil {
		t.Fatal(err)
	}

	for _, c := range []struct {
		r    result
		code int
		word string
	}{
		{in(dir, "root", "export", "--out", key), 1, "exists, and is not written over"},
		{in(dir, "root", "export"), 2, "--out"},
		{in(dir, "root", "import", nothing), 1, "root export"},
		{in(dir, "root", "import", nothing+".no"), 1, "cannot read"},
		{in(other, "root", "import", key), 1, "another network"},
		{in(dir, "root", "remove"), 2, "--yes"},
		{in(dir, "invite", "--in", "diary", "--addr", "h:1"), 1, "no space \"diary\""},
		{in(dir, "invite", "--in", " ", "--addr", "h:1"), 2, "space"},
		{in(dir, "invite", "--role", "admin", "--in", "notes", "--addr", "h:1"), 2, "leave the space out"},
		{in(dir, "invite", "--role", "king"), 2, "--role takes"},
		{in(dir, "invite", "--addr", "h"), 2, "host:port"},
		{in(open, "invite"), 1, "open network"},
		{in(open, "members"), 1, "open network"},
		{in(dir, "space", "create", "--encrypted", "notes"), 1, "not encrypted"},
		{in(dir, "revoke", "A"), 1, "the node itself"},
		{in(dir, "revoke", ""), 2, "empty"},
		{in(t.TempDir(), "cert", "import", nothing), 1, "no certificate"},
		{in(t.TempDir(), "cert", "import", nothing+".no"), 1, "cannot read"},
		{in(t.TempDir(), "cert", "import", cert), 1, "the certificate is for"},
		{in(t.TempDir(), "join", "hello"), 2, "ticket"},
		{vixIn(t, nil, "hello", "join", "-", "--data-dir", t.TempDir()), 2, "ticket"},
		{in(dir, "cert"), 2, "say export, id, import or show after it"},
		{in(dir, "root"), 2, "say export, import or remove after it"},
		{in(dir, "space"), 2, "say create or list after it"},
		{in(dir, "relay", "--listen", "127.0.0.1:0"), 1, "is the directory of a node"},
		{in(open, "relay", "--listen", "127.0.0.1:0"), 1, "is the directory of a node"},
		{in(dir, "run", "--network-name", "x"), 1, "x"},
		{in(dir, "run", "--open"), 1, "leave --open out"},
		{in(dir, "run", "--listen", "h"), 2, "h"},
	} {
		c.r.fails(t, c.code, c.word)
	}
}

// done asserts exit 0, whatever it says.
func (r result) done(t *testing.T) {
	t.Helper()
	if r.code != 0 {
		t.Fatalf("vix-node %s: exit %d\nerr: %s", strings.Join(r.args, " "), r.code, r.err)
	}
}

// A node that is admitted again is told what it wrote in vain, and how to keep it, and
// that works.
func TestAdmittedAgainKeepsItsValues(t *testing.T) {
	admin, dir := t.TempDir(), t.TempDir()
	in := func(dir string, args ...string) result { return vix(t, append(args, "--data-dir", dir)...) }
	in(admin, "init").done(t)
	peer := strings.TrimSpace(in(dir, "cert", "id").out)
	admit := func() result {
		cert := filepath.Join(t.TempDir(), "cert.pem")
		if err := os.WriteFile(cert, []byte(in(admin, "cert", "export", peer, "--role", "writer").out), 0o600); err != nil {
			t.Fatal(err)
		}
		return in(dir, "cert", "import", cert)
	}
	if r := admit().ok(t); strings.Contains(r.err, "note") {
		t.Error(r.err)
	}
	in(dir, "put", "k", "v").done(t)
	in(admin, "revoke", peer).ok(t)
	r := admit()
	for _, word := range []string{"1 operation of this node in space default, from 1 of log ", "ls --data-dir", "load"} {
		if !strings.Contains(r.err, word) {
			t.Errorf("no %q in %q", word, r.err)
		}
	}
	file := filepath.Join(t.TempDir(), "mine.jsonl")
	if err := os.WriteFile(file, []byte(in(dir, "ls", "--json").ok(t).out), 0o600); err != nil {
		t.Fatal(err)
	}
	in(dir, "load", file).ok(t)
	if r := in(dir, "members"); !strings.Contains(r.err, "1 operation") { // not the one that was loaded
		t.Error(r.err)
	}
}
