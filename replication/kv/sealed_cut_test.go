package kv

import (
	"testing"

	"vixp2p/replication"
	"vixp2p/replication/logtest"
)

// A block that waits for a key which nobody has holds its space up; a cut before it
// lets the space go on.
func TestCutEndsTheWait(t *testing.T) {
	key, keys := logtest.ContentKey(1), &logtest.Keys{}
	keys.Encrypt(testSpace, key)
	s, good, bad := newStore(t, 1), newAuthor(2, 1), newAuthor(3, 1)
	v := openSealedView(t, s, tempDir(t), keys)
	bad.sealedBlock(t, s, key, "before", "1")
	cut := cutAt(replication.Position{Seq: 1, Hash: bad.prev})
	bad.sealedBlock(t, s, logtest.ContentKey(66), "bad", "2")
	good.sealedBlock(t, s, key, "after", "3")
	_ = stopsWith(t, v, replication.ErrNoKey)
	restrict(t, s, limits{bad.log: cut})
	settled(t, s, v)
	wantValue(t, v, "before", "1")
	wantValue(t, v, "bad", "")
	wantValue(t, v, "after", "3")
	if st := v.Stats(testSpace); st.Err != nil || st.Generation != 1 {
		t.Errorf("%+v", st)
	}
}

// What a cut takes from an encrypted space is worked out from opened bodies.
func TestRetreatSealed(t *testing.T) {
	key, keys := logtest.ContentKey(1), &logtest.Keys{}
	keys.Encrypt(testSpace, key)
	s, a, b := newStore(t, 1), newAuthor(2, 1), newAuthor(3, 1)
	v := openSealedView(t, s, tempDir(t), keys)
	a.sealedBlock(t, s, key, "k", "1")
	cut := cutAt(replication.Position{Seq: 1, Hash: a.prev})
	a.sealedBlock(t, s, key, "k", "2")
	a.sealedBlock(t, s, key, "l", "3")
	b.sealedBlock(t, s, key, "m", "4")
	settled(t, s, v)
	wantValue(t, v, "k", "2")
	restrict(t, s, limits{a.log: cut})
	settled(t, s, v)
	wantValue(t, v, "k", "1")
	wantValue(t, v, "l", "")
	wantValue(t, v, "m", "4")
	if err := v.Verify(testContext(t), VerifyOptions{Deep: true}, func(f replication.Finding) { t.Errorf("verify: %+v", f) }); err != nil {
		t.Error(err)
	}
}
