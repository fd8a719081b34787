package members_test

import (
	"strings"
	"testing"

	"vixp2p/test/internal/proc"
)

// TestRevokedWriter: a writer that is revoked while it is away goes on writing, and
// meets a member that has not heard. In the end all who remain have the same, without
// what it wrote.
func TestRevokedWriter(t *testing.T) {
	t.Parallel()
	a := found(t, "A").Start()
	b := join(t, a, "B").Start()
	c := join(t, a, "C").Start()
	d := join(t, a, "D").Start("--connect", b.Addr())
	b.OK("put", "b/kept", "1")
	b.OK("put", "shared", "first")
	for _, n := range []*proc.Node{a, c, d} {
		eventually(t, "all have what B wrote", has(n, "shared", "first"))
	}
	agree(t, a, b, c, d)
	b.Stop()
	d.Stop()
	r := a.OK("revoke", "B")
	if !strings.Contains(r, "is revoked") || !strings.Contains(r, "up to") {
		t.Errorf("revoke says %q", r)
	}
	a.OK("put", "a/later", "2")
	eventually(t, "C has heard", func() bool { return stateOf(t, c, b.PeerID) == "revoked" })
	agree(t, a, c)
	a.Stop()
	c.Stop()

	// Neither B nor D has heard.
	b.OK("put", "b/offline", "3")
	b.OK("put", "shared", "second")
	b.Start()
	d.Start("--connect", b.Addr())
	eventually(t, "D has what B wrote after its revocation", has(d, "shared", "second"))
	b.OK("put", "b/more", "4")
	eventually(t, "and all of it", has(d, "b/more", "4"))

	a.Start()
	c.Start()
	eventually(t, "D has heard", func() bool { return stateOf(t, d, b.PeerID) == "revoked" })
	agree(t, a, c, d)
	for _, n := range []*proc.Node{a, c, d} {
		if got := n.OK("get", "shared") + n.OK("get", "b/kept") + n.OK("get", "a/later"); got != "first12" {
			t.Errorf("%s reads %q", n.Label, got)
		}
		for _, key := range []string{"b/offline", "b/more"} {
			if r := n.Run("get", key); r.Code == 0 {
				t.Errorf("%s has %s = %q", n.Label, key, r.Stdout)
			}
		}
	}
	hasHeard(t, b)
	if got := b.OK("get", "b/kept"); got != "1" {
		t.Errorf("B reads %q", got)
	}

	// It stays so, whoever restarts, and B gets no session.
	b.Stop()
	b.Start("--connect", a.Addr())
	eventually(t, "A's log says why", func() bool { return len(linesWith(a.Stderr(), b.PeerID, "revoked")) > 0 })
	if n := connected(t, b); n != 0 {
		t.Errorf("B has %d sessions", n)
	}
	says(t, "a revocation again", a.Run("revoke", "B"), "revoked already")

	// Admitted again, in its own directory, it writes again.
	b.Stop()
	if r := tryJoin(b, invite(a)); r.Code != 0 {
		t.Fatalf("a new ticket in the same directory: exit %d\n%s", r.Code, r.Stderr)
	}
	b.Start()
	b.OK("put", "b/again", "5")
	for _, n := range []*proc.Node{a, c, d} {
		eventually(t, n.Label+" has what B wrote as a new member", has(n, "b/again", "5"))
	}
	agree(t, a, b, c, d)
	if st := statusOf(t, b).Membership; st.State != "standing" || st.Generation != 2 {
		t.Errorf("B's status: %+v", st)
	}
}

// hasHeard waits until a revoked node's own status says so. Whether it has the
// revocation itself, and so refuses writes, depends on who was faster: the statement or
// the end of its sessions.
func hasHeard(t *testing.T, n *proc.Node) {
	t.Helper()
	state := ""
	eventually(t, n.Label+" has heard", func() bool {
		state = statusOf(t, n).Membership.State
		return strings.Contains(state, "revoked")
	})
	if state == "revoked" {
		says(t, "a write at "+n.Label, n.Run("put", "unheard", "v"), "revoked", "admin")
	}
	t.Logf("%s is %s", n.Label, state)
}

// connected counts a node's sessions.
func connected(t *testing.T, n *proc.Node) (out int) {
	t.Helper()
	for _, p := range statusOf(t, n).Peers {
		if p.State == "Connected" {
			out++
		}
	}
	return out
}

// TestRevokeConnected: a member that is connected when it is revoked hears of it.
func TestRevokeConnected(t *testing.T) {
	t.Parallel()
	a := found(t, "A").Start()
	b := join(t, a, "B").Start()
	c := join(t, a, "C").Start("--connect", b.Addr())
	b.OK("put", "k", "v")
	for _, n := range []*proc.Node{a, c} {
		eventually(t, "all have what B wrote", has(n, "k", "v"))
	}
	a.OK("revoke", b.PeerID)
	hasHeard(t, b)
	eventually(t, "B has no sessions", func() bool { return connected(t, b) == 0 })
	if n := len(linesWith(b.Stderr(), "this node was revoked")); n > 1 {
		t.Errorf("B's log says %d times that it was revoked:\n%s", n, b.Stderr())
	}
	a.OK("put", "later", "1")
	eventually(t, "C goes on", has(c, "later", "1"))
	agree(t, a, c)
	for _, n := range []*proc.Node{a, c} {
		if got := n.OK("get", "k"); got != "v" {
			t.Errorf("%s reads %q", n.Label, got)
		}
	}
	if r := b.Run("get", "later"); r.Code == 0 {
		t.Error("B has what was written after its revocation")
	}
}

// TestTwoAdmins: what an admin issued before it was revoked stands, what it issues
// later does not; and it takes the root key to revoke it.
func TestTwoAdmins(t *testing.T) {
	long(t)
	t.Parallel()
	a := found(t, "A").Start()
	b := join(t, a, "B", "--role", "admin").Start()
	e := join(t, b, "E").Start("--connect", a.Addr())
	eventually(t, "A knows E", func() bool { return stateOf(t, a, e.PeerID) == "standing" })
	says(t, "an admin by one without the root key", b.Run("invite", "--role", "admin"), "root key")
	says(t, "a revocation of an admin without it", b.Run("revoke", "A"), "root key")
	says(t, "a revocation of itself", a.Run("revoke", "A"), "itself")
	b.OK("space", "create", "notes")
	e.OK("put", "k", "v")
	eventually(t, "A has what E wrote", has(a, "k", "v"))
	agree(t, a, b, e)
	b.Stop()
	e.Stop()

	a.OK("revoke", "B")
	// B has not heard, and certifies another node, by hand.
	f := newNode(t, "F")
	text := b.OK("cert", "export", idOf(f), "--role", "writer")
	if r := f.RunInput(strings.NewReader(text), "cert", "import", "--id", "F", "-"); r.Code != 0 {
		t.Fatalf("import: exit %d\n%s", r.Code, r.Stderr)
	}
	f.OK("put", "f", "1")
	f.Start("--connect", a.Addr())
	eventually(t, "A refuses whom B certified later", func() bool { return len(linesWith(a.Stderr(), "handshake refused", idOf(f))) > 0 })
	if st := stateOf(t, a, f.PeerID); st == "standing" {
		t.Error("F is a member")
	}
	f.Stop()
	b.Start()
	eventually(t, "B is refused", func() bool { return statusOf(t, b).Membership.State == "refused as revoked" })
	for _, args := range [][]string{{"put", "k", "unheard"}, {"del", "unheard"}, {"append", "note", "x"}, {"invite"}} {
		r := b.Run(args...)
		if note := "refuse this node as revoked"; r.Code != 0 || strings.Count(r.Stderr, "\n") != 1 || !strings.Contains(r.Stderr, note) {
			t.Errorf("%s at B: exit %d, and it says %q", args[0], r.Code, r.Stderr)
		}
	}

	// Whom it admitted before that stays.
	e.Start("--connect", a.Addr())
	e.OK("put", "k", "v2")
	eventually(t, "A has what E writes now", has(a, "k", "v2"))
	eventually(t, "E has heard", func() bool { return stateOf(t, e, b.PeerID) == "revoked" })
	agree(t, a, e)
	if out := a.OK("space", "list"); !strings.Contains(out, "notes") {
		t.Errorf("the space that B declared:\n%s", out)
	}

	// The root key goes to another admin's machine.
	a.OK("root", "export", "--out", a.Dir+"-root.key")
	says(t, "removing the root key without a word", a.Run("root", "remove"), "--yes")
	a.OK("root", "remove", "--yes")
	says(t, "an admin without the root key", a.Run("invite", "--role", "admin"), "root key")
	if statusOf(t, a).Membership.RootKey {
		t.Error("A's status still has the root key")
	}
	a.OK("root", "import", a.Dir+"-root.key")
	g := join(t, a, "G", "--role", "admin").Start()
	if roles := statusOf(t, g).Membership.Roles; len(roles) != 2 || roles[0] != "admin" {
		t.Errorf("G's roles: %v", roles)
	}
}
