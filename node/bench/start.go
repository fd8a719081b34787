package bench

import (
	"context"
	"errors"
	"os"
	"strings"
	"time"

	"vixp2p/node"
)

// bareStart is the least that a start costs: a host that listens on both
// transports, and an empty Badger.
func (s *scene) bareStart(context.Context) (took float64, err error) {
	dir, err := s.sub()
	if err != nil {
		return 0, err
	}
	start := time.Now()
	h, err := openHost(farKey, "tcp", "quic")
	if err != nil {
		return 0, err
	}
	db, err := openBadger(dir, true)
	took = milliseconds(time.Since(start))
	if err == nil {
		err = db.Close()
	}
	return took, errors.Join(err, h.Close(), os.RemoveAll(dir))
}

// startNode is how long a node takes to open a directory and be ready.
func startNode(ctx context.Context, dir string) (float64, error) {
	start := time.Now()
	n, err := openNode(ctx, dir, func(c *node.Config) { c.NoQUIC = false })
	if err != nil {
		return 0, err
	}
	took := milliseconds(time.Since(start))
	return took, n.Close()
}

func measureReady(ctx context.Context, s *scene) ([][]turn, error) {
	return one(byTurns(ctx, pick(s.stage, 5, 2), s.bareStart, func(ctx context.Context) (float64, error) {
		dir, err := s.sub()
		if err != nil {
			return 0, err
		}
		took, err := startNode(ctx, dir)
		return took, errors.Join(err, os.RemoveAll(dir))
	}))
}

// measureOpen opens a directory again that was closed cleanly.
func measureOpen(ctx context.Context, s *scene) ([][]turn, error) {
	dir, err := s.sub()
	if err != nil {
		return nil, err
	}
	n, err := openNode(ctx, dir, offline)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(fillKeys(ctx, n, pick(s.stage, 200_000, 20_000)), n.Close()); err != nil {
		return nil, err
	}
	return one(byTurns(ctx, pick(s.stage, 5, 2), s.bareStart, func(ctx context.Context) (float64, error) { return startNode(ctx, dir) }))
}

// measureIdle watches a node that has nothing to do, in a process of its own.
func measureIdle(ctx context.Context, s *scene) (_ [][]turn, err error) {
	if s.o.StartNode == nil {
		return nil, &missingError{"needs the program"}
	}
	dir, err := s.sub()
	if err != nil {
		return nil, err
	}
	pid, stop, err := s.o.StartNode(ctx, dir)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, stop()) }()
	if err := pause(ctx, pick(s.stage, 3*time.Second, time.Second)); err != nil { // it has just started
		return nil, err
	}
	rows := make([][]turn, 2)
	for range pick(s.stage, 3, 1) {
		memory, share, err := idle(ctx, pid, pick(s.stage, 4*time.Second, 2*time.Second))
		if err != nil {
			return nil, err
		}
		rows[0], rows[1] = append(rows[0], turn{0, memory}), append(rows[1], turn{0, share})
	}
	return rows, nil
}

// idle is the memory of a process, in MB, and its share of a core during a time,
// in percent.
func idle(ctx context.Context, pid int, during time.Duration) (memory, share float64, err error) {
	before, err := processorTime(pid)
	if err != nil {
		return 0, 0, err
	}
	start := time.Now()
	if err := pause(ctx, during); err != nil {
		return 0, 0, err
	}
	after, err := processorTime(pid)
	if err != nil {
		return 0, 0, err
	}
	share = 100 * float64(after-before) / float64(time.Since(start))
	memory, err = resident(pid)
	return memory, share, err
}

// tcpAddr is where a node listens on TCP.
func tcpAddr(n *node.Node) string {
	for _, a := range n.Addrs() {
		if strings.HasPrefix(a, "/ip4/127.0.0.1/tcp/") {
			return a
		}
	}
	return ""
}
