package members_test

import (
	"strings"
	"testing"
	"time"

	"vixp2p/test/internal/proc"
)

// TestCertificatesByHand: a node becomes a member with no network between it and the
// admin.
func TestCertificatesByHand(t *testing.T) {
	t.Parallel()
	a := found(t, "A", "--name", "shop") // runs not at all
	b := newNode(t, "B")
	id := idOf(b)
	if !strings.HasPrefix(id, "12D3KooW") || id != idOf(b) {
		t.Errorf("peer ID %q", id)
	}
	importing := func(n *proc.Node, text string) proc.Result {
		return n.RunInput(strings.NewReader(text), "cert", "import", "--id", n.Label, "-")
	}
	text := a.OK("cert", "export", id, "--role", "writer", "--label", "B")
	other := newNode(t, "O")
	says(t, "another node's certificate", importing(other, text), idOf(other), id)
	says(t, "no certificate", importing(b, "hello"), "BEGIN")
	says(t, "half of one", importing(b, text[:len(text)/2]), "certificate")
	lines := strings.Split(text, "\n")
	at := len(lines) / 2
	lines[at] = strings.Map(func(r rune) rune {
		if r == 'A' {
			return 'B'
		}
		return r
	}, lines[at]) + ""
	if damaged := strings.Join(lines, "\n"); damaged != text {
		says(t, "a damaged one", importing(b, damaged), "export")
	}
	if r := importing(b, text); r.Code != 0 || !strings.Contains(r.Stdout, "shop") {
		t.Fatalf("import: exit %d\n%s%s", r.Code, r.Stdout, r.Stderr)
	}
	if r := importing(b, text); r.Code != 0 {
		t.Errorf("the same once more: exit %d\n%s", r.Code, r.Stderr)
	}
	elsewhere := found(t, "E")
	says(t, "one of another network", importing(elsewhere, a.OK("cert", "export", idOf(elsewhere))), "network")

	b.OK("put", "from/b", "1") // before it has ever met anybody
	a.Start()
	b.Start("--connect", a.Addr())
	eventually(t, "A has what B wrote", has(a, "from/b", "1"))
	says(t, "an import while it runs", importing(b, text), "running")
	if shown := b.OK("cert", "show"); !strings.Contains(shown, "BEGIN VIX CERTIFICATE") {
		t.Errorf("cert show: %s", shown)
	}
	if a.OK("cert", "show", "B") == "" {
		t.Error("A has no certificate of B")
	}
}

// TestRenewal: a certificate that ends is renewed while its node runs; then the time
// comes of one that nobody renews.
func TestRenewal(t *testing.T) {
	long(t)
	t.Parallel()
	a := found(t, "A").Start()
	// Long enough for all that comes before B's is renewed.
	b := join(t, a, "B", "--valid", "15s").Start()
	c := join(t, a, "C", "--valid", "15s").Start()
	a.OK("put", "k", "1")
	eventually(t, "B has it", has(b, "k", "1"))
	first := statusOf(t, b).Membership.Expires
	if first == nil {
		t.Fatal("B's certificate has no end")
	}
	a.OK("cert", "export", "B", "--valid", "90d")
	eventually(t, "B shows the new certificate", func() bool {
		st := statusOf(t, b).Membership
		return st.Expires != nil && *st.Expires > *first
	})
	eventually(t, "the old one would have ended", func() bool { return stateOf(t, a, c.PeerID) == "expired" })
	a.OK("put", "k", "2")
	eventually(t, "B goes on", has(b, "k", "2"))
	if st := statusOf(t, b).Membership; st.State != "standing" {
		t.Errorf("B's status: %+v", st)
	}

	// C is refused, and both sides say why.
	eventually(t, "C has no session", func() bool { return connected(t, c) == 0 })
	eventually(t, "A's log says why", func() bool { return len(linesWith(a.Stderr(), "handshake refused", c.PeerID, "was valid until")) > 0 })
	eventually(t, "C's log says why", func() bool { return len(linesWith(c.Stderr(), "certificate", "expired")) > 0 })
	if st := statusOf(t, c).Membership; st.State != "expired" {
		t.Errorf("C's status: %+v", st)
	}
	c.OK("put", "c", "offline") // its data is its own
	says(t, "an absent member of that name", a.Run("cert", "export", "nobody"), "nobody")

	// The text gets to it by other means.
	text := a.OK("cert", "export", "C")
	c.Stop()
	if r := c.RunInput(strings.NewReader(text), "cert", "import", "-"); r.Code != 0 {
		t.Fatalf("import: exit %d\n%s", r.Code, r.Stderr)
	}
	start := time.Now()
	c.Start()
	eventually(t, "A has what C wrote", has(a, "c", "offline"))
	t.Logf("back %.1f s after its start", time.Since(start).Seconds())
}
