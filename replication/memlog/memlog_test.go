package memlog_test

import (
	"context"
	"crypto/ed25519"
	"errors"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"
	"time"

	"vixp2p/replication"
	"vixp2p/replication/compress"
	"vixp2p/replication/logtest"
	"vixp2p/replication/memlog"
)

var network = replication.OpenNetwork("dev")

func space(name string) replication.SpaceID { return replication.SpaceOf(network, name) }

// open opens a store whose randomness comes from seed.
func open(t *testing.T, d *memlog.Disk, seed byte, manual bool) *memlog.Store {
	t.Helper()
	s, err := memlog.Open(memlog.Options{
		Network: network,
		Key:     ed25519.NewKeyFromSeed(make([]byte, 32)),
		Now:     func() time.Time { return time.UnixMilli(1_700_000_000_000) },
		Rand:    rand.NewChaCha8([32]byte{seed}),
		Manual:  manual,
		Disk:    d,
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func put(key, value string) replication.Op {
	return replication.Op{Kind: replication.KindPut, Key: []byte(key), Payload: []byte(value)}
}

func batch(ops ...replication.Op) replication.Batch {
	return replication.Batch{Space: space(replication.DefaultSpace), Ops: ops}
}

// answers collects what AppendAsync answers.
type answers []error

func (a *answers) done(_ replication.Appended, err error) { *a = append(*a, err) }

func TestManualAnswersAfterFlushOnly(t *testing.T) {
	s := open(t, &memlog.Disk{}, 1, true)
	defer s.Close()
	var got answers
	s.AppendAsync(batch(put("a", "1")), got.done)
	s.AppendAsync(batch(put("b", "2")), got.done)
	if len(got) != 0 || s.Head() != 0 || s.Queued() != 2 {
		t.Fatalf("before the flush: %d answers, head %d, %d queued", len(got), s.Head(), s.Queued())
	}
	if !s.FlushOne() || s.FlushOne() {
		t.Fatal("two local appends are one transaction")
	}
	if len(got) != 2 || got[0] != nil || got[1] != nil || s.Head() != 1 {
		t.Fatalf("after the flush: %v, head %d", got, s.Head())
	}
}

// TestOneTransactionSeveralBlocks: batches that do not fit together get a block
// each, and those of another space theirs, all in one transaction.
func TestOneTransactionSeveralBlocks(t *testing.T) {
	s := open(t, &memlog.Disk{}, 1, true)
	defer s.Close()
	var at []replication.Appended
	done := func(a replication.Appended, err error) {
		if err != nil {
			t.Error(err)
		}
		at = append(at, a)
	}
	big := put("a", strings.Repeat("x", 600<<10))
	other := replication.Batch{Space: space("other"), Ops: []replication.Op{put("c", "1"), put("d", "1")}}
	for _, b := range []replication.Batch{batch(big), batch(put("b", "1")), batch(big), other, other, batch(big)} {
		s.AppendAsync(b, done)
	}
	if !s.FlushOne() || len(at) != 5 {
		t.Fatalf("%d answers, want all but that of the batch that is beyond a transaction", len(at))
	}
	if at[0].Pos != at[1].Pos || at[2].Pos == at[1].Pos || at[3].Pos != at[4].Pos || at[2].Pos.Seq != 3 || at[4].First.Seq != 3 || s.Head() != 3 {
		t.Errorf("%+v, head %d", at, s.Head())
	}
	if !s.FlushOne() || len(at) != 6 || at[5].First.Seq != 4 {
		t.Errorf("%+v", at)
	}
}

func TestCrashDropsWhatWasNotFlushed(t *testing.T) {
	d := &memlog.Disk{}
	s := open(t, d, 1, true)
	var kept, lost answers
	s.AppendAsync(batch(put("a", "1")), kept.done)
	s.Flush()
	s.AppendAsync(batch(put("b", "2")), lost.done)
	s.Crash()
	if s.Flush() != 0 || len(lost) != 0 {
		t.Fatal("a crashed store still works")
	}
	if _, err := s.Append(context.Background(), batch(put("c", "3"))); !errors.Is(err, replication.ErrClosed) {
		t.Fatalf("append after the crash: %v", err)
	}
	again := open(t, d, 2, false)
	defer again.Close()
	if got := keys(t, again); len(got) != 1 || got[0] != "a" {
		t.Fatalf("after the crash: %v", got)
	}
	if again.Info().Instance != s.Info().Instance {
		t.Error("a plain crash changed the instance")
	}
	at, err := again.Append(context.Background(), batch(put("d", "4")))
	if err != nil || at.First.Seq != 2 {
		t.Fatalf("the epoch does not go on: %+v %v", at, err)
	}
}

func TestCrashInFlushIsDurableAndNotAnswered(t *testing.T) {
	d := &memlog.Disk{}
	s := open(t, d, 1, true)
	var got answers
	s.AppendAsync(batch(put("a", "1")), got.done)
	if !s.CrashInFlush() || len(got) != 0 {
		t.Fatalf("answers: %v", got)
	}
	again := open(t, d, 2, false)
	defer again.Close()
	if got := keys(t, again); len(got) != 1 {
		t.Fatalf("after the crash: %v", got)
	}
}

func TestCrashEndsAWaitingAppend(t *testing.T) {
	s := open(t, &memlog.Disk{}, 1, true)
	errs := make(chan error)
	go func() {
		_, err := s.Append(context.Background(), batch(put("a", "1")))
		errs <- err
	}()
	for s.Queued() == 0 {
		runtime.Gosched()
	}
	s.Crash()
	if err := <-errs; !errors.Is(err, replication.ErrClosed) {
		t.Fatal(err)
	}
}

func TestDiskIsLockedWhileOpen(t *testing.T) {
	d := &memlog.Disk{}
	s := open(t, d, 1, false)
	_, err := memlog.Open(memlog.Options{
		Network: network, Key: ed25519.NewKeyFromSeed(make([]byte, 32)), Now: time.Now, Rand: rand.NewChaCha8([32]byte{}), Disk: d,
	})
	if !errors.Is(err, replication.ErrLocked) {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	open(t, d, 1, false).Close()
}

func TestRollbackStartsANewHistory(t *testing.T) {
	d := &memlog.Disk{}
	s := open(t, d, 1, false)
	was := s.Info().Instance
	for _, k := range []string{"a", "b", "c"} {
		if _, err := s.Append(context.Background(), batch(put(k, k))); err != nil {
			t.Fatal(err)
		}
	}
	old := s.Logs(space(replication.DefaultSpace))[0]
	s.Close()
	d.Rollback(2)
	s = open(t, d, 2, false)
	defer s.Close()
	if info := s.Info(); info.Recovered == "" || info.Instance == was {
		t.Errorf("nothing was noticed: %+v", info)
	}
	if got := keys(t, s); len(got) != 1 || s.Head() != 1 {
		t.Errorf("left: %v, head %d", got, s.Head())
	}
	at, err := s.Append(context.Background(), batch(put("d", "4")))
	if err != nil || at.First.Log == old.Log || at.First.Seq != 1 || at.Arrival != 2 {
		t.Errorf("the epoch goes on after a loss: %+v %v", at, err)
	}
}

func TestRebootStartsANewEpochOfTheSameInstance(t *testing.T) {
	d := &memlog.Disk{}
	s := open(t, d, 1, false)
	first, _ := s.Append(context.Background(), batch(put("a", "1")))
	was := s.Info()
	s.Close()
	d.Reboot()
	s = open(t, d, 2, false)
	defer s.Close()
	second, err := s.Append(context.Background(), batch(put("b", "2")))
	if err != nil || second.First.Log == first.First.Log || s.Info() != was {
		t.Errorf("%+v %+v %v", second, s.Info(), err)
	}
}

func TestWipeForgetsAll(t *testing.T) {
	d := &memlog.Disk{}
	s := open(t, d, 1, false)
	was := s.Info().Instance
	if _, err := s.Append(context.Background(), batch(put("a", "1"))); err != nil {
		t.Fatal(err)
	}
	s.Close()
	d.Wipe()
	s = open(t, d, 2, false)
	defer s.Close()
	if s.Head() != 0 || len(s.Spaces()) != 0 || s.Info().Instance == was || s.Info().Recovered != "" {
		t.Errorf("head %d, %+v", s.Head(), s.Info())
	}
}

// TestRunRepairsDamage: a run that holds a damaged block brings its body back.
func TestRunRepairsDamage(t *testing.T) {
	d := &memlog.Disk{}
	s := open(t, d, 1, false)
	defer s.Close()
	w := logtest.NewWriter(network, space(replication.DefaultSpace), 1).AddMany(3)
	s.Ingest(1, w.Run(t, 0, 3), func(replication.IngestResult) {})
	d.Damage(w.Log, 2)
	if _, err := s.ReadRun(w.Log, replication.Position{}, 0); !errors.Is(err, replication.ErrDamaged) {
		t.Fatalf("the damage is served: %v", err)
	}
	s.Ingest(1, w.Run(t, 1, 3), func(r replication.IngestResult) {
		if r.Code != replication.Duplicate {
			t.Errorf("%s %v", r.Code, r.Err)
		}
	})
	if r, err := s.ReadRun(w.Log, replication.Position{}, 0); err != nil || r.End != w.Tip() {
		t.Errorf("after the repair: %+v %v", r, err)
	}
}

// TestTailKeepsItsSignature: when the bodies of a tail arrive inside a large run,
// the signature at the tail's end, which was verified, still cuts the log.
func TestTailKeepsItsSignature(t *testing.T) {
	s := open(t, &memlog.Disk{}, 1, false)
	defer s.Close()
	big := logtest.App("a", make([]byte, 850<<10))
	w := logtest.NewWriter(network, space(replication.DefaultSpace), 1)
	w.Add()
	w.AddUnsigned(logtest.App("a", make([]byte, 200<<10)))
	w.AddUnsigned(big)
	w.Add() // the tail's end
	w.AddUnsigned(big)
	w.Add()
	want := func(code replication.IngestCode, tip replication.Position) func(replication.IngestResult) {
		return func(r replication.IngestResult) {
			if r.Code != code || r.Tip != tip {
				t.Errorf("%s %v: %v", r.Code, r.Tip, r.Err)
			}
		}
	}
	s.Ingest(1, w.RunTail(t, 0, 2, 4), want(replication.Committed, w.Pos(2)))
	s.Ingest(1, w.Run(t, 2, 6), want(replication.Committed, w.Pos(6)))
	for i := range 6 {
		if r, err := s.ReadRun(w.Log, w.Pos(i), 0); err != nil || len(r.Data) == 0 {
			t.Errorf("no run from block %d: %v", i, err)
		}
	}
}

// TestSameSeedSameBytes: a simulation replays.
func TestSameSeedSameBytes(t *testing.T) {
	run := func() replication.Position {
		s := open(t, &memlog.Disk{}, 9, true)
		defer s.Close()
		for _, k := range []string{"a", "b"} {
			s.AppendAsync(batch(put(k, k)), func(replication.Appended, error) {})
			s.Flush()
		}
		return s.Logs(space(replication.DefaultSpace))[0].Tip
	}
	if a, b := run(), run(); a != b {
		t.Errorf("%v and %v", a, b)
	}
}

// keys lists the keys of all operations of the default space in arrival order.
func keys(t *testing.T, s replication.Store) (list []string) {
	t.Helper()
	for after := uint64(0); ; {
		as, err := s.ReadArrivals(space(replication.DefaultSpace), after, 1)
		if err != nil {
			t.Fatal(err)
		}
		if len(as) == 0 {
			return list
		}
		for _, a := range as {
			after = a.Number
			ops, err := compress.Ops(a.Block)
			if err != nil {
				t.Fatal(err)
			}
			for _, o := range ops {
				list = append(list, string(o.Key))
			}
		}
	}
}
