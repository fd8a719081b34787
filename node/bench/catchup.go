package bench

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"vixp2p/node"
	"vixp2p/replication"
)

// workload is a log to catch up with.
type workload struct {
	name               string
	ops, perBlock, big int // operations, in a block, bytes of each
}

func (w workload) payload() float64 { return float64(w.ops) * float64(w.big) }

// batched are small operations in batches, single the same one by one, large few
// that are large.
func batched(s *stage) workload {
	return workload{"batched", pick(s, 1_000_000, 100_000), 1000, payloadBytes}
}
func single(s *stage) workload {
	return workload{"single", pick(s, 200_000, 20_000), 1, payloadBytes}
}
func large(s *stage) workload { return workload{"large", pick(s, 4096, 512), 1, 64 << 10} }

// prepared is a store that holds a workload and is closed.
type prepared struct {
	dir       string
	blocks    int
	blockSize int     // on average, as stored and sent
	disk      float64 // bytes allocated
}

// prepare writes a workload, once a run. The store is relaxed, which changes
// nothing of its bytes: one operation after the other would wait for the disk each
// time.
func (s *stage) prepare(ctx context.Context, w workload) (*prepared, error) {
	if p := s.logs[w.name]; p != nil {
		return p, nil
	}
	p := &prepared{dir: filepath.Join(s.dir, "log-"+w.name)}
	store, err := openStore(p.dir, farKey, true)
	if err != nil {
		return nil, err
	}
	ops := make([]replication.Op, w.perBlock)
	for i := range ops {
		ops[i] = replication.Op{Kind: replication.KindApp, Name: "bench", Payload: payload(i, w.big)}
	}
	var at replication.Appended
	for n := 0; n < w.ops && err == nil; n += w.perBlock {
		at, err = store.Append(ctx, replication.Batch{Space: benchSpace, Ops: ops})
	}
	if info, ok := store.Log(at.First.Log); ok && info.Blocks > 0 {
		p.blocks, p.blockSize = int(info.Blocks), int(info.Bytes/info.Blocks)
	}
	if err = errors.Join(err, store.Close()); err != nil {
		return nil, err
	}
	if p.disk, err = allocated(p.dir); err != nil {
		return nil, err
	}
	s.logs[w.name] = p
	return p, nil
}

// drop removes a prepared workload that is not needed again.
func (s *stage) drop(w workload) error {
	p := s.logs[w.name]
	if p == nil {
		return nil
	}
	delete(s.logs, w.name)
	return os.RemoveAll(p.dir)
}

// source is the far end of a catch-up: a member with a prepared log, on a link.
type source struct {
	*member
	link   *link
	w      workload
	shared bool // the member is another source's
}

func (s *stage) openSource(ctx context.Context, w workload) (*source, *prepared, error) {
	p, err := s.prepare(ctx, w)
	if err != nil {
		return nil, nil, err
	}
	src := &source{w: w}
	if src.link, err = openLink(ctx, "tcp"); err != nil {
		return nil, nil, err
	}
	if src.member, err = openMember(p.dir, src.link.keys[1], false); err != nil {
		return nil, nil, errors.Join(err, src.link.close())
	}
	return src, p, nil
}

func (src *source) close() error {
	if src.shared {
		return src.link.close()
	}
	return errors.Join(src.member.close(), src.link.close())
}

// catchUp brings the log to a new member and returns how long it took until all of
// it is durable there.
func (src *source) catchUp(ctx context.Context, dir string) (took time.Duration, err error) {
	to, err := openMember(dir, src.link.keys[0], false)
	if err != nil {
		return 0, err
	}
	start := time.Now()
	sess, err := src.link.start(ctx, to, src.member)
	if err == nil {
		err = to.await(ctx, uint64(src.w.ops))
		took = time.Since(start)
		sess.end()
	}
	return took, errors.Join(err, to.close(), os.RemoveAll(dir))
}

// catchUpIn is catchUp in a new directory of a scene.
func (src *source) catchUpIn(ctx context.Context, s *scene) (time.Duration, error) {
	dir, err := s.sub()
	if err != nil {
		return 0, err
	}
	return src.catchUp(ctx, dir)
}

// measureCatchUp measures the catch-up beside the bare pipe, and what the same
// costs on disk and wire.
func measureCatchUp(load func(*stage) workload) func(context.Context, *scene) ([][]turn, error) {
	return func(ctx context.Context, s *scene) ([][]turn, error) {
		w := load(s.stage)
		src, p, err := s.openSource(ctx, w)
		if err != nil {
			return nil, err
		}
		rate := func(took func(context.Context) (time.Duration, error)) measure {
			return func(ctx context.Context) (float64, error) {
				d, err := took(ctx)
				return float64(w.ops) / d.Seconds(), err
			}
		}
		turns, err := byTurns(ctx, pick(s.stage, 3, 1), rate(s.pipe(p.blocks, p.blockSize)),
			rate(func(ctx context.Context) (time.Duration, error) { return src.catchUpIn(ctx, s) }))
		wire := 0.0
		if err == nil {
			wire, err = src.wire(ctx, s)
		}
		return [][]turn{turns, {{1, p.disk / w.payload()}}, {{1, wire / w.payload()}}}, errors.Join(err, src.close())
	}
}

// wire is how many bytes a catch-up sends over TCP in both directions.
func (src *source) wire(ctx context.Context, s *scene) (float64, error) {
	p, err := openProxy(src.link.far.Addrs()[0])
	if err != nil {
		return 0, err
	}
	if err := src.link.through(ctx, p); err != nil {
		return 0, errors.Join(err, p.close())
	}
	_, err = src.catchUpIn(ctx, s)
	return float64(p.bytes.Load()), errors.Join(err, p.close())
}

func measureCatchUpLarge(ctx context.Context, s *scene) ([][]turn, error) {
	w := large(s.stage)
	src, _, err := s.openSource(ctx, w)
	if err != nil {
		return nil, err
	}
	bytes := w.ops * w.big
	write := s.puts(true, bytes>>20, 1, 1<<20)
	limit := func(ctx context.Context) (float64, error) {
		stream, err := src.link.throughput(bytes)(ctx)
		if err != nil {
			return 0, err
		}
		perSec, err := write(ctx)
		return min(stream, perSec*(1<<20)/1e6), err
	}
	turns, err := byTurns(ctx, pick(s.stage, 3, 1), limit, func(ctx context.Context) (float64, error) {
		d, err := src.catchUpIn(ctx, s)
		return w.payload() / 1e6 / d.Seconds(), err
	})
	return [][]turn{turns}, errors.Join(err, src.close())
}

// measureViewLag lets a whole node catch up with puts and tells how long after its
// log its view has them.
func measureViewLag(ctx context.Context, s *scene) ([][]turn, error) {
	ops := pick(s.stage, 200_000, 20_000)
	dir, err := s.sub()
	if err != nil {
		return nil, err
	}
	from, err := openNode(ctx, dir, nil)
	if err != nil {
		return nil, err
	}
	turns := make([]turn, pick(s.stage, 3, 1))
	err = fillKeys(ctx, from, ops)
	for i := range turns {
		if err == nil {
			turns[i], err = s.viewLag(ctx, from, uint64(ops))
		}
	}
	return [][]turn{turns}, errors.Join(err, from.Close())
}

// viewLag is one catch-up: how long until the log has all, and then until the view
// has.
func (s *scene) viewLag(ctx context.Context, from *node.Node, ops uint64) (t turn, err error) {
	dir, err := s.sub()
	if err != nil {
		return t, err
	}
	to, err := openNode(ctx, dir, nil)
	if err != nil {
		return t, err
	}
	start := time.Now()
	_, _, err = to.Connect(ctx, tcpAddr(from))
	for have := uint64(0); err == nil && have < ops; {
		if err = pause(ctx, 2*time.Millisecond); err == nil {
			var tot node.Totals
			tot, err = to.Totals(ctx)
			have = tot.Ops
		}
	}
	held := time.Now()
	if err == nil { // a read of the digest waits for nothing: ask until all is in it
		err = to.Wait(ctx, node.WaitOptions{Peers: 1, Synced: true})
	}
	t = turn{milliseconds(held.Sub(start)), milliseconds(time.Since(held))}
	return t, errors.Join(err, to.Close(), os.RemoveAll(dir))
}

// fillKeys puts ops keys in batches.
func fillKeys(ctx context.Context, n *node.Node, ops int) error {
	const batch = 1000
	for from := 0; from < ops; from += batch {
		_, err := n.Space("default").Batch(ctx, func(b *node.Batch) error {
			for i := from; i < min(from+batch, ops); i++ {
				b.Put("key/"+strconv.Itoa(i), payload(i, payloadBytes))
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
