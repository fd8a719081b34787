package bench

import (
	"context"
	"fmt"
)

// measurement measures one row or several that come together.
type measurement struct {
	name string // for people, and of its directory
	rows []row
	run  func(context.Context, *scene) ([][]turn, error) // turns of each row
	only []string                                        // rows that are wanted; none: all
}

// row is one line of the table.
type row struct {
	name  string
	what  string
	unit  string
	limit string // what it is compared with; empty: it is a limit itself, or has none
	goal  goal
}

// goal is a target; the zero goal is none.
type goal struct {
	text  string
	ratio bool // of the ratio, not of the figure
	most  bool // an upper bound, not a lower one
	value float64
}

// reached tells whether a figure and its ratio are good enough.
func (g goal) reached(value, ratio float64) bool {
	if g.ratio {
		value = ratio
	}
	if g.most {
		return value <= g.value
	}
	return value >= g.value
}

func ratioOf(v float64) goal   { return goal{fmt.Sprintf("ratio %g", v), true, false, v} }
func ratioMost(v float64) goal { return goal{fmt.Sprintf("ratio at most %g", v), true, true, v} }
func atLeast(v float64, unit string) goal {
	return goal{fmt.Sprintf("%.0f %s", v, unit), false, false, v}
}
func atMost(v float64, unit string) goal {
	return goal{fmt.Sprintf("at most %g %s", v, unit), false, true, v}
}

// result sums up the turns of a row.
func (r row) result(turns []turn, res Result) Result {
	var ours, limits, ratios []float64
	for _, t := range turns {
		ours = append(ours, t.ours)
		if r.limit != "" {
			limits, ratios = append(limits, t.limit), append(ratios, t.ours/t.limit)
		}
	}
	res.Turns = len(turns)
	res.Value, res.Low, res.High = Summary(ours)
	if r.limit != "" {
		res.Limit = r.limit
		res.LimitValue, _, _ = Summary(limits)
		res.Ratio, res.RatioLow, res.RatioHigh = Summary(ratios)
	}
	if r.goal.text != "" {
		reached := r.goal.reached(res.Value, res.Ratio)
		res.Target, res.Reached = r.goal.text, &reached
	}
	return res
}

// Units.
const (
	perSec  = "/s"
	opsPer  = "ops/s"
	mbPer   = "MB/s"
	us      = "us"
	ms      = "ms"
	bytesOf = "B"
	ofBytes = "B per payload byte"
)

const rawFsync = "append + fsync of the same bytes to a file"

// table is everything that is measured, limits first.
var table = []measurement{
	{name: "raw-append", run: measureRawAppend, rows: []row{
		{name: "raw-append", what: "append + fsync of 256 B to a file", unit: perSec}}},
	{name: "raw-badger", run: measureRawBadger, rows: []row{
		{name: "raw-badger", what: "Badger, synced transactions of 1,000 x 256 B", unit: opsPer}}},
	{name: "raw-tcp", run: measureStream("tcp"), rows: []row{
		{name: "raw-tcp", what: "one libp2p stream over TCP, loopback", unit: mbPer}}},
	{name: "raw-quic", run: measureStream("quic"), rows: []row{
		{name: "raw-quic", what: "one libp2p stream over QUIC, loopback", unit: mbPer}}},
	{name: "crypto", run: measureCrypto, rows: []row{
		{name: "sign", what: "Ed25519 sign, one core", unit: perSec},
		{name: "verify", what: "Ed25519 verify, one core", unit: perSec},
		{name: "sha256", what: "SHA-256, one core", unit: mbPer}}},
	{name: "pipe", run: measurePipe, rows: []row{
		{name: "pipe", what: "bare pipe: blocks of 1,000 x 256 B, TCP stream, SHA-256, Badger synced", unit: opsPer}}},

	{name: "append-1", run: measureAppend(1), rows: []row{
		{name: "append-1", what: "durable append of 256 B, 1 writer", unit: opsPer, limit: rawFsync, goal: ratioOf(0.7)}}},
	{name: "append-64", run: measureAppend(64), rows: []row{
		{name: "append-64", what: "durable append of 256 B, 64 writers", unit: opsPer, limit: rawFsync}}},
	{name: "append-512", run: measureAppend(512), rows: []row{
		{name: "append-512", what: "durable append of 256 B, 512 writers", unit: opsPer, limit: rawFsync, goal: ratioOf(40)}}},

	{name: "catchup-batched", run: measureCatchUp(batched), rows: []row{
		{name: "catchup-batched", what: "catch-up over TCP, no view: 256 B in batches of 1,000", unit: opsPer, limit: "bare pipe of the same blocks", goal: ratioOf(0.85)},
		{name: "disk-batched", what: "disk after close: 256 B in batches of 1,000", unit: ofBytes, limit: "the payload", goal: atMost(1.15, "B")},
		{name: "wire-batched", what: "TCP both ways: 256 B in batches of 1,000", unit: ofBytes, limit: "the payload"}}},
	{name: "catchup-single", run: measureCatchUp(single), rows: []row{
		{name: "catchup-single", what: "catch-up over TCP, no view: 256 B one by one", unit: opsPer, limit: "bare pipe of the same blocks", goal: atLeast(100_000, opsPer)},
		{name: "disk-single", what: "disk after close: 256 B one by one", unit: ofBytes, limit: "the payload", goal: atMost(2.2, "B")},
		{name: "wire-single", what: "TCP both ways: 256 B one by one", unit: ofBytes, limit: "the payload"}}},
	{name: "catchup-64k", run: measureCatchUpLarge, rows: []row{
		{name: "catchup-64k", what: "catch-up over TCP, no view: 64 KiB one by one", unit: mbPer, limit: "the smaller of a TCP stream and Badger synced, 1 MiB a transaction", goal: ratioOf(0.6)}}},
	{name: "view-lag", run: measureViewLag, rows: []row{
		{name: "view-lag", what: "catch-up of whole nodes, puts in batches: until the view has them after the log has", unit: ms, limit: "the time until the log has them"}}},

	{name: "live", run: measureLive, rows: []row{
		{name: "live-p50", what: "one writer: append until durable on both, median", unit: us, limit: rawFsync + ", median", goal: ratioMost(3.5)},
		{name: "live-p99", what: "one writer: append until durable on both, 99th percentile", unit: us, limit: rawFsync + ", median", goal: ratioMost(12)}}},

	{name: "view-apply", run: measureApply, rows: []row{
		{name: "view-apply", what: "view: puts applied, each key 10 times", unit: opsPer, limit: "Badger, unsynced transactions of 1,000 puts", goal: atLeast(150_000, opsPer)}}},
	{name: "view-get", run: measureGet, rows: []row{
		{name: "view-get", what: "view: gets of 256 B", unit: opsPer, limit: "Badger, gets of the same values", goal: atLeast(500_000, opsPer)}}},

	{name: "digest-10k", run: measureDigest(10_000), rows: digestRows("10k", "10,000")},
	{name: "digest-100k", run: measureDigest(100_000), rows: digestRows("100k", "100,000")},

	{name: "ready", run: measureReady, rows: []row{
		{name: "ready", what: "node.Open of a new directory until ready", unit: ms, limit: "a libp2p host on TCP and QUIC, and an empty Badger", goal: atMost(300, ms)}}},
	{name: "open", run: measureOpen, rows: []row{
		{name: "open", what: "node.Open of a directory with many keys until ready", unit: ms, limit: "a libp2p host on TCP and QUIC, and an empty Badger"}}},
	{name: "idle", run: measureIdle, rows: []row{
		{name: "idle-rss", what: "resident memory of an idle node", unit: "MB", goal: atMost(60, "MB")},
		{name: "idle-cpu", what: "processor of an idle node", unit: "% of a core", goal: atMost(2, "%")}}},
}

func digestRows(name, logs string) []row {
	return []row{
		{name: "digest-" + name + "-equal-bytes", what: "frontiers of " + logs + " logs, equal: stream both ways", unit: bytesOf, limit: "a digest each way, 64 B", goal: atMost(1024, bytesOf)},
		{name: "digest-" + name + "-equal-time", what: "frontiers of " + logs + " logs, equal: until both know", unit: ms, limit: "a round trip of a stream", goal: atMost(2, ms)},
		{name: "digest-" + name + "-one-bytes", what: "frontiers of " + logs + " logs, one differs: stream both ways", unit: bytesOf, limit: "the operation that is missing, 256 B", goal: atMost(16<<10, bytesOf)},
		{name: "digest-" + name + "-one-time", what: "frontiers of " + logs + " logs, one differs: until durable", unit: ms, limit: "a round trip of a stream"},
	}
}
