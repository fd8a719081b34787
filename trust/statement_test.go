package trust

import (
	"bytes"
	"errors"
	"reflect"
	"strings"
	"testing"

	"vixp2p/replication"
	"vixp2p/replication/canonical"
)

// fullStatements are statements with every field, by the name of their vector.
func fullStatements(t testing.TB) map[string]Statement {
	cut := func(log, hash byte, seq uint64) LogCut {
		return LogCut{Log: replication.LogID{log}, Pos: replication.Position{Seq: seq, Hash: replication.Hash{hash}}}
	}
	return map[string]Statement{
		"cert_admin":  adminCertificate(t),
		"cert_member": sign(t, fullCertificate(), adminKey),
		"cert_small":  sign(t, Certificate{Network: testNetwork, Subject: keyOf(peerKey), Generation: 1, Grants: []Grant{{Role: RoleRelay}}, Serial: Serial{7}}, rootKey),
		"invite": &Invite{
			Public: keyOf(inviteKeyPair), Grants: []Grant{{Role: RoleReader}, {Space: testSpace, Role: RoleWriter}},
			Label: "phone", Expires: 1_800_000_000, Validity: 31_536_000,
		},
		"invite_small": &Invite{Public: keyOf(inviteKeyPair), Grants: []Grant{{Role: RoleWriter}}},
		"revoke": &Revocation{Subject: keyOf(peerKey), Generation: 2, Version: 3, Cuts: []SpaceCut{
			{Space: replication.SpaceID{1}, Logs: []LogCut{cut(1, 0xa, 7), cut(2, 0xb, 1<<40)}},
			{Space: replication.SpaceID{2}},
		}},
		"revoke_invite":   &Revocation{Subject: keyOf(inviteKeyPair), Version: 1},
		"space":           &SpaceStatement{Name: "notes"},
		"space_encrypted": &SpaceStatement{Name: "Tagebuch, geheim", Encrypted: true},
		"network":         &NetworkStatement{Name: "home", Version: 1},
		"keys": &KeysStatement{Space: testSpace, ID: [32]byte{3}, Generation: 4, Wraps: []Wrap{
			{Recipient: [32]byte{1}, Sealed: []byte("sealed for one")}, {Recipient: [32]byte{2}, Sealed: []byte("sealed for two")},
		}},
	}
}

func TestStatementRoundTrip(t *testing.T) {
	for name, s := range fullStatements(t) {
		t.Run(name, func(t *testing.T) {
			op, err := Op(s)
			if err != nil {
				t.Fatal(err)
			}
			got, err := Decode(&op)
			if err != nil || !reflect.DeepEqual(got, s) {
				t.Fatalf("%+v (%v), want %+v", got, err, s)
			}
			if !bytes.Equal(got.Encode(), op.Payload) {
				t.Error("it is encoded otherwise")
			}
			later := op
			later.Payload = join(op.Payload, by(64, "later"))
			if _, err := Decode(&later); err != nil {
				t.Errorf("a field of a later version: %v", err)
			}
			later.Payload = join(op.Payload, vi(63, 1))
			_, err = Decode(&later)
			wantInvalid(t, err, "field 63 is not known")
		})
	}
}

// TestNotStatements: what has nothing to say here.
func TestNotStatements(t *testing.T) {
	good, err := Op(&SpaceStatement{Name: "notes"})
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*replication.Op){
		"another name":    func(o *replication.Op) { o.Name = "chat" },
		"a later version": func(o *replication.Op) { o.Name = "vix/space2" },
		"a put":           func(o *replication.Op) { o.Kind, o.Name, o.Key = replication.KindPut, "", []byte("k") },
		"with a key":      func(o *replication.Op) { o.Key = []byte("k") },
	} {
		op := good
		change(&op)
		if s, err := Decode(&op); !errors.Is(err, ErrNotStatement) || s != nil {
			t.Errorf("%s: %v %v", name, s, err)
		}
	}
	bad := good
	bad.Payload = []byte{1}
	if s, err := Decode(&bad); s != nil || err == nil {
		t.Errorf("void: %v %v", s, err)
	}
	if _, err := Op(&Certificate{}); err == nil {
		t.Error("a certificate that nobody signed becomes an operation")
	}
	c := fullCertificate()
	c.Issuer = keyOf(adminKey)
	if _, err := Op(&c); !errors.Is(err, ErrNoCertificate) {
		t.Errorf("a certificate that nobody signed becomes an operation (%v)", err)
	}
}

// TestStatementRules breaks each rule of a payload.
func TestStatementRules(t *testing.T) {
	id := func(n byte) string { return string(bytes.Repeat([]byte{n}, 32)) }
	sp := func(n byte) string { return string(bytes.Repeat([]byte{n}, 16)) }
	zero := strings.Repeat("\x00", 32)
	grant := string(vi(gRole, 2))
	logCut := func(n byte) string { return string(join(by(1, id(n)), vi(2, 7), by(3, id(9)))) }
	spaceCut := func(n byte, logs ...string) string {
		b := by(1, sp(n))
		for _, l := range logs {
			b = append(b, by(2, l)...)
		}
		return string(b)
	}
	wrap := func(n byte) string { return string(join(by(1, id(n)), by(2, "sealed"))) }
	keys := join(by(1, sp(1)), by(2, id(2)), vi(3, 1))
	var manyLogs, manyWraps [][]byte
	for i := range MaxCutLogs + 1 {
		l := replication.LogID{1, byte(i >> 8), byte(i)}
		manyLogs = append(manyLogs, by(2, string(join(by(1, string(l[:])), vi(2, 1), by(3, id(1))))))
	}
	for i := range MaxWraps + 1 {
		r := [32]byte{1, byte(i >> 8), byte(i)}
		manyWraps = append(manyWraps, by(4, string(join(by(1, string(r[:])), by(2, "s")))))
	}
	revoke := join(by(1, id(1)), vi(2, 1), vi(3, 1))
	for _, tc := range []struct {
		name, op string
		payload  []byte
		want     string // empty: valid
	}{
		{"invite", nameInvite, join(by(1, id(1)), by(2, grant)), ""},
		{"invite without a key", nameInvite, by(2, grant), "field 1 is missing"},
		{"invite with a zero key", nameInvite, join(by(1, zero), by(2, grant)), "all zero"},
		{"invite to nothing", nameInvite, by(1, id(1)), "field 2 is missing"},
		{"invite with grants out of order", nameInvite, join(by(1, id(1)), by(2, string(vi(gRole, 3))), by(2, grant)), "ascending"},
		{"invite with a bad label", nameInvite, join(by(1, id(1)), by(2, grant), by(3, "\x07")), "U+0007"},
		{"invite that ends too late", nameInvite, join(by(1, id(1)), by(2, grant), vi(4, maxTime+1)), "more than"},
		{"invite with a validity too long", nameInvite, join(by(1, id(1)), by(2, grant), vi(5, maxTime+1)), "more than"},

		{"revocation", nameRevocation, join(revoke, by(4, spaceCut(1, logCut(1), logCut(2))), by(4, spaceCut(2))), ""},
		{"revocation without a subject", nameRevocation, join(vi(2, 1), vi(3, 1)), "field 1 is missing"},
		{"revocation without a version", nameRevocation, join(by(1, id(1)), vi(2, 1)), "field 3 is missing"},
		{"revocation of an invite with cuts", nameRevocation, join(by(1, id(1)), vi(3, 1), by(4, spaceCut(1))), "has cuts"},
		{"spaces out of order", nameRevocation, join(revoke, by(4, spaceCut(2)), by(4, spaceCut(1))), "ascending"},
		{"space twice", nameRevocation, join(revoke, by(4, spaceCut(1)), by(4, spaceCut(1))), "ascending"},
		{"zero space", nameRevocation, join(revoke, by(4, spaceCut(0))), "all zero"},
		{"empty cut", nameRevocation, join(revoke, by(4, "")), "field 1 is missing"},
		{"logs out of order", nameRevocation, join(revoke, by(4, spaceCut(1, logCut(2), logCut(1)))), "ascending"},
		{"log twice", nameRevocation, join(revoke, by(4, spaceCut(1, logCut(1), logCut(1)))), "ascending"},
		{"cut without a seq", nameRevocation, join(revoke, by(4, spaceCut(1, string(join(by(1, id(1)), by(3, id(1))))))), "field 2 is missing"},
		{"cut without a hash", nameRevocation, join(revoke, by(4, spaceCut(1, string(join(by(1, id(1)), vi(2, 1)))))), "field 3 is missing"},
		{"as many logs as may be", nameRevocation, join(revoke, by(4, string(join(by(1, sp(1)), join(manyLogs[1:]...))))), ""},
		{"too many logs", nameRevocation, join(revoke, by(4, string(join(by(1, sp(1)), join(manyLogs...))))), "more than 8192 logs"},
		{"too many logs in two spaces", nameRevocation, join(revoke, by(4, string(join(by(1, sp(1)), join(manyLogs[1:]...)))), by(4, spaceCut(2, logCut(1)))), "more than 8192 logs"},

		{"space", nameSpace, join(by(1, "notes"), vi(2, 1)), ""},
		{"space without a name", nameSpace, vi(2, 1), "field 1 is missing"},
		{"space encrypted twice over", nameSpace, join(by(1, "notes"), vi(2, 2)), "more than 1"},
		{"reserved space", nameSpace, by(1, "vix/control"), "reserved"},
		{"space name too long", nameSpace, by(1, strings.Repeat("x", 129)), "more than 128"},
		{"space name with a line end", nameSpace, by(1, "a\nb"), "U+000A"},

		{"network", nameNetwork, join(by(1, "home"), vi(2, 1)), ""},
		{"network without a version", nameNetwork, by(1, "home"), "field 2 is missing"},
		{"network without a name", nameNetwork, vi(2, 1), "field 1 is missing"},
		{"network name too long", nameNetwork, join(by(1, strings.Repeat("x", 65)), vi(2, 1)), "more than 64"},

		{"keys", nameKeys, join(keys, by(4, wrap(1)), by(4, wrap(2))), ""},
		{"keys for nobody", nameKeys, keys, "field 4 is missing"},
		{"keys without a space", nameKeys, join(by(2, id(2)), vi(3, 1), by(4, wrap(1))), "field 1 is missing"},
		{"recipients out of order", nameKeys, join(keys, by(4, wrap(2)), by(4, wrap(1))), "ascending"},
		{"recipient twice", nameKeys, join(keys, by(4, wrap(1)), by(4, wrap(1))), "ascending"},
		{"nothing sealed", nameKeys, join(keys, by(4, string(by(1, id(1))))), "field 2 is missing"},
		{"too much sealed", nameKeys, join(keys, by(4, string(join(by(1, id(1)), by(2, strings.Repeat("x", MaxSealed+1)))))), "more than 256"},
		{"as many keys as may be", nameKeys, join(keys, join(manyWraps[1:]...)), ""},
		{"too many keys", nameKeys, join(keys, join(manyWraps...)), "more than 1024"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s, err := Decode(&replication.Op{Kind: replication.KindApp, Name: tc.op, Payload: tc.payload})
			if tc.want != "" {
				wantInvalid(t, err, tc.want)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(s.Encode(), tc.payload) {
				t.Errorf("%x is encoded as %x", tc.payload, s.Encode())
			}
		})
	}
}

// TestOpRefusesWhatDecodeWould: nothing is written that others void.
func TestOpRefusesWhatDecodeWould(t *testing.T) {
	full := fullStatements(t)
	changed := func(name string, change func(Statement)) Statement {
		s := full[name]
		change(s)
		return s
	}
	for name, s := range map[string]Statement{
		"invite": changed("invite", func(s Statement) { s.(*Invite).Expires = -1 }),
		"revoke": changed("revoke", func(s Statement) {
			r := s.(*Revocation)
			r.Cuts[0], r.Cuts[1] = r.Cuts[1], r.Cuts[0]
		}),
		"revoke log":     &Revocation{Subject: keyOf(peerKey), Generation: 1, Version: 1, Cuts: []SpaceCut{{Space: testSpace, Logs: make([]LogCut, 1)}}},
		"revoke spaces":  &Revocation{Subject: keyOf(peerKey), Generation: 1, Version: 1, Cuts: make([]SpaceCut, MaxCutSpaces+1)},
		"space":          changed("space", func(s Statement) { s.(*SpaceStatement).Name = "vix/x" }),
		"no space name":  &SpaceStatement{},
		"default sealed": &SpaceStatement{Name: "default", Encrypted: true},
		"network":        changed("network", func(s Statement) { s.(*NetworkStatement).Version = 0 }),
		"keys":           changed("keys", func(s Statement) { s.(*KeysStatement).Wraps = nil }),
		"sealed":         &KeysStatement{Space: testSpace, ID: [32]byte{1}, Generation: 1, Wraps: []Wrap{{Recipient: [32]byte{1}}}},
	} {
		if _, err := Op(s); !errors.Is(err, canonical.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestLargestStatementsFitABlock: whatever may be said can be written.
func TestLargestStatementsFitABlock(t *testing.T) {
	r := &Revocation{Subject: keyOf(peerKey), Generation: 1<<64 - 1, Version: 1<<64 - 1}
	left := MaxCutLogs
	for i := range MaxCutSpaces {
		sc := SpaceCut{Space: replication.SpaceID{1, byte(i >> 8), byte(i)}}
		for k := range min(left, MaxCutLogs/MaxCutSpaces) {
			sc.Logs = append(sc.Logs, LogCut{Log: replication.LogID{1, byte(k >> 8), byte(k)}, Pos: replication.Position{Seq: 1<<64 - 1, Hash: replication.Hash{1}}})
		}
		left -= len(sc.Logs)
		r.Cuts = append(r.Cuts, sc)
	}
	k := &KeysStatement{Space: testSpace, ID: [32]byte{1}, Generation: 1<<64 - 1}
	for i := range MaxWraps {
		k.Wraps = append(k.Wraps, Wrap{Recipient: [32]byte{1, byte(i >> 8), byte(i)}, Sealed: make([]byte, MaxSealed)})
	}
	for _, s := range []Statement{r, k} {
		op, err := Op(s)
		if err != nil {
			t.Fatal(err)
		}
		if n := replication.OpSize(&op); n > replication.MaxRawBody {
			t.Errorf("a %T of %d bytes does not fit a block", s, n)
		}
		if _, err := Decode(&op); err != nil {
			t.Error(err)
		}
	}
}

// TestRevoke: the highest of what nodes state is kept, in the listed spaces.
func TestRevoke(t *testing.T) {
	a, b, c := replication.SpaceID{1}, replication.SpaceID{2}, replication.SpaceID{3}
	at := func(seq uint64, hash byte) replication.Position {
		return replication.Position{Seq: seq, Hash: replication.Hash{hash}}
	}
	l1, l2 := replication.LogID{1}, replication.LogID{2}
	r, lost := Revoke(keyOf(peerKey), 2, 5, []replication.SpaceID{b, a, b}, []Held{
		{a, l2, at(3, 1)}, {a, l1, at(4, 2)}, {a, l2, at(9, 1)}, {a, l2, at(5, 1)},
		{a, l1, at(4, 1)},                           // another branch: all choose the same
		{c, l1, at(1, 1)},                           // not listed
		{b, l1, replication.Position{}},             // nothing of it
		{b, l2, replication.Position{Seq: 1}},       // no position
		{a, replication.LogID{3}, at(0, 1)},         // no position
		{a, replication.LogID{4}, at(1<<64-1, 255)}, // the highest there is
	})
	want := &Revocation{Subject: keyOf(peerKey), Generation: 2, Version: 5, Cuts: []SpaceCut{
		{Space: a, Logs: []LogCut{{l1, at(4, 1)}, {l2, at(9, 1)}, {replication.LogID{4}, at(1<<64-1, 255)}}},
		{Space: b},
	}}
	if !reflect.DeepEqual(r, want) || len(lost) != 0 {
		t.Errorf("%+v, lost %v", r, lost)
	}
	if _, err := Op(r); err != nil {
		t.Error(err)
	}
}

// TestRevokeWithTooManyLogs: who wrote a great many logs is revoked all the same,
// and the shortest of its logs are lost.
func TestRevokeWithTooManyLogs(t *testing.T) {
	var held []Held
	for i := range MaxCutLogs + 3 {
		log := replication.LogID{1, byte(i >> 8), byte(i)}
		held = append(held, Held{testSpace, log, replication.Position{Seq: uint64(i) + 1, Hash: replication.Hash{1}}})
	}
	r, lost := Revoke(keyOf(peerKey), 1, 1, []replication.SpaceID{testSpace}, held)
	if len(r.Cuts[0].Logs) != MaxCutLogs || len(lost) != 3 {
		t.Fatalf("%d logs, %d lost", len(r.Cuts[0].Logs), len(lost))
	}
	for _, h := range lost {
		if h.Pos.Seq > 3 {
			t.Errorf("a log of %d operations is lost", h.Pos.Seq)
		}
	}
	if _, err := Op(r); err != nil {
		t.Error(err)
	}
}

// TestMergeOfRevocations: commutative, associative, idempotent, and what it says.
func TestMergeOfRevocations(t *testing.T) {
	rev := func(version uint64, cuts ...SpaceCut) *Revocation {
		return &Revocation{Subject: keyOf(peerKey), Generation: 1, Version: version, Cuts: cuts}
	}
	in := func(space byte, seqs ...uint64) SpaceCut { // log i at seqs[i], 0: not listed
		sc := SpaceCut{Space: replication.SpaceID{space}}
		for i, seq := range seqs {
			if seq > 0 {
				sc.Logs = append(sc.Logs, LogCut{replication.LogID{byte(i + 1)}, replication.Position{Seq: seq, Hash: replication.Hash{1}}})
			}
		}
		return sc
	}
	for _, tc := range []struct {
		name       string
		a, b, want *Revocation
	}{
		{"the higher version wins, also upwards", rev(1, in(1, 3)), rev(2, in(1, 9)), rev(2, in(1, 9))},
		{"nothing", nil, rev(1, in(1, 3)), rev(1, in(1, 3))},
		{"the lower seq", rev(1, in(1, 3, 8)), rev(1, in(1, 5, 7)), rev(1, in(1, 3, 7))},
		{"a log in one alone", rev(1, in(1, 3, 8)), rev(1, in(1, 5)), rev(1, in(1, 3))},
		{"a space in one alone", rev(1, in(1, 3), in(3, 4)), rev(1, in(2, 5), in(3, 6)), rev(1, in(1, 3), in(2, 5), in(3, 4))},
		{"a space without logs", rev(1, in(1, 3)), rev(1, in(1)), rev(1, in(1))},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for _, got := range []*Revocation{tc.a.merge(tc.b), tc.b.merge(tc.a), tc.a.merge(tc.b).merge(tc.b), tc.a.merge(tc.b.merge(tc.a))} {
				if !reflect.DeepEqual(got, tc.want) {
					t.Errorf("got %+v, want %+v", got, tc.want)
				}
			}
		})
	}
}
