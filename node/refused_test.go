package node

import (
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"vixp2p/node/localapi"
	"vixp2p/protocols"
	"vixp2p/replication"
	"vixp2p/trust/keys"
)

// A node that was revoked while it was away, and that nobody tells more than that, goes
// on to write, and is told each time that it is in vain.
func TestWritesOfTheRefusedSaySo(t *testing.T) {
	t.Parallel()
	dir, _ := initDir(t, "A")
	alone := func(dir string) *Node {
		cfg := member(dir)
		cfg.NoConnect = true
		return open(t, cfg)
	}
	a := alone(dir)
	away := joinDir(t, a, "B", InviteOptions{Role: RoleAdmin})
	b := alone(away)
	if _, _, err := b.Connect(deadline(t), a.Addrs()[0]); err != nil {
		t.Fatal(err)
	}
	until(t, "B knows A", func() bool { return b.membershipStatus().Members == 2 })
	closeNow(t, b)
	b = alone(away)
	write := func() localapi.Written {
		t.Helper()
		var durable localapi.Written
		out, err := Backend(b).Write(deadline(t), localapi.DefaultSpace, localapi.Write{
			Ops: []localapi.Op{{Op: localapi.OpPut, Key: []byte("k"), Value: []byte("v")}}, Replicas: 1,
			Durable: func(w localapi.Written) { durable = w }, Timeout: 1,
		})
		if failed, ok := errors.AsType[*localapi.Error](err); !ok || failed.Written == nil || *failed.Written != out || out.Note != "" && strings.Contains(failed.Message, "goes on") || durable.Note != out.Note || out.Seq == 0 {
			t.Fatalf("%+v, before that %+v, %v", out, durable, err)
		}
		return out
	}
	if note := write().Note; note != "" {
		t.Errorf("before: %s", note)
	}
	if _, err := a.Revoke(deadline(t), "B", RevokeOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, _, err := b.Connect(deadline(t), a.Addrs()[0]); err == nil {
		t.Fatal("A lets B in")
	}
	until(t, "B is refused", func() bool { return b.membershipStatus().State == StateRefused })
	last := write()
	if last.Note == "" {
		t.Error("a write says nothing")
	}
	// Of the writes of B nobody has stated that it holds them.
	list, err := b.Untaken(deadline(t))
	if err != nil || len(list) != 1 || list[0] != (UntakenWrites{Space: localapi.DefaultSpace, Log: last.Log, From: 1, Ops: 2}) {
		t.Errorf("not taken: %+v, %v", list, err)
	}
	if st, err := b.Status(deadline(t)); err != nil || !slices.Equal(st.Membership.Untaken, list) {
		t.Errorf("not taken: %+v, %v", st.Membership, err)
	}
	// Whoever reads the log of A knows whom it means.
	shown := b.members.shown.Load()
	_, err = a.members.check(protocols.PeerInfo{Key: shown.Leaf.Subject, Certificate: shown.Encode()})
	wants(t, "B at A", err, replication.ErrRevoked, "peer B (…"+shortID(b.host.ID())+") was revoked in generation 1")
	if protocols.CodeOf(err) != replication.CodeCertRevoked {
		t.Errorf("the code is %v", protocols.CodeOf(err))
	}

	in, err := Backend(b).Invite(deadline(t), localapi.Invite{})
	if err != nil || in.Ticket == "" || in.Note == "" {
		t.Errorf("%+v, %v", in, err)
	}
	declared, err := Backend(b).CreateSpace(deadline(t), localapi.NewSpace{Name: "notes"})
	if err != nil || declared.Note == "" {
		t.Errorf("%+v, %v", declared, err)
	}
	revoked, err := Backend(b).Revoke(deadline(t), localapi.Revoke{Name: in.Invite})
	if err != nil || revoked.Note == "" {
		t.Errorf("%+v, %v", revoked, err)
	}
	made, err := Backend(b).Certify(deadline(t), localapi.Certify{Peer: a.ID(), Role: RoleWriter})
	if err != nil || made.Note == "" {
		t.Errorf("%+v, %v", made, err)
	}

	// It knows that after a restart, until it is let in.
	closeNow(t, b)
	b = alone(away)
	if state := b.membershipStatus().State; state != StateRefused || write().Note == "" {
		t.Errorf("after a restart its state is %q", state)
	}
	closeNow(t, b)
	again, err := a.Invite(deadline(t), InviteOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Join(deadline(t), JoinOptions{Ticket: again.Ticket, DataDir: away}); err != nil {
		t.Fatal(err)
	}
	b = alone(away)
	if state := b.membershipStatus().State; state == StateRefused {
		t.Error("it takes the new certificate for refused too")
	}
	if fileExists(filepath.Join(away, refusedFile)) {
		t.Error("what was said of the old certificate is kept")
	}
}

// Nobody can be a peer whose key is no point of the curve: it is not certified.
func TestCertifyNeedsAKey(t *testing.T) {
	t.Parallel()
	dir, _ := initDir(t, "A")
	a := open(t, Config{DataDir: dir, Offline: true})
	id, err := peerIDOf(replication.OriginKey{2}) // y = 2 is on no point
	if err != nil {
		t.Fatal(err)
	}
	_, err = a.Certify(deadline(t), CertifyOptions{Peer: id.String(), Role: RoleWriter})
	wants(t, "no key", err, ErrInvalid, id.String(), "Ed25519")
	bad := &keys.SubjectError{Subject: replication.OriginKey{2}, Cause: errors.New("why")}
	wants(t, "a member of before", a.members.namingSubject(errors.Join(errors.New("first"), bad)), nil, endOfID(bad.Subject), "revoke it")
}

// What a member stated counts also when it has a new instance since, as after it was
// restored from a copy, and says less.
func TestStatedByEarlierInstances(t *testing.T) {
	t.Parallel()
	n := open(t, Config{DataDir: t.TempDir(), Offline: true})
	log, by := replication.LogID{1}, replication.OriginKey{2}
	err := n.do(deadline(t), func(e *engine) error {
		for i, seq := range []uint64{3, 1} {
			e.store.SaveCursor(by, replication.Instance{byte(i)}, []replication.FrontierEntry{{Log: log, Pos: replication.Position{Seq: seq}}})
		}
		stated, err := statedPositions(e.store)
		if stated[log] != 3 {
			t.Errorf("stated: %v", stated)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// A refusal that was remembered ends with the first session.
func TestRefusalEndsWithASession(t *testing.T) {
	t.Parallel()
	dir, _ := initDir(t, "A")
	a := openMember(t, dir)
	second := joinDir(t, a, "B", InviteOptions{})
	var log logBuffer
	cfg := member(second)
	cfg.Logger = log.logger()
	b := open(t, cfg)
	// The line comes after the session has ended what was remembered; the session is
	// in the book before.
	until(t, "a session", func() bool { return a.mesh.book.live(b.id) != nil && log.has("msg=connected") })
	b.members.refused.set(b.members.shownID())
	closeNow(t, b)
	b = open(t, Config{DataDir: second, Offline: true})
	if !b.isRefused() {
		t.Error("it was not remembered")
	}
	closeNow(t, b)
	b = openMember(t, second)
	until(t, "a session", func() bool { return !b.isRefused() })
	closeNow(t, b)
	if b = open(t, Config{DataDir: second, Offline: true}); b.isRefused() {
		t.Error("it is remembered still")
	}
}
