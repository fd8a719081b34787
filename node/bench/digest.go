package bench

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"sync"
	"time"

	"vixp2p/replication"
)

// foreignLog is the verified run of a log with one operation, of an origin of its
// own.
func foreignLog(i int) (*replication.VerifiedRun, error) {
	var seed [ed25519.SeedSize]byte
	binary.BigEndian.PutUint64(seed[:], uint64(i)+1)
	key := ed25519.NewKeyFromSeed(seed[:])
	g := &replication.Genesis{Network: benchNetwork, Space: benchSpace, Origin: replication.OriginKey(key.Public().(ed25519.PublicKey))}
	copy(g.Epoch[:], seed[:])
	at := replication.HLCAt(time.Now())
	op := replication.Op{Kind: replication.KindApp, Name: "bench", Payload: seed[:8], HLC: at}
	h := &replication.Header{Log: g.LogID(), FirstSeq: 1, Count: 1, FirstHLC: at, LastHLC: at, Genesis: g}
	body := h.SetBody(replication.EncodeBody(h.Log, []replication.Op{op}), nil)
	raw := replication.AppendHeader(nil, h)
	block := replication.AppendBlock(nil, raw, replication.SignBlock(key, sha256.Sum256(raw)), body)
	return replication.VerifyRun(replication.RunSource{Network: benchNetwork, Log: h.Log, Space: benchSpace}, block)
}

// ingest brings a run to a member; done is called when it is durable.
func (m *member) ingest(source uint64, run *replication.VerifiedRun, done func(error)) {
	m.store.Ingest(source, run, func(res replication.IngestResult) {
		if res.Code == replication.Committed {
			res.Err = nil
		} else if res.Err == nil {
			res.Err = errors.New("a prepared log is " + res.Code.String())
		}
		done(res.Err)
	})
}

// fillLogs gives both members the same logs, n of them.
func (p *pair) fillLogs(ctx context.Context, n int) error {
	window := make(chan struct{}, 1024)
	failed := make(chan error, 1)
	var wg sync.WaitGroup
	done := func(err error) {
		if err != nil {
			select {
			case failed <- err:
			default:
			}
		}
		<-window
		wg.Done()
	}
	for i := range n {
		if ctx.Err() != nil {
			break
		}
		run, err := foreignLog(i)
		if err != nil {
			return err
		}
		for _, m := range []*member{p.near, p.far} {
			window <- struct{}{}
			wg.Add(1)
			m.ingest(uint64(i%64)+1<<32, run, done)
		}
	}
	wg.Wait()
	p.near.forget()
	p.far.forget()
	select {
	case err := <-failed:
		return err
	default:
		return context.Cause(ctx)
	}
}

// forget drops what came and was compared before.
func (m *member) forget() {
	m.grown.Store(0)
	for {
		select {
		case <-m.settled:
		default:
			return
		}
	}
}

// measureDigest compares the frontiers of two members with so many logs, equal
// ones and ones of which one differs.
func measureDigest(logs int) func(context.Context, *scene) ([][]turn, error) {
	return func(ctx context.Context, s *scene) ([][]turn, error) {
		if s.o.Quick && logs > 10_000 {
			return nil, &missingError{"left out by a quick run"}
		}
		p, err := s.openPair(ctx)
		if err != nil {
			return nil, err
		}
		turns := make([][]turn, 4)
		if err = p.fillLogs(ctx, logs); err == nil {
			for range pick(s.stage, 3, 1) {
				if err = p.digests(ctx, turns); err != nil {
					break
				}
			}
		}
		return turns, errors.Join(err, p.close())
	}
}

// digests makes one turn of the four rows.
func (p *pair) digests(ctx context.Context, turns [][]turn) error {
	for i, differ := range []bool{false, true} {
		trip, err := p.roundTrip(ctx)
		if err != nil {
			return err
		}
		took, sent, err := p.compare(ctx, differ)
		if err != nil {
			return err
		}
		least := float64(2 * len(replication.Hash{}))
		if differ {
			least = payloadBytes
		}
		turns[2*i] = append(turns[2*i], turn{least, float64(sent)})
		turns[2*i+1] = append(turns[2*i+1], turn{trip, milliseconds(took)})
	}
	return nil
}

// compare runs one session until both sides know that they hold the same, from
// the end of Hello; before it, if they are to differ, one writes an operation.
func (p *pair) compare(ctx context.Context, differ bool) (took time.Duration, sent int64, err error) {
	if differ {
		payload := make([]byte, payloadBytes)
		_, _ = rand.Read(payload) // it never fails
		op := replication.Op{Kind: replication.KindApp, Name: "bench", Payload: payload}
		if _, err := p.near.store.Append(ctx, replication.Batch{Space: benchSpace, Ops: []replication.Op{op}}); err != nil {
			return 0, 0, err
		}
	}
	sess, hellos, err := p.shake(ctx, p.near, p.far)
	if err != nil {
		return 0, 0, err
	}
	start := time.Now()
	if err := sess.attach(p.near, p.far, hellos); err != nil {
		return 0, 0, err
	}
	defer sess.end()
	for _, m := range []*member{p.near, p.far} {
		if err := m.awaitSettled(ctx); err != nil {
			return 0, 0, err
		}
	}
	if differ {
		if err := p.far.await(ctx, 1); err != nil {
			return 0, 0, err
		}
	}
	return time.Since(start), sess.bytes.Load(), nil
}
