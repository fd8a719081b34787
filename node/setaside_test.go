package node

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"strings"
	"testing"

	"vixp2p/node/localapi"
	"vixp2p/replication"
	"vixp2p/replication/logtest"
)

// TestSetAsideIsTold: what a revocation took out of view is told with whose it is, how
// much, and until when it is kept, and can be read, from a running node and from the
// directory of one that was stopped; of an encrypted space too.
func TestSetAsideIsTold(t *testing.T) {
	t.Parallel()
	dir, _ := initDir(t, "A")
	a := openMember(t, dir)
	if _, err := a.CreateSpace(deadline(t), "secret", true); err != nil {
		t.Fatal(err)
	}
	of, other := joinDir(t, a, "B", InviteOptions{}), joinDir(t, a, "X", InviteOptions{Role: RoleAdmin})
	x := openMember(t, other)
	until(t, "X knows everybody", func() bool { return x.membershipStatus().Members == 3 })
	closeNow(t, x)
	b := openMember(t, of)
	noise := make([]byte, tailBytes*2/3)
	if _, err := rand.Read(noise); err != nil {
		t.Fatal(err)
	}
	large := base64.StdEncoding.EncodeToString(noise) // hardly packs
	for _, key := range []string{"1", "2", "3"} {     // more than is read at a time
		put(t, b, key, large)
	}
	until(t, "B may write in the encrypted space", func() bool {
		_, err := b.Space("secret").Put(deadline(t), "s", []byte("hidden"))
		return err == nil
	})
	converge(t, 3, a, b)
	until(t, "A has the write in the encrypted space", func() bool {
		_, err := a.Space("secret").Get(deadline(t), "s")
		return err == nil
	})
	closeNow(t, b)
	if list, err := a.SetAside(deadline(t)); err != nil || len(list) != 0 {
		t.Errorf("before: %+v, %v", list, err)
	}
	x = open(t, Config{DataDir: other, Offline: true})
	if _, err := x.Revoke(deadline(t), "B", RevokeOptions{}); err != nil { // X holds none of it
		t.Fatal(err)
	}
	closeNow(t, x)
	openMember(t, other)
	until(t, "A has heard of it", func() bool {
		list, err := a.SetAside(deadline(t))
		return err == nil && len(list) >= 2
	})

	check := func(n *Node) {
		t.Helper()
		var of []localapi.SetAside
		list, err := Backend(n).Members(deadline(t))
		for _, m := range list.Members {
			if m.PeerID == b.ID() {
				of = m.SetAside
			} else if len(m.SetAside) > 0 {
				t.Errorf("of another member: %+v", m)
			}
		}
		if err != nil || len(of) != 2 || of[0].Space != localapi.DefaultSpace || of[0].Ops != 3 || of[0].Logs != 1 || of[1].Space != "secret" || of[1].Ops != 1 {
			t.Fatalf("of B: %+v, %v", of, err)
		}
		if d := of[0].Until.Sub(of[0].Since.Time); d != replication.SetAsideFor || of[0].Since.IsZero() {
			t.Errorf("kept for %s since %s", d, of[0].Since)
		}
		st, err := n.Status(deadline(t))
		if sp := st.Spaces[localapi.DefaultSpace]; err != nil || sp.SetAside != 3 || sp.Ops != 0 {
			t.Errorf("status: %+v, %v", sp, err)
		}
		read := func(space string, count int) (keys, values []string) {
			err := Backend(n).Tail(deadline(t), space, localapi.Tail{SetAside: true, Count: count}, func(r localapi.Record) error {
				keys, values = append(keys, r.Key.String()), append(values, r.Payload.String())
				if r.Origin != b.ID() || r.Seq != uint64(len(keys)) || r.Since == nil || r.Until == nil || r.Cursor != "" || r.Kind.String() != localapi.KindPut {
					t.Errorf("%d: %+v", len(keys), r.Version)
				}
				return nil
			})
			if err != nil {
				t.Errorf("reading %s: %v", space, err)
			}
			return keys, values
		}
		if keys, values := read(localapi.DefaultSpace, 0); strings.Join(keys, "") != "123" || len(values) != 3 || values[2] != large {
			t.Errorf("keys %q", keys)
		}
		if keys, _ := read(localapi.DefaultSpace, 2); len(keys) != 2 {
			t.Errorf("two of them: %q", keys)
		}
		if _, values := read("secret", 0); strings.Join(values, "") != "hidden" {
			t.Errorf("of the encrypted space: %q", values)
		}
	}
	check(a)
	closeNow(t, a)
	check(open(t, Config{DataDir: dir, Offline: true}))
}

// TestSetAsideSealed: what is set aside and sealed with a key that is not here is left
// out and told at the end.
func TestSetAsideSealed(t *testing.T) {
	n := offline(t)
	s, e, keys := n.Space(""), n.engines.get(), &logtest.Keys{}
	e.opener = keys
	first, second := logtest.ContentKey(1), logtest.ContentKey(2)
	keys.Encrypt(s.id, first)
	sealedPut(t, e, s.id, 1, first.Seal, "1")
	sealedPut(t, e, s.id, 2, second.Seal, "2")
	sealedPut(t, e, s.id, 3, first.Seal, "3")
	nothing := func(*replication.Genesis) replication.LogLimit {
		return replication.LogLimit{Err: replication.ErrNotAllowed}
	}
	if err := e.store.Restrict(deadline(t), nothing); err != nil {
		t.Fatal(err)
	}
	read := func() (n int, err error) {
		for op, failed := range s.SetAside(deadline(t)) {
			if failed != nil {
				return n, failed
			}
			if op.Since.IsZero() || op.Origin == "" {
				t.Errorf("%+v", op)
			}
			n++
		}
		return n, nil
	}
	got, err := read()
	if got != 2 || !errors.Is(err, ErrNoKey) || !strings.Contains(err.Error(), "1 of the operations") {
		t.Errorf("without a key: %d, %v", got, err)
	}
	keys.Encrypt(s.id, first, second)
	if got, err = read(); got != 3 || err != nil {
		t.Errorf("with all keys: %d, %v", got, err)
	}
}
