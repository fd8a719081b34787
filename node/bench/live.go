package bench

import (
	"context"
	"errors"
	"time"

	"vixp2p/internal/rawdisk"
	"vixp2p/replication"
)

// measureLive appends one operation after the other on one member and waits each
// time until it is durable on the other too.
func measureLive(ctx context.Context, s *scene) ([][]turn, error) {
	return withRaw(s, func(raw *rawdisk.File) ([][]turn, error) {
		pair, err := s.openPair(ctx)
		if err != nil {
			return nil, err
		}
		s.latencies = nil
		p50, p99 := make([]turn, pick(s.stage, 7, 2)), make([]turn, pick(s.stage, 7, 2))
		for i := range p50 {
			fsyncs, took, err := pair.liveBeside(ctx, raw, pick(s.stage, 20, 4))
			if err != nil {
				return nil, errors.Join(err, pair.close())
			}
			s.latencies = append(s.latencies, took...)
			fsync := microseconds(quantile(fsyncs, 0.5))
			p50[i] = turn{fsync, microseconds(quantile(took, 0.5))}
			p99[i] = turn{fsync, microseconds(quantile(took, 0.99))}
		}
		return [][]turn{p50, p99}, pair.close()
	})
}

// pair is two members with a session, in step.
type pair struct {
	*link
	near, far *member
	session   *session
}

func (s *scene) openPair(ctx context.Context) (p *pair, err error) {
	p = &pair{}
	if p.link, err = openLink(ctx, "tcp"); err != nil {
		return nil, err
	}
	for i, m := range []**member{&p.near, &p.far} {
		dir, err := s.sub()
		if err == nil {
			*m, err = openMember(dir, p.keys[i], false)
		}
		if err != nil {
			return nil, errors.Join(err, p.close())
		}
	}
	return p, nil
}

func (p *pair) close() (err error) {
	if p.session != nil {
		p.session.end()
	}
	for _, m := range []*member{p.near, p.far} {
		if m != nil {
			err = errors.Join(err, m.close())
		}
	}
	return errors.Join(err, p.link.close())
}

// liveBeside measures raw appends and live ones in short turns, as many as said.
func (p *pair) liveBeside(ctx context.Context, raw *rawdisk.File, turns int) (fsyncs, took []time.Duration, err error) {
	const each = 50
	for range turns {
		f, err := raw.Append(ctx, payloadBytes, each)
		if err != nil {
			return nil, nil, err
		}
		t, err := p.live(ctx, each)
		if err != nil {
			return nil, nil, err
		}
		fsyncs, took = append(fsyncs, f...), append(took, t...)
	}
	return fsyncs, took, nil
}

// live returns how long each append took until it was durable on both.
func (p *pair) live(ctx context.Context, n int) ([]time.Duration, error) {
	if p.session == nil {
		var err error
		if p.session, err = p.start(ctx, p.near, p.far); err != nil {
			return nil, err
		}
		if err := p.near.awaitSettled(ctx); err != nil {
			return nil, err
		}
	}
	op := replication.Op{Kind: replication.KindApp, Name: "bench", Payload: payload(0, payloadBytes)}
	took := make([]time.Duration, 0, n)
	for range n {
		start := time.Now()
		if _, err := p.near.store.Append(ctx, replication.Batch{Space: benchSpace, Ops: []replication.Op{op}}); err != nil {
			return nil, err
		}
		if err := p.far.await(ctx, 1); err != nil {
			return nil, err
		}
		took = append(took, time.Since(start))
	}
	return took, nil
}
