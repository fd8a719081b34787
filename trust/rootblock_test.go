package trust

import (
	"crypto/ed25519"
	"errors"
	"reflect"
	"strings"
	"testing"

	"vixp2p/replication"
)

// TestRootBlock: what the root states is a run like any other, and two of them are
// two logs.
func TestRootBlock(t *testing.T) {
	root := rootKey.Public().(ed25519.PublicKey)
	first := []Statement{adminCertificate(t), &NetworkStatement{Name: "home", Version: 1}}
	second := []Statement{&SpaceStatement{Name: "notes", Encrypted: true}}
	var logs []ControlLog
	for i, statements := range [][]Statement{first, second} {
		raw, log, err := RootBlock(rootKey, statements, replication.HLC(1_700_000_000_000<<16), replication.Epoch{byte(i + 1)})
		if err != nil {
			t.Fatal(err)
		}
		run, err := replication.VerifyRun(replication.RunSource{Network: testNetwork, Log: log, Space: ControlSpace(testNetwork)}, raw)
		if err != nil {
			t.Fatal(err)
		}
		if run.Origin != keyOf(rootKey) || len(run.Blocks) != 1 || len(run.Genesis().Grant) != 0 {
			t.Errorf("%+v", run)
		}
		b := run.Blocks[0]
		ops, err := replication.DecodeBody(b.Header, b.Body)
		if err != nil {
			t.Fatal(err)
		}
		block := BlockOf(b.Header.LastSeq(), ops)
		if block.End != uint64(len(statements)) || !reflect.DeepEqual(block.Statements, statements) {
			t.Errorf("%+v, want %+v", block, statements)
		}
		logs = append(logs, ControlLog{Log: log, Origin: run.Origin, Grant: run.Genesis().Grant, Blocks: []ControlBlock{block}})
	}
	if logs[0].Log == logs[1].Log {
		t.Error("two blocks of the root are one log")
	}
	s := Evaluate(root, logs)
	if m, ok := s.Member(keyOf(adminKey)); !ok || !m.Certificates[0].IsAdmin() || s.NetworkName() != "home" || len(s.Spaces()) != 1 {
		t.Errorf("%+v", m)
	}
	if s.Network() != testNetwork || s.Root() != keyOf(rootKey) || s.Control() != ControlSpace(testNetwork) {
		t.Error("another network")
	}
}

func TestRootBlockRefuses(t *testing.T) {
	for name, tc := range map[string]struct {
		statements []Statement
		want       error
	}{
		"nothing":  {nil, nil},
		"void":     {[]Statement{&SpaceStatement{Name: "vix/control"}}, replication.ErrInvalid},
		"too many": {make([]Statement, replication.MaxOpsPerBlock+1), nil},
	} {
		_, _, err := RootBlock(rootKey, tc.statements, 1, replication.Epoch{1})
		if err == nil || tc.want != nil && !errors.Is(err, tc.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	k := &KeysStatement{Space: testSpace, ID: [32]byte{1}, Generation: 1}
	for i := range MaxWraps {
		k.Wraps = append(k.Wraps, Wrap{Recipient: [32]byte{1, byte(i >> 8), byte(i)}, Sealed: []byte(strings.Repeat("x", MaxSealed))})
	}
	_, _, err := RootBlock(rootKey, []Statement{k, k, k, k}, 1, replication.Epoch{1})
	if !errors.Is(err, replication.ErrTooLarge) {
		t.Errorf("too much: %v", err)
	}
}
