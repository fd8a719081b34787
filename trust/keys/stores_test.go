package keys

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"vixp2p/replication"
	"vixp2p/replication/kv"
	"vixp2p/replication/wal"
	"vixp2p/trust"
)

// machine is a person's node: a store on disk and a view over it.
type machine struct {
	*person
	t     *testing.T
	w     *world
	dir   string
	store *wal.Store
	view  *kv.View
}

func (w *world) machine(t *testing.T, p *person) *machine {
	m := &machine{person: p, t: t, w: w, dir: t.TempDir()}
	t.Cleanup(m.close)
	var err error
	if m.store, err = wal.Open(wal.Options{
		Dir: filepath.Join(m.dir, "log"), Network: w.network, Key: p.key, Sealer: p.ring, Relaxed: true, ReserveBytes: -1,
	}); err != nil {
		t.Fatal(err)
	}
	if m.view, err = kv.Open(kv.Options{Dir: filepath.Join(m.dir, "view"), Store: m.store, Opener: p.ring, ReserveBytes: -1}); err != nil {
		t.Fatal(err)
	}
	return m
}

func (m *machine) close() {
	if m.view != nil {
		if err := errors.Join(m.view.Close(), m.store.Close()); err != nil {
			m.t.Error(err)
		}
	}
	m.view, m.store = nil, nil
}

// learn takes up what the control logs say.
func (m *machine) learn() {
	if m.ring.Update(m.w.state(), now) {
		m.view.KeysChanged()
	}
}

func (m *machine) put(key, value string) error {
	ctx := deadline(m.t)
	if err := m.view.Admit(ctx, m.w.secret); err != nil {
		return err
	}
	op := replication.Op{Kind: replication.KindPut, Key: []byte(key), Payload: []byte(value)}
	_, err := m.store.Append(ctx, replication.Batch{Space: m.w.secret, Ops: []replication.Op{op}, Resolver: m.view})
	return err
}

// get reads a key when all that is held is applied.
func (m *machine) get(key string) (string, error) {
	ctx := deadline(m.t)
	if err := m.view.WaitApplied(ctx, m.w.secret, m.store.Head()); err != nil {
		return "", err
	}
	e, _, err := m.view.Get(ctx, m.w.secret, []byte(key))
	return string(e.Value), err
}

// fetch takes all logs of the secret space from another machine, as it would from a
// peer.
func (m *machine) fetch(from *machine) {
	m.t.Helper()
	for _, l := range from.store.Logs(m.w.secret) {
		for {
			held, _ := m.store.Log(l.Log)
			run, err := from.store.ReadRun(l.Log, held.Tip, 1<<20)
			if err != nil {
				m.t.Fatal(err)
			}
			if len(run.Data) == 0 {
				break
			}
			checked, err := replication.VerifyRun(replication.RunSource{
				Network: m.w.network, Log: l.Log, Origin: &l.Origin, Space: l.Space, From: run.From,
			}, run.Data)
			if err != nil {
				m.t.Fatal(err)
			}
			done := make(chan replication.IngestResult, 1)
			m.store.Ingest(1, checked, func(r replication.IngestResult) { done <- r })
			if r := <-done; r.Err != nil {
				m.t.Fatal(r.Err)
			}
		}
	}
}

func deadline(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// waiting tells what the view of the secret space waits for, once it has looked.
func (m *machine) waiting() error {
	for ctx := deadline(m.t); ctx.Err() == nil; time.Sleep(time.Millisecond) {
		if err := m.view.Stats(m.w.secret).Err; err != nil {
			return err
		}
	}
	return nil
}

// holds tells whether bytes stand in any file of a machine's directory.
func holds(t *testing.T, dir, what string) (found bool) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		found = found || bytes.Contains(b, []byte(what))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// What is written in an encrypted space passes through a relay that keeps it and
// cannot read it; readers read it, those that come late too; and one that is revoked
// reads nothing that is written from then on.
func TestThroughARelay(t *testing.T) {
	const key, first, second = "the key of the secret", "the first plain text", "the second plain text"
	w := newWorld(t)
	admin := w.admit("admin", trust.RoleAdmin)
	w.declare()
	writer := w.machine(t, w.admit("writer", trust.RoleWriter))
	relay := w.machine(t, w.admit("relay", trust.RoleRelay))
	reader := w.machine(t, w.admit("reader", trust.RoleReader))
	late := w.machine(t, w.admit("late", trust.RoleReader))
	all := []*machine{writer, relay, reader, late}

	writer.learn()
	if err := writer.put(key, first); !errors.Is(err, replication.ErrNoKey) {
		t.Fatalf("a write before there is a key: %v", err)
	}
	w.settle(admin)
	for _, m := range all[:3] {
		m.learn()
	}
	if err := writer.put(key, first); err != nil {
		t.Fatal(err)
	}
	relay.fetch(writer)
	reader.fetch(relay)
	late.fetch(relay)
	if got, err := reader.get(key); got != first || err != nil {
		t.Errorf("the reader has %q, %v", got, err)
	}
	if _, err := relay.get(key); !errors.Is(err, replication.ErrNotReader) || !errors.Is(relay.waiting(), replication.ErrNotReader) {
		t.Errorf("the relay: %v", err)
	}
	// The blocks have come before the control logs.
	if err := late.waiting(); !errors.Is(err, replication.ErrNoKey) {
		t.Errorf("the late reader waits for %v", err)
	}

	w.revoke(admin, reader.person)
	w.settle(admin)
	for _, m := range all {
		m.learn()
	}
	if err := writer.put(key, second); err != nil {
		t.Fatal(err)
	}
	if err := relay.put(key, "relays do not write"); err == nil {
		t.Error("the relay wrote: it has no key")
	}
	relay.fetch(writer)
	reader.fetch(relay) // nobody would send it to him; he may have stolen it
	late.fetch(relay)
	if got, err := late.get(key); got != second || err != nil {
		t.Errorf("the late reader has %q, %v", got, err)
	}
	if _, err := reader.get(key); !errors.Is(err, replication.ErrNotReader) {
		t.Errorf("the revoked reader: %v", err)
	}
	for _, m := range all {
		m.close()
	}
	for _, text := range []string{key, first, second} {
		if holds(t, relay.dir, text) {
			t.Errorf("%q stands in the relay's files", text)
		}
		if holds(t, filepath.Join(writer.dir, "log"), text) {
			t.Errorf("%q stands in the writer's log", text)
		}
	}
	if holds(t, reader.dir, second) {
		t.Error("the revoked reader has what was written after its revocation")
	}
	if !holds(t, filepath.Join(late.dir, "view"), second) {
		t.Error("the search finds nothing where there is something: the reader's view")
	}
}
