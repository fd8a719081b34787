package members_test

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"vixp2p/test/internal/proc"
	"vixp2p/trust"
)

// TestKeyFiles: what is secret is for its user alone, and one that others may read is
// refused.
func TestKeyFiles(t *testing.T) {
	long(t)
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("NOT TESTED: modes of files")
	}
	a := found(t, "A").Start()
	b := join(t, a, "B").Start()
	out := filepath.Join(t.TempDir(), "root.key")
	a.OK("root", "export", "--out", out)
	check := func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if os.IsNotExist(err) { // of a running node
			return nil
		}
		if err == nil && info.Mode().Perm()&0o077 != 0 && secretFile(d.Name()) {
			t.Errorf("%s has mode %04o", path, info.Mode().Perm())
		}
		return err
	}
	for _, dir := range []string{a.Dir, b.Dir, filepath.Dir(out)} {
		if err := filepath.WalkDir(dir, check); err != nil {
			t.Fatal(err)
		}
	}
	says(t, "an export over a file", a.Run("root", "export", "--out", out), "name a new one")

	root := filepath.Join(a.Dir, "root.key")
	chmod(t, root, 0o644)
	for _, args := range [][]string{{"invite", "--role", "admin"}, {"root", "export", "--out", out + "2"}} {
		says(t, strings.Join(args, " ")+" with a key that others may read", a.Run(args...), "can be read by others", "chmod 600")
	}
	chmod(t, root, 0o600)
	invite(a, "--role", "admin")
	a.Stop()
	identity := filepath.Join(a.Dir, "identity.key")
	chmod(t, identity, 0o640)
	says(t, "a node whose identity others may read", a.Run("get", "k"), "can be read by others", "chmod 600")
	chmod(t, identity, 0o600)
	a.Start()
}

func secretFile(name string) bool {
	return strings.HasSuffix(name, ".key") || strings.HasSuffix(name, ".token") || name == "certificate.pem"
}

func chmod(t *testing.T, path string, mode os.FileMode) {
	t.Helper()
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
}

// TestNoSecretShows: secrets are in no log, no status and no list of processes.
func TestNoSecretShows(t *testing.T) {
	t.Parallel()
	a := found(t, "A").Start("--log-level", "debug")
	ticket := invite(a)
	unused := invite(a, "--role", "admin")
	b := newNode(t, "B")

	// The joiner's command line, while it waits for an answer.
	cmd := exec.Command(proc.Binary(t), "join", "--data-dir", b.Dir, "-")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := commandLine(t, cmd.Process.Pid)
	if _, err := fmt.Fprintln(in, ticket); err != nil {
		t.Fatal(err)
	}
	_ = in.Close()
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	b.Start("--log-level", "debug")
	a.OK("put", "k", "v")
	eventually(t, "B has what A wrote", has(b, "k", "v"))
	says(t, "a used ticket", tryJoin(newNode(t, "X"), ticket), "used")
	broken := tryJoin(newNode(t, "X"), unused[:len(unused)-2])
	says(t, "a damaged ticket", broken, "ticket")
	a.OK("revoke", b.PeerID)
	hasHeard(t, b)

	seen := map[string]string{
		"the log of A": a.Stderr(), "the log of B": b.Stderr(), "what a refused join says": broken.Stderr,
		"status --json of A": a.OK("status", "--json"), "status --json of B": b.OK("status", "--json"), "members --json": a.OK("members", "--json"),
		"the command line of join": lines, "the command line of A": commandLine(t, a.Pid()), "the command line of B": commandLine(t, b.Pid()),
	}
	secrets := map[string]string{}
	for name, text := range map[string]string{"the ticket": ticket, "the unused ticket": unused} {
		parsed, err := trust.ParseTicket(text)
		if err != nil {
			t.Fatal(err)
		}
		secrets[name] = text
		secrets["the seed of "+name] = hex.EncodeToString(parsed.Seed[:])
		secrets["the seed of "+name+" in base64"] = base64.StdEncoding.EncodeToString(parsed.Seed[:])
		// In the ticket's base32 the seed is somewhere in the last 80 characters; it
		// would be shown with its surroundings.
		secrets["a part of "+name] = text[len(text)-60 : len(text)-30]
	}
	for name, n := range map[string]*proc.Node{"A": a, "B": b} {
		key := keyOf(t, n)
		secrets["the identity of "+name] = hex.EncodeToString(key.Seed())
		secrets["the identity of "+name+" in base64"] = base64.StdEncoding.EncodeToString(key.Seed())
		token, err := os.ReadFile(filepath.Join(n.Dir, "api.token"))
		if err != nil || len(strings.TrimSpace(string(token))) < 16 {
			t.Fatalf("token %q: %v", token, err)
		}
		secrets["the token of "+name] = strings.TrimSpace(string(token))
	}
	rootSeed := pemOf(t, a, "root.key")
	rootSeed = rootSeed[len(rootSeed)-32:]
	secrets["the root key"] = hex.EncodeToString(rootSeed)
	secrets["the root key in base64"] = base64.StdEncoding.EncodeToString(rootSeed)
	for where, text := range seen {
		if text == "" {
			t.Errorf("%s is empty", where)
		}
		for what, s := range secrets {
			if strings.Contains(strings.ToLower(text), strings.ToLower(s)) {
				t.Errorf("%s has %s", where, what)
			}
		}
	}
}

// commandLine is how the list of processes shows one.
func commandLine(t *testing.T, pid int) (line string) {
	t.Helper()
	path := fmt.Sprintf("/proc/%d/cmdline", pid)
	if _, err := os.Stat(path); err != nil {
		t.Logf("NOT TESTED: the command line: %v", err)
		return "unknown"
	}
	eventually(t, "the process runs the program", func() bool { // at first it is a copy of this one
		text, err := os.ReadFile(path)
		line = strings.ReplaceAll(string(text), "\x00", " ")
		return err == nil && strings.Contains(line, "--data-dir")
	})
	return line
}
