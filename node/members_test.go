package node

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"vixp2p/node/localapi"
	"vixp2p/protocols"
	"vixp2p/replication"
)

// initDir founds a network in a directory of its own.
func initDir(t *testing.T, label string) (dir string, m *Membership) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), label)
	m, err := Init(deadline(t), InitOptions{DataDir: dir, Label: label, Name: "shop"})
	if err != nil {
		t.Fatal(err)
	}
	return dir, m
}

// member is what tests of members open: on loopback, and known to nobody.
func member(dir string) Config {
	return Config{DataDir: dir, Listen: []string{"127.0.0.1:0"}, NoDiscovery: true}
}

// openMember opens a node of a directory and closes it when the test or the caller
// ends.
func openMember(t *testing.T, dir string) *Node {
	t.Helper()
	return open(t, member(dir))
}

// joinDir makes a member of an admin's network in a directory of its own.
func joinDir(t *testing.T, admin *Node, label string, o InviteOptions) (dir string) {
	t.Helper()
	in, err := admin.Invite(deadline(t), o)
	if err != nil {
		t.Fatal(err)
	}
	dir = filepath.Join(t.TempDir(), label)
	if _, err := Join(deadline(t), JoinOptions{Ticket: in.Ticket, DataDir: dir, Label: label}); err != nil {
		t.Fatal(err)
	}
	return dir
}

// closeNow closes a node before the end of the test.
func closeNow(t *testing.T, n *Node) {
	t.Helper()
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
}

// wants checks an error's kind and that its text has some words.
func wants(t *testing.T, what string, err, kind error, words ...string) {
	t.Helper()
	if err == nil || kind != nil && !errors.Is(err, kind) {
		t.Errorf("%s: %v, not %v", what, err, kind)
		return
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("%s: it does not say %q: %v", what, w, err)
		}
	}
}

// TestInitCutShort: whatever of Init was done, the same call completes it, with the
// same root key and identity as far as there were any.
func TestInitCutShort(t *testing.T) {
	t.Parallel()
	// What Init writes, in this order.
	steps := []string{rootKeyFile, formatFile, identityFile, "label", certificateFile, networkFile, logDir}
	for done := range len(steps) {
		t.Run("before "+steps[done], func(t *testing.T) {
			t.Parallel()
			dir, first := initDir(t, "A")
			for _, name := range append([]string{viewDir, "mail", "peers.json"}, steps[done:]...) {
				if err := os.RemoveAll(filepath.Join(dir, name)); err != nil {
					t.Fatal(err)
				}
			}
			again, err := Init(deadline(t), InitOptions{DataDir: dir, Label: "A", Name: "shop"})
			if err != nil {
				t.Fatal(err)
			}
			if done > 0 && again.Network != first.Network {
				t.Error("another network, though there was its root key")
			}
			if done > 2 && again.PeerID != first.PeerID {
				t.Error("another identity, though there was one")
			}
			n := openMember(t, dir)
			members, _, err := n.Members(deadline(t))
			if err != nil || len(members) != 1 || members[0].State != "standing" || !members[0].Self || len(members[0].Roles) != 2 {
				t.Fatalf("members %+v, %v", members, err)
			}
			if st := n.membershipStatus(); st.NetworkName != "shop" || !st.RootKey || st.State != "standing" {
				t.Errorf("status %+v", st)
			}
			put(t, n, "k", "v")
			if _, err := n.Invite(deadline(t), InviteOptions{Role: RoleAdmin}); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestFounderLabel: a founder that is given no label has the one that its node runs under.
func TestFounderLabel(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if _, err := Init(deadline(t), InitOptions{DataDir: dir}); err != nil {
		t.Fatal(err)
	}
	n := openMember(t, dir)
	members, _, err := n.Members(deadline(t))
	if err != nil || len(members) != 1 || members[0].Label != n.Label() || n.Label() != shortID(n.id) {
		t.Errorf("%q runs, members: %+v, %v", n.Label(), members, err)
	}
	key := filepath.Join(dir, rootKeyFile)
	if err := os.Chmod(key, 0o644); err != nil {
		t.Fatal(err)
	}
	_, err = n.Invite(deadline(t), InviteOptions{Role: RoleAdmin})
	wants(t, "a root key that others may read", err, nil, "chmod 600", "who may have read it", "new network")
}

// TestMemberLabel: a member that nobody named is called by the end of its peer ID, under
// which its node runs too; one that is admitted again keeps what it was called.
func TestMemberLabel(t *testing.T) {
	t.Parallel()
	dir, _ := initDir(t, "A")
	a := openMember(t, dir)
	labels := func() map[string]string {
		t.Helper()
		members, _, err := a.Members(deadline(t))
		if err != nil {
			t.Fatal(err)
		}
		of := map[string]string{}
		for _, m := range members {
			of[m.PeerID] = m.Label
		}
		return of
	}
	join := func(dir, label string) *Membership {
		t.Helper()
		in, err := a.Invite(deadline(t), InviteOptions{Label: label})
		if err != nil {
			t.Fatal(err)
		}
		m, err := Join(deadline(t), JoinOptions{Ticket: in.Ticket, DataDir: dir})
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	nobody := t.TempDir()
	m := join(nobody, "")
	if b := openMember(t, nobody); labels()[m.PeerID] != b.Label() || b.Label() != shortID(b.id) {
		t.Errorf("%q runs, and A calls it %q", b.Label(), labels()[m.PeerID])
	}
	named := t.TempDir()
	m = join(named, "till")
	if got := labels()[m.PeerID]; got != "till" {
		t.Errorf("what the invite calls till is called %q", got)
	}
	if _, err := a.Revoke(deadline(t), "till", RevokeOptions{}); err != nil {
		t.Fatal(err)
	}
	join(named, "")
	if got := labels()[m.PeerID]; got != "till" {
		t.Errorf("till, which has joined again, is called %q", got)
	}

	id, err := PrepareIdentity(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := a.Certify(deadline(t), CertifyOptions{Peer: id}); err != nil {
			t.Fatal(err)
		}
		if got := labels()[id]; got == "" || !strings.HasSuffix(id, got) {
			t.Errorf("one that was certified by hand is called %q", got)
		}
	}
}

func TestInitRefused(t *testing.T) {
	t.Parallel()
	dir, _ := initDir(t, "A")
	initAgain := func(dir string) error {
		_, err := Init(deadline(t), InitOptions{DataDir: dir, Label: "A"})
		return err
	}
	wants(t, "twice", initAgain(dir), nil, "belongs to", "another directory")
	n, err := Open(t.Context(), member(dir))
	if err != nil {
		t.Fatal(err)
	}
	wants(t, "while it runs", initAgain(dir), ErrLocked)
	closeNow(t, n)
	if err := RemoveRootKey(dir); err != nil {
		t.Fatal(err)
	}
	wants(t, "without its root key", initAgain(dir), nil, "belongs to", "another directory")

	used := t.TempDir()
	n = open(t, Config{DataDir: used, Offline: true})
	put(t, n, "k", "v")
	closeNow(t, n)
	wants(t, "where there is data", initAgain(used), nil, "one network for life", "new directory")
	if fileExists(filepath.Join(used, rootKeyFile)) {
		t.Error("it has left a root key there")
	}

	// Cut short, and the certificate is lost since.
	dir, _ = initDir(t, "A")
	for _, name := range []string{logDir, viewDir, certificateFile} {
		if err := os.RemoveAll(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	wants(t, "without its certificate", initAgain(dir), nil, "certificate", "new directory")
	_, err = Init(deadline(t), InitOptions{DataDir: t.TempDir(), Name: strings.Repeat("x", 65)})
	wants(t, "a long name", err, nil, "name")
}

// TestJoinRefused: directories that cannot join, and what they keep.
func TestJoinRefused(t *testing.T) {
	t.Parallel()
	dir, _ := initDir(t, "A")
	a := openMember(t, dir)
	in, err := a.Invite(deadline(t), InviteOptions{})
	if err != nil {
		t.Fatal(err)
	}
	joinIn := func(dir string) error {
		_, err := Join(deadline(t), JoinOptions{Ticket: in.Ticket, DataDir: dir})
		return err
	}
	used := t.TempDir()
	n := open(t, Config{DataDir: used, Offline: true})
	put(t, n, "k", "v")
	wants(t, "a running node of another network", joinIn(used), nil, "another data directory")
	closeNow(t, n)
	var other *OtherNetworkError
	if err := joinIn(used); !errors.As(err, &other) {
		t.Errorf("a directory of an open network: %v", err)
	}
	elsewhere, _ := initDir(t, "O")
	if err := joinIn(elsewhere); !errors.As(err, &other) {
		t.Errorf("a directory of another network: %v", err)
	}
	wants(t, "a running node of the network", joinIn(dir), ErrLocked, "stop it")
	later := time.Now().Add(48 * time.Hour)
	_, err = Join(deadline(t), JoinOptions{Ticket: in.Ticket, DataDir: t.TempDir(), Now: func() time.Time { return later }})
	wants(t, "by a clock that is two days ahead", err, nil, "could be used until", "clock")
	fresh := t.TempDir()
	if err := joinIn(fresh); err != nil {
		t.Errorf("the ticket is good still: %v", err)
	}
	n = open(t, Config{DataDir: fresh, Offline: true})
	put(t, n, "k", "v") // before it has heard of anybody
}

// TestAdminsDecide: what is for admins is refused to others, and what takes the root
// key to who has none.
func TestAdminsDecide(t *testing.T) {
	t.Parallel()
	dir, first := initDir(t, "A")
	a := openMember(t, dir)
	w := openMember(t, joinDir(t, a, "W", InviteOptions{}))
	r := openMember(t, joinDir(t, a, "R", InviteOptions{Role: RoleReader}))
	until(t, "they have heard of each other", func() bool {
		x, _, errX := w.Members(deadline(t))
		y, _, errY := r.Members(deadline(t))
		return errX == nil && errY == nil && len(x) == 3 && len(y) == 3
	})
	ctx := deadline(t)
	_, err := w.Invite(ctx, InviteOptions{})
	wants(t, "an invite by a writer", err, ErrNotAdmin)
	_, err = w.CreateSpace(ctx, "notes", false)
	wants(t, "a space by a writer", err, ErrNotAdmin)
	_, err = w.Certify(ctx, CertifyOptions{Peer: "R", Role: RoleWriter})
	wants(t, "a certificate by a writer", err, ErrNotAdmin)
	_, err = w.Revoke(ctx, "R", RevokeOptions{})
	wants(t, "a revocation by a writer", err, ErrNotAdmin)
	_, err = w.Revoke(ctx, first.PeerID, RevokeOptions{})
	wants(t, "a revocation of an admin by a writer", err, ErrNotAdmin)
	_, err = r.Space("").Put(ctx, "k", []byte("v"))
	wants(t, "a write by a reader", err, replication.ErrNotAllowed, "may not write", "reader")

	_, err = a.Space("notes").Put(ctx, "k", []byte("v"))
	wants(t, "a space that nobody declared", err, replication.ErrNotAllowed, "notes", "space create")
	_, err = a.Invite(ctx, InviteOptions{Spaces: []string{"notes"}})
	wants(t, "an invite to it", err, ErrNotFound, "notes")
	one, err := a.CreateSpace(ctx, "notes", false)
	if err != nil {
		t.Fatal(err)
	}
	before := a.members.state.Load().Digest()
	two, err := a.CreateSpace(ctx, "notes", false)
	if err != nil || *one != *two || a.members.state.Load().Digest() != before {
		t.Errorf("twice: %+v, %+v, %v", one, two, err)
	}
	if _, err := a.Space("notes").Put(ctx, "k", []byte("v")); err != nil {
		t.Error(err)
	}
	for _, name := range []string{"", "vix/mine", "vix/control", strings.Repeat("x", 300)} {
		_, err = a.CreateSpace(ctx, name, false)
		wants(t, "a space "+name, err, ErrInvalid)
	}
	until(t, "the writer has it", func() bool {
		e, err := w.Space("notes").Get(ctx, "k")
		return err == nil && string(e.Value) == "v"
	})

	// Revocations that are refused.
	_, err = a.Revoke(ctx, "nobody", RevokeOptions{})
	if unknown := (*UnknownPeerError)(nil); !errors.As(err, &unknown) {
		t.Errorf("an unknown label: %v", err)
	}
	stranger, err := randomPeerID()
	if err != nil {
		t.Fatal(err)
	}
	_, err = a.Revoke(ctx, stranger.String(), RevokeOptions{})
	wants(t, "who never was a member", err, ErrNotFound, "never")
	_, err = a.Revoke(ctx, "A", RevokeOptions{})
	wants(t, "itself", err, replication.ErrNotAllowed, "itself")
	if _, err := a.Revoke(ctx, "R", RevokeOptions{}); err != nil {
		t.Fatal(err)
	}
	_, err = a.Revoke(ctx, "R", RevokeOptions{})
	wants(t, "again", err, ErrConflict, "already")

	// The root key goes and comes back.
	key, err := RootKey(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := RemoveRootKey(dir); err != nil {
		t.Fatal(err)
	}
	_, err = a.Invite(ctx, InviteOptions{Role: RoleAdmin})
	wants(t, "an admin without the root key", err, ErrNoRootKey, "root import")
	_, err = RootKey(dir)
	wants(t, "an export of none", err, ErrNoRootKey)
	wants(t, "a removal of none", RemoveRootKey(dir), ErrNoRootKey)
	_, other, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	text, err := encodeRootKey(other)
	if err != nil {
		t.Fatal(err)
	}
	wants(t, "another network's", ImportRootKey(dir, text), ErrInvalid, "another network")
	wants(t, "no key", ImportRootKey(dir, []byte("hello")), ErrInvalid, "root export")
	if err := ImportRootKey(dir, key); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Invite(ctx, InviteOptions{Role: RoleAdmin}); err != nil {
		t.Error(err)
	}
}

// TestNewAdminInvites: one that has joined as an admin, and has met nobody since,
// decides already, and its word counts when the others hear it.
func TestNewAdminInvites(t *testing.T) {
	t.Parallel()
	dir, _ := initDir(t, "A")
	a := openMember(t, dir)
	second := joinDir(t, a, "B", InviteOptions{Role: RoleAdmin})
	if err := os.Remove(filepath.Join(second, "peers.json")); err != nil { // where A is reached
		t.Fatal(err)
	}
	b := openMember(t, second)
	third := joinDir(t, b, "C", InviteOptions{Role: RoleReader})
	if _, err := b.CreateSpace(deadline(t), "notes", false); err != nil {
		t.Fatal(err)
	}
	c := openMember(t, third)
	if _, _, err := b.Connect(deadline(t), hostPort(t, a)); err != nil {
		t.Fatal(err)
	}
	for _, n := range []*Node{a, b, c} {
		until(t, n.Label()+" knows all", func() bool {
			members, _, err := n.Members(deadline(t))
			return err == nil && len(members) == 3 && n.members.isDeclared(replication.SpaceOf(n.network, "notes"))
		})
	}
	put(t, a, "k", "v")
	converge(t, 1, a, b, c)
}

// TestMembershipSurvives: a restart, a repair of the store, and what a damaged
// certificate says.
func TestMembershipSurvives(t *testing.T) {
	t.Parallel()
	dir, _ := initDir(t, "A")
	cfg := member(dir)
	cfg.repairPause = time.Millisecond
	a := open(t, cfg)
	second := joinDir(t, a, "B", InviteOptions{})
	b := openMember(t, second)
	put(t, b, "kept", "1")
	converge(t, 1, a, b)
	if _, err := a.Revoke(deadline(t), "B", RevokeOptions{}); err != nil {
		t.Fatal(err)
	}
	in, err := a.Invite(deadline(t), InviteOptions{Role: RoleReader})
	if err != nil {
		t.Fatal(err)
	}
	digest := a.members.state.Load().Digest()
	check := func(when string) {
		t.Helper()
		if got := a.members.state.Load().Digest(); got != digest {
			t.Errorf("%s: trust %s, not %s", when, got, digest)
		}
		members, invites, err := a.Members(deadline(t))
		if err != nil || len(members) != 2 || len(invites) != 1 || invites[0].Invite != in.Invite || invites[0].State != "open" {
			t.Errorf("%s: %+v, %+v, %v", when, members, invites, err)
		}
		if e, err := a.Space("").Get(deadline(t), "kept"); err != nil || string(e.Value) != "1" {
			t.Errorf("%s: %+v, %v", when, e, err)
		}
	}
	check("before")
	a.damaged(&replication.DamageError{File: "test", Problem: "said by the test"})
	until(t, "the repair", func() bool { _, done := a.health.snapshot(); return done == 1 })
	check("after a repair")
	put(t, a, "k", "2")
	if _, err := a.CreateSpace(deadline(t), "notes", false); err != nil {
		t.Errorf("after a repair: %v", err)
	}
	digest = a.members.state.Load().Digest()
	closeNow(t, a)
	a = open(t, cfg)
	check("after a restart")
	closeNow(t, a)

	path := filepath.Join(dir, certificateFile)
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := os.ReadFile(filepath.Join(second, certificateFile))
	if err != nil {
		t.Fatal(err)
	}
	for what, c := range map[string]struct {
		text []byte
		says []string
	}{
		"damaged":        {[]byte("-----BEGIN"), []string{path, "restore", "writes it again", "join again"}},
		"half":           {good[:len(good)/2], []string{path, "restore", "join again"}},
		"another node's": {theirs, []string{path, "another node's"}},
	} {
		if err := os.WriteFile(path, c.text, 0o600); err != nil {
			t.Fatal(err)
		}
		n, err := Open(t.Context(), cfg)
		wants(t, "a certificate that is "+what, err, nil, c.says...)
		if err == nil {
			closeNow(t, n)
		}
	}
	// Removed, it comes back from the control logs.
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	a = open(t, cfg)
	check("after the certificate was removed")
	if now, err := os.ReadFile(path); err != nil || string(now) != string(good) {
		t.Errorf("the certificate is not written again: %v", err)
	}
}

// TestAdmittedAgain: who was revoked while it was away, and admitted again before it
// heard of that, loses nothing that it writes as a new member, though it has a log
// from before.
func TestAdmittedAgain(t *testing.T) {
	t.Parallel()
	dir, _ := initDir(t, "A")
	a := openMember(t, dir)
	second := joinDir(t, a, "B", InviteOptions{})
	b := openMember(t, second)
	put(t, b, "before", "1")
	converge(t, 1, a, b)
	if err := b.Wait(deadline(t), WaitOptions{Peers: 1, Synced: true}); err != nil { // it has heard that A holds it
		t.Fatal(err)
	}
	closeNow(t, b)
	if _, err := a.Revoke(deadline(t), "B", RevokeOptions{}); err != nil {
		t.Fatal(err)
	}
	away := func() *Node { return open(t, Config{DataDir: second, Offline: true}) }
	b = away()
	put(t, b, "unheard", "2") // counts nowhere
	closeNow(t, b)
	in, err := a.Invite(deadline(t), InviteOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Join(deadline(t), JoinOptions{Ticket: in.Ticket, DataDir: second}); err != nil {
		t.Fatal(err)
	}
	b = away()
	list, err := b.Untaken(deadline(t))
	if err != nil || len(list) != 1 || list[0].From != 2 || list[0].Ops != 1 || list[0].Cut {
		t.Errorf("before it has heard of its revocation: %+v, %v", list, err)
	}
	put(t, b, "again", "3")
	closeNow(t, b)
	b = openMember(t, second)
	put(t, b, "later", "4")
	converge(t, 3, a, b)
	if _, err := a.Space("").Get(deadline(t), "unheard"); !errors.Is(err, ErrNotFound) {
		t.Errorf("what it wrote in between: %v", err)
	}
	if st := b.membershipStatus(); st.State != "standing" || st.Generation != 2 {
		t.Errorf("B's status: %+v", st)
	}
	if list, err = b.Untaken(deadline(t)); err != nil || len(list) != 1 || list[0].From != 2 || list[0].Ops != 1 || !list[0].Cut {
		t.Errorf("B's writes that count nowhere: %+v, %v", list, err)
	}
	if of, err := Backend(a).Members(deadline(t)); err != nil || len(of.Untaken) != 0 {
		t.Errorf("A's: %+v, %v", of.Untaken, err)
	}
}

// TestNothingKeptIsTold: writes in a log of which the revocation kept nothing are told as
// cut, as others are, when their node was admitted again.
func TestNothingKeptIsTold(t *testing.T) {
	t.Parallel()
	dir, _ := initDir(t, "A")
	a := openMember(t, dir)
	second := joinDir(t, a, "B", InviteOptions{})
	b := open(t, Config{DataDir: second, Offline: true})
	put(t, b, "unheard", "1")
	closeNow(t, b)
	if _, err := a.Revoke(deadline(t), "B", RevokeOptions{}); err != nil {
		t.Fatal(err)
	}
	in, err := a.Invite(deadline(t), InviteOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Join(deadline(t), JoinOptions{Ticket: in.Ticket, DataDir: second}); err != nil {
		t.Fatal(err)
	}
	b = openMember(t, second)
	until(t, "B has heard of its revocation", func() bool {
		list, err := b.Untaken(deadline(t))
		return err == nil && len(list) == 1 && list[0].From == 1 && list[0].Ops == 1 && list[0].Cut
	})
	until(t, "the write is out of view", func() bool {
		_, err := b.Space("").Get(deadline(t), "unheard")
		return errors.Is(err, ErrNotFound)
	})
}

// TestUsedTicket: who was revoked and admitted again with less does not get back with
// an old ticket what the revocation took.
func TestUsedTicket(t *testing.T) {
	t.Parallel()
	dir, _ := initDir(t, "A")
	a := openMember(t, dir)
	in, err := a.Invite(deadline(t), InviteOptions{})
	if err != nil {
		t.Fatal(err)
	}
	second := t.TempDir()
	if _, err := Join(deadline(t), JoinOptions{Ticket: in.Ticket, DataDir: t.TempDir(), Addrs: []string{"127.0.0.1:1", "no port"}}); !errors.Is(err, ErrInvalid) {
		t.Errorf("an address that is none: %v", err)
	}
	for range 2 { // whose answer was lost asks again
		if m, err := Join(deadline(t), JoinOptions{Ticket: in.Ticket, DataDir: second, Label: "B"}); err != nil || m.Roles[0] != RoleWriter {
			t.Fatalf("joined as %+v, %v", m, err)
		}
	}
	if _, err := a.Revoke(deadline(t), "B", RevokeOptions{}); err != nil {
		t.Fatal(err)
	}
	if c, err := a.Certify(deadline(t), CertifyOptions{Peer: "B"}); !errors.Is(err, ErrConflict) {
		t.Errorf("admitted again without a word of the role: %+v, %v", c, err)
	}
	again, err := a.Invite(deadline(t), InviteOptions{Role: RoleReader})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Join(deadline(t), JoinOptions{Ticket: again.Ticket, DataDir: second, Label: "B"}); err != nil {
		t.Fatal(err)
	}
	if _, err := Join(deadline(t), JoinOptions{Ticket: in.Ticket, DataDir: second, Label: "B"}); !errors.Is(err, protocols.ErrInviteRevoked) {
		t.Errorf("the old ticket: %v", err)
	}
	members, _, err := a.Members(deadline(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range members {
		if m.Label == "B" && !slices.Equal(m.Roles, []string{RoleReader}) {
			t.Errorf("B is %v", m.Roles)
		}
	}
}

// A space in which nobody has written yet is there after a restart too, by its name, and
// so is what a member then writes in it.
func TestEmptySpaceAfterRestart(t *testing.T) {
	dir, _ := initDir(t, "A")
	a := openMember(t, dir)
	if _, err := a.CreateSpace(deadline(t), "notes", false); err != nil {
		t.Fatal(err)
	}
	cfg := member(joinDir(t, a, "W", InviteOptions{}))
	closeNow(t, a)
	a = openMember(t, dir)
	if _, shown := statusOf(t, a).Spaces["notes"]; !shown || !slices.Contains(a.Spaces(), "notes") {
		t.Errorf("after a restart: %q", a.Spaces())
	}
	cfg.Connect = a.Addrs()[:1]
	w := open(t, cfg)
	var write *Write
	until(t, "W has heard of the space", func() (done bool) {
		var err error
		write, err = w.Space("notes").Put(deadline(t), "k", []byte("v"))
		return err == nil
	})
	if err := write.WaitReplicated(deadline(t), 1); err != nil {
		t.Fatal(err)
	}
	if st := statusOf(t, a); st.Spaces["notes"].Ops != 1 {
		t.Errorf("with an operation: %v", st.Spaces)
	}
}

// TestSpaceThatEnds: a certificate for one space that ends takes that space out of a
// session that goes on otherwise, and who writes there is told.
func TestSpaceThatEnds(t *testing.T) {
	t.Parallel()
	dir, _ := initDir(t, "A")
	// The clock of both stands still while stopped is not zero, so that the certificate
	// does not end before what comes first in this test.
	var stopped atomic.Int64
	now := func() time.Time {
		if at := stopped.Load(); at != 0 {
			return time.Unix(0, at)
		}
		return time.Now()
	}
	start := func(dir string) *Node {
		cfg := member(dir)
		cfg.Now = now
		return open(t, cfg)
	}
	a := start(dir)
	if _, err := a.CreateSpace(deadline(t), "notes", false); err != nil {
		t.Fatal(err)
	}
	b := start(joinDir(t, a, "B", InviteOptions{Role: RoleReader, Spaces: []string{"default"}}))
	converge(t, 0, a, b)
	stopped.Store(time.Now().UnixNano())
	if _, err := a.Certify(deadline(t), CertifyOptions{Peer: "B", Role: RoleWriter, Spaces: []string{"notes"}, Valid: 2 * time.Second}); err != nil {
		t.Fatal(err)
	}
	list, err := Backend(a).Members(deadline(t))
	at := slices.IndexFunc(list.Members, func(m localapi.Member) bool { return !m.Self })
	if err != nil || at < 0 || list.Members[at].Expires != nil || len(list.Members[at].RoleEnds) != 1 || list.Members[at].RoleEnds["writer:notes"].IsZero() {
		t.Errorf("which role ends: %+v, %v", list.Members, err)
	}
	note := func() string {
		t.Helper()
		out, err := Backend(b).Write(deadline(t), "notes", localapi.Write{Ops: []localapi.Op{{Op: localapi.OpPut, Key: []byte("own"), Value: []byte("v")}}})
		if err != nil {
			t.Error(err)
		}
		return out.Note
	}
	if _, err := a.Space("notes").Put(deadline(t), "early", []byte("1")); err != nil {
		t.Fatal(err)
	}
	until(t, "B reads the space", func() bool {
		_, err := b.Space("notes").Get(deadline(t), "early")
		return err == nil
	})
	if said := note(); said != "" {
		t.Errorf("while the certificate is valid: %s", said)
	}
	stopped.Store(0)
	key, err := protocols.OriginOf(b.id)
	if err != nil {
		t.Fatal(err)
	}
	until(t, "the certificate ends", func() bool { return !a.members.carries(key, nil)(a.Space("notes").id) })
	until(t, "the session with it", func() bool {
		s := a.mesh.book.live(b.id)
		return s != nil && !s.rights.has(a.Space("notes").id)
	})
	if _, err := a.Space("notes").Put(deadline(t), "late", []byte("2")); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Space("").Put(deadline(t), "other", []byte("3")); err != nil {
		t.Fatal(err)
	}
	until(t, "B reads what goes on", func() bool {
		_, err := b.Space("").Get(deadline(t), "other")
		return err == nil
	})
	if _, err := b.Space("notes").Get(deadline(t), "late"); !errors.Is(err, ErrNotFound) {
		t.Errorf("B reads of the space that ended: %v", err)
	}
	for _, n := range []*Node{a, b} {
		says := map[*Node]string{a: "the peer's certificate", b: "this node's certificate"}[n]
		err := timedOut(t, func(ctx context.Context) error { return n.Wait(ctx, WaitOptions{Synced: true}) }, func(err error) bool {
			return strings.Contains(err.Error(), "is not exchanged")
		})
		wants(t, n.Label()+" waits until all is synced", err, context.DeadlineExceeded, `space "notes" is not exchanged`, says)
		var list []PeerStatus
		until(t, n.Label()+" has compared what goes on", func() bool {
			list, err = n.Peers(deadline(t))
			return err == nil && len(list) == 1 && list[0].State == Connected && list[0].compared()
		})
		if list[0].Settled {
			t.Errorf("%s's peer: %+v", n.Label(), list)
		}
		if sp := list[0].Spaces["notes"]; sp.Settled || !strings.Contains(sp.Why, says) || !list[0].Spaces["default"].Settled {
			t.Errorf("%s's peer: %+v", n.Label(), list[0].Spaces)
		}
		if total, err := APITotals(deadline(t), n); err != nil || !total.Settled || !total.Ended {
			t.Errorf("%s's totals: %+v, %v", n.Label(), total, err)
		}
	}
	if behind, err := a.behind(deadline(t)); behind != "" || err != nil { // a revocation waits for nothing here
		t.Errorf("A is behind: %s, %v", behind, err)
	}
	if said := note(); !strings.Contains(said, "has ended") {
		t.Errorf("a write in it says %q", said)
	}
	if _, err := a.Certify(deadline(t), CertifyOptions{Peer: "B", Role: RoleWriter, Spaces: []string{"notes"}}); err != nil {
		t.Fatal(err)
	}
	for _, n := range []*Node{a, b} {
		if err := n.Wait(deadline(t), WaitOptions{Synced: true}); err != nil {
			t.Errorf("%s after the renewal: %v", n.Label(), err)
		}
	}
}
