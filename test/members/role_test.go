package members_test

import (
	"crypto/rand"
	"encoding/hex"
	"strings"
	"testing"
)

// marker is a text that occurs nowhere else.
func marker() string {
	var b [20]byte
	_, _ = rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

// TestReader: a reader reads, and hears at once that it may not write, connected or
// not.
func TestReader(t *testing.T) {
	t.Parallel()
	a := found(t, "A").Start()
	r := join(t, a, "R", "--role", "reader")
	says(t, "a write before it ever ran", r.Run("put", "k", "mine"), "this node may not write", "reader")
	r.Start()
	a.OK("put", "k", "v")
	eventually(t, "the reader reads", has(r, "k", "v"))
	says(t, "a write", r.Run("put", "k", "mine"), "this node may not write", "reader")
	r.Stop()
	says(t, "a write offline", r.Run("put", "k", "mine"), "this node may not write", "reader")
	if got := r.OK("get", "k"); got != "v" {
		t.Errorf("the reader reads %q", got)
	}
	says(t, "an invite by a reader", r.Run("invite", "--addr", "127.0.0.1:1"), "no admin")
	r.Start()
	says(t, "a revocation by a reader", r.Run("revoke", "A"), "no admin")
	says(t, "a space by a reader", r.Run("space", "create", "notes"), "no admin")
}

// TestSpaceWithoutRole: what is written in a space reaches who has a role in it, and
// never comes to be on the disk of another member, whomever that one meets.
func TestSpaceWithoutRole(t *testing.T) {
	t.Parallel()
	a := found(t, "A").Start()
	a.OK("space", "create", "secret")
	third := join(t, a, "T").Start()
	w := join(t, a, "W", "--in", "default").Start()
	secret, public := marker(), marker()
	a.OK("put", "k", secret, "--space", "secret")
	a.OK("put", "k", public)
	eventually(t, "the third peer has the secret", has(third, "k", secret, "--space", "secret"))
	a.Stop()
	w.OK("connect", third.Addr())
	third.OK("put", "k2", secret, "--space", "secret")
	third.OK("put", "later", public)
	eventually(t, "W has what is for all", has(w, "later", public))
	w.Synced(1)

	says(t, "reading without a role", w.Run("get", "k", "--space", "secret"), "secret")
	says(t, "writing without a role", w.Run("put", "k", "v", "--space", "secret"), "secret")
	says(t, "writing in a space that nobody declared", w.Run("put", "k", "v", "--space", "nosuch"), "nosuch")
	w.Stop()
	third.Stop()
	if holds(t, third.Dir, secret) == "" || holds(t, w.Dir, public) == "" {
		t.Error("markers are not found where they should be")
	}
	if in := holds(t, w.Dir, secret); in != "" {
		t.Errorf("what was written in a space without a role is in %s", in)
	}
	says(t, "reading without a role, offline", w.Run("get", "k", "--space", "secret"), "secret")
}

// TestRelayMember: two writers that never meet, and a relay that stores and forwards.
func TestRelayMember(t *testing.T) {
	long(t)
	t.Parallel()
	a := found(t, "A").Start()
	relay := join(t, a, "relay", "--role", "relay").Start()
	b := join(t, a, "B")
	a.OK("put", "from/a", "1")
	a.Synced(1)
	eventually(t, "the relay has heard of B", func() bool { return stateOf(t, relay, idOf(b)) == "standing" })
	relay.Synced(1)
	a.Stop()
	b.Start("--connect", relay.Addr())
	eventually(t, "B has what A wrote", has(b, "from/a", "1"))
	b.OK("put", "from/b", "2")
	b.Synced(1)
	relay.Synced(1)
	b.Stop()
	says(t, "a write by the relay", relay.Run("put", "k", "v"), "this node may not write", "relay")
	says(t, "a read at the relay", relay.Run("get", "from/b"), "is a relay", "reader")
	a.Start()
	eventually(t, "A has what B wrote", has(a, "from/b", "2"))
}

// TestInviteRoles: what cannot be given is refused with a sentence.
func TestInviteRoles(t *testing.T) {
	long(t)
	t.Parallel()
	a := found(t, "A").Start()
	says(t, "a role that there is not", a.Run("invite", "--role", "boss"), "boss")
	says(t, "a space that there is not", a.Run("invite", "--in", "nosuch"), "nosuch", "space create")
	says(t, "an admin of one space", a.Run("invite", "--role", "admin", "--in", "default"), "whole network")
	open := newNode(t, "P")
	open.OK("put", "k", "v")
	for _, args := range [][]string{{"invite"}, {"members"}, {"revoke", "X"}, {"space", "list"}, {"cert", "show"}} {
		says(t, strings.Join(args, " ")+" in an open network", open.Run(args...), "open network")
	}
	says(t, "init where there is data", open.Run("init", "--id", "P"), "new directory")
	says(t, "init twice", a.Run("init", "--id", "A"), "")
}
