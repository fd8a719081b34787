package members_test

import (
	"path/filepath"
	"strings"
	"testing"
)

// TestEncryptedSpace: what is written in an encrypted space passes through a relay
// that cannot read it, is read by who joins later, and not by who was revoked.
func TestEncryptedSpace(t *testing.T) {
	t.Parallel()
	in := []string{"--space", "diary"}
	a := found(t, "A").Start()
	a.OK("space", "create", "--encrypted", "diary")
	if list := a.OK("space", "list", "--json"); !strings.Contains(list, `"name":"diary"`) || !strings.Contains(list, `"encrypted":true`) {
		t.Errorf("the spaces are %s", list)
	}
	a.OK("space", "create", "notes")
	says(t, "encryption of a space that exists", a.Run("space", "create", "--encrypted", "notes"), "notes", "not encrypted")
	says(t, "encryption of the space default", a.Run("space", "create", "--encrypted", "default"), "never encrypted")
	relay := join(t, a, "relay", "--role", "relay").Start()
	var sent proxy
	b := join(t, a, "B").Start("--connect", sent.listen(t, relay.Addr()), "--quic", "off")
	first, second, public := marker(), marker(), marker()
	a.OK(append([]string{"put", "k", first}, in...)...)
	a.OK("put", "k", public)
	eventually(t, "B reads it", has(b, "k", first, in...))
	says(t, "a read by the relay", relay.Run(append([]string{"get", "k"}, in...)...), `"diary"`, "reader")
	if st := relay.OK("status"); !strings.Contains(st, "sealed") || strings.Contains(st, "UNREADABLE") {
		t.Errorf("the relay's status is %s", st)
	}
	says(t, "a write by the relay", relay.Run(append([]string{"put", "k", "v"}, in...)...), "writer")
	relay.Synced(1)

	late := join(t, a, "late", "--role", "reader").Start("--connect", relay.Addr())
	eventually(t, "one that joined later reads it", has(late, "k", first, in...))

	a.OK("revoke", "B")
	a.OK(append([]string{"put", "k", second}, in...)...)
	eventually(t, "who stays reads what is new", has(late, "k", second, in...))
	relay.Synced(1)
	for _, n := range []interface{ Stop() }{a, b, relay, late} {
		n.Stop()
	}
	if holds(t, relay.Dir, public) == "" || holds(t, late.Dir, second) == "" {
		t.Error("markers are not found where they should be")
	}
	for _, secret := range []string{first, second} {
		if at := holds(t, relay.Dir, secret); at != "" {
			t.Errorf("the relay has the plain text in %s", at)
		}
		if at := holds(t, filepath.Join(a.Dir, "log"), secret); at != "" {
			t.Errorf("the writer's log has the plain text in %s", at)
		}
	}
	if sent.len() < 1000 || sent.holds(first) || sent.holds(second) {
		t.Errorf("of %d bytes between relay and reader some are the plain text, or they are too few", sent.len())
	}
	if at := holds(t, b.Dir, second); at != "" {
		t.Errorf("the revoked member has what was written later in %s", at)
	}
}
