// Package members_test tells the stories of networks of members with the real
// program: whoever founds one, invites, joins, is kept out, is put out and comes back.
package members_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"vixp2p/test/internal/proc"
)

func TestMain(m *testing.M) { proc.Main(m) }

var patience = flag.Duration("patience", proc.Patience, "how long a test waits for what must come")

// long leaves out a test where there is little time.
func long(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("a longer run has it")
	}
}

// eventually waits for a condition that the network brings about.
func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(*patience); !cond(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not within %s", what, *patience)
		}
	}
}

// newNode is a data directory and a node that is reached on loopback alone.
func newNode(t *testing.T, label string) *proc.Node {
	n := proc.New(t, label)
	n.Host = "127.0.0.1"
	return n
}

// found makes a network of members; its first member does not run yet.
func found(t *testing.T, label string, args ...string) *proc.Node {
	t.Helper()
	n := newNode(t, label)
	n.OK(append([]string{"init", "--id", label}, args...)...)
	return n
}

// invite makes a ticket.
func invite(n *proc.Node, args ...string) string {
	return strings.TrimSpace(n.OK(append([]string{"invite"}, args...)...))
}

// tryJoin redeems a ticket, which the list of processes does not show.
func tryJoin(n *proc.Node, ticket string) proc.Result {
	return n.RunInput(strings.NewReader(ticket), "join", "--id", n.Label, "-")
}

// join makes a member with a ticket of a running admin; it does not run yet.
func join(t *testing.T, admin *proc.Node, label string, args ...string) *proc.Node {
	t.Helper()
	n := newNode(t, label)
	if r := tryJoin(n, invite(admin, args...)); r.Code != 0 {
		t.Fatalf("%s cannot join: exit %d\n%s", label, r.Code, r.Stderr)
	}
	return n
}

// says checks that a command failed with one sentence that has some words.
func says(t *testing.T, what string, r proc.Result, words ...string) {
	t.Helper()
	if r.Code != 1 && r.Code != 2 {
		t.Errorf("%s: exit %d, not 1 or 2\n%s%s", what, r.Code, r.Stdout, r.Stderr)
	}
	if r.Stdout != "" {
		t.Errorf("%s: it prints %q", what, r.Stdout)
	}
	text, hint, _ := strings.Cut(r.Stderr, "\n")
	if text == "" || hint != "" && !(r.Code == 2 && strings.HasPrefix(hint, "Run 'vix-node ") && strings.Count(hint, "\n") == 1) {
		t.Errorf("%s: not one sentence:\n%s", what, r.Stderr)
	}
	for _, w := range words {
		if !strings.Contains(r.Stderr, w) {
			t.Errorf("%s: it does not say %q:\n%s", what, w, r.Stderr)
		}
	}
}

// has tells whether a key has a value at a node.
func has(n *proc.Node, key, value string, args ...string) func() bool {
	return func() bool {
		r := n.Run(append([]string{"get", key}, args...)...)
		return r.Code == 0 && r.Stdout == value
	}
}

// membership is what status tells about it.
type membership struct {
	NetworkName string   `json:"network_name"`
	Roles       []string `json:"roles"`
	State       string   `json:"state"`
	Generation  uint64   `json:"generation"`
	Expires     *string  `json:"expires"`
	RootKey     bool     `json:"root_key"`
	Members     int      `json:"members"`
	TrustDigest string   `json:"trust_digest"`
}

// status is what these tests read of it.
type status struct {
	PeerID  string `json:"peer_id"`
	Network string `json:"network"`
	Peers   []struct {
		PeerID    string `json:"peer_id"`
		State     string `json:"state"`
		LastError string `json:"last_error"`
	} `json:"peers"`
	Spaces map[string]struct {
		Ops            uint64 `json:"ops"`
		FrontierDigest string `json:"frontier_digest"`
		ViewDigest     string `json:"view_digest"`
	} `json:"spaces"`
	Membership membership `json:"membership"`
}

func statusOf(t *testing.T, n *proc.Node) (st status) {
	t.Helper()
	if err := json.Unmarshal([]byte(n.OK("status", "--json")), &st); err != nil {
		t.Fatal(err)
	}
	return st
}

// idOf is a node's peer ID, whether it runs or not.
func idOf(n *proc.Node) string { return strings.TrimSpace(n.OK("cert", "id")) }

// stateOf is how a node sees a member.
func stateOf(t *testing.T, at *proc.Node, member string) string {
	t.Helper()
	for line := range strings.Lines(at.OK("members", "--json")) {
		var m struct {
			PeerID string `json:"peer_id"`
			State  string `json:"state"`
		}
		if err := json.Unmarshal([]byte(line), &m); err != nil {
			t.Fatal(err)
		}
		if m.PeerID == member {
			return m.State
		}
	}
	return ""
}

// agree waits until nodes decide alike and have the same state of the space default.
func agree(t *testing.T, nodes ...*proc.Node) {
	t.Helper()
	for end := time.Now().Add(*patience); ; time.Sleep(20 * time.Millisecond) {
		var seen []string
		same := true
		for _, n := range nodes {
			st := statusOf(t, n)
			s := st.Spaces["default"]
			seen = append(seen, fmt.Sprintf("trust %.8s, %d operations, frontier %.8s, view %.8s", st.Membership.TrustDigest, s.Ops, s.FrontierDigest, s.ViewDigest))
			same = same && seen[0] == seen[len(seen)-1]
		}
		switch {
		case same:
			return
		case time.Now().After(end):
			t.Fatalf("no agreement in %s:\n%s", *patience, strings.Join(seen, "\n"))
		}
	}
}

// holds tells whether any file of a directory has these bytes.
func holds(t *testing.T, dir, marker string) (in string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(path)
		if os.IsNotExist(err) { // of a running node
			return nil
		}
		if bytes.Contains(b, []byte(marker)) {
			in = path
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return in
}

// linesWith are the lines of a log that have all these words.
func linesWith(log string, words ...string) (out []string) {
next:
	for line := range strings.Lines(log) {
		for _, w := range words {
			if !strings.Contains(line, w) {
				continue next
			}
		}
		out = append(out, line)
	}
	return out
}

// TestFoundInviteJoin: the first minutes of a new user.
func TestFoundInviteJoin(t *testing.T) {
	t.Parallel()
	a := found(t, "A", "--name", "shop").Start()
	ticket := invite(a)
	if !strings.HasPrefix(ticket, "vix1-") || strings.ContainsAny(ticket, " \n") {
		t.Errorf("a ticket that is not one word: %q", ticket)
	}
	b := newNode(t, "B")
	r := tryJoin(b, ticket)
	if r.Code != 0 || !strings.Contains(r.Stdout, "shop") || !strings.Contains(r.Stdout, "writer") {
		t.Fatalf("join: exit %d\n%s%s", r.Code, r.Stdout, r.Stderr)
	}
	b.Start()
	a.OK("put", "from/a", "1")
	b.OK("put", "from/b", "2")
	eventually(t, "A has what B wrote", has(a, "from/b", "2"))
	eventually(t, "B has what A wrote", has(b, "from/a", "1"))
	agree(t, a, b)
	if st := statusOf(t, b).Membership; st.NetworkName != "shop" || st.State != "standing" || st.Members != 2 || st.RootKey {
		t.Errorf("B's status: %+v", st)
	}

	// Both find each other again by themselves.
	a.Stop()
	b.Stop()
	b.Start()
	b.OK("put", "from/b", "3")
	a.Start()
	eventually(t, "A has what B wrote while it was away", has(a, "from/b", "3"))

	// Somebody who has no ticket founds a network of the same name.
	c := found(t, "C", "--name", "shop").Start("--connect", a.Addr())
	eventually(t, "C's log says why", func() bool { return len(linesWith(c.Stderr(), "cannot connect", a.Addr())) > 0 })
	eventually(t, "A's log says why", func() bool { return len(linesWith(a.Stderr(), "handshake refused", c.PeerID)) > 0 })
	for who, lines := range map[string][]string{
		"A": linesWith(a.Stderr(), "level=WARN", c.PeerID),
		"C": linesWith(c.Stderr(), "level=WARN", a.Addr()),
	} {
		if len(lines) != 1 || !strings.Contains(lines[0], "network") {
			t.Errorf("%s's log about the other one: %q", who, lines)
		}
	}
	if st := statusOf(t, a); len(st.Peers) != 2 && len(st.Peers) != 1 {
		t.Errorf("A's peers: %+v", st.Peers)
	}
	r = c.Run("get", "from/a")
	if r.Code == 0 {
		t.Error("C reads what A wrote")
	}
}
