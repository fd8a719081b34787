package protocols

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"testing"
	"time"

	"vixp2p/replication"
)

// exchange is two sessions of one space that say each other frames as they stand on
// the wire.
type exchange struct {
	t     testing.TB
	space replication.SpaceInfo
	holds [2]*replication.Frontier
	s     [2]*replication.Session
	queue []framed
	sent  int // bytes of all frames, in both directions
	rest  int // sessions that have settled
}

type framed struct {
	end   int
	frame []byte
}

func (x *exchange) run(levels bool) {
	for i := range x.s {
		x.s[i] = replication.NewSession(replication.SessionConfig{PeerLevels: levels, PeerShares: levels})
	}
	for i := range x.s {
		x.do(i, replication.Started{Spaces: []replication.SpaceInfo{x.space}})
	}
	for len(x.queue) > 0 {
		f := x.queue[0]
		x.queue = x.queue[1:]
		got, err := NewReader(bytes.NewReader(f.frame), nil).Next()
		if err != nil {
			x.t.Fatal(err)
		}
		m, err := Decode(got)
		if err != nil {
			x.t.Fatal(err)
		}
		x.do(f.end, replication.Received{Msg: m.(replication.Message)})
	}
	if x.rest != 2 {
		x.t.Fatalf("%d sessions have settled", x.rest)
	}
}

func (x *exchange) do(end int, ev replication.Event) {
	for _, e := range append([]replication.Effect(nil), x.s[end].Step(time.Unix(0, 0), ev)...) {
		switch e := e.(type) {
		case replication.Send:
			f, err := Encode(e.Msg)
			if err != nil {
				x.t.Fatal(err)
			}
			var out bytes.Buffer
			w := NewWriter(&out)
			if err := w.WriteFrame(f); err != nil {
				x.t.Fatal(err)
			}
			if err := w.Flush(); err != nil {
				x.t.Fatal(err)
			}
			x.sent += out.Len()
			x.queue = append(x.queue, framed{1 - end, out.Bytes()})
		case replication.LoadFrontier:
			if !e.Stored { // what follows the exchange is no part of it
				x.do(end, replication.LocalFrontier{Space: e.Space, Frontier: x.holds[end]})
			}
		case replication.Settled:
			x.rest++
		}
	}
}

// frontierOf is a frontier of n logs, of which the first is at seq.
func frontierOf(n int, seq uint64) []replication.FrontierEntry {
	entries := make([]replication.FrontierEntry, n)
	for i := range entries {
		var b [8]byte
		binary.BigEndian.PutUint64(b[:], uint64(i))
		h := sha256.Sum256(b[:])
		entries[i] = replication.FrontierEntry{Log: h, Base: 1, Pos: replication.Position{Seq: 1 << 20, Hash: sha256.Sum256(h[:])}}
	}
	entries[0].Pos.Seq = seq
	return entries
}

func newExchange(t testing.TB, a, b *replication.Frontier) *exchange {
	network := replication.OpenNetwork("dev")
	return &exchange{t: t, holds: [2]*replication.Frontier{a, b}, space: replication.SpaceInfo{
		ID: replication.SpaceOf(network, replication.DefaultSpace), Name: replication.DefaultSpace,
	}}
}

// TestExchangeIsSmall: what two members say until both know in what they differ, of
// 10,000 logs and of 100,000.
func TestExchangeIsSmall(t *testing.T) {
	for _, n := range []int{10_000, 100_000} {
		if n > 10_000 && testing.Short() {
			continue
		}
		own := frontierOf(n, 7)
		a := replication.NewFrontier(own)
		for name, c := range map[string]struct {
			changed []replication.FrontierEntry
			most    int
		}{
			"equal":       {nil, 1 << 10},
			"one differs": {frontierOf(1, 9), 9 << 10},
		} {
			x := newExchange(t, a, a.With(c.changed))
			x.run(true)
			t.Logf("%d logs, %s: %d bytes", n, name, x.sent)
			if x.sent > c.most {
				t.Errorf("%d logs, %s: %d bytes, more than %d", n, name, x.sent, c.most)
			}
		}
	}
}

// BenchmarkExchange is that exchange, encoded and decoded, without a connection; and
// that of the whole frontiers.
func BenchmarkExchange(b *testing.B) {
	for _, n := range []int{10_000, 100_000} {
		own := frontierOf(n, 7)
		a := replication.NewFrontier(own)
		other := a.With(frontierOf(1, 9))
		for _, c := range []struct {
			name   string
			b      *replication.Frontier
			levels bool
		}{{"equal", a, true}, {"one differs", other, true}, {"one differs, whole", other, false}} {
			b.Run(fmt.Sprintf("%s/%d", c.name, n), func(b *testing.B) {
				b.ReportAllocs()
				sent := 0
				for b.Loop() {
					x := newExchange(b, a, c.b)
					x.run(c.levels)
					sent = x.sent
				}
				b.ReportMetric(float64(sent), "wire-B/op")
			})
		}
	}
}

// BenchmarkDecodeEntries decodes a part of a whole frontier, 120 entries.
func BenchmarkDecodeEntries(b *testing.B) {
	m := &replication.FrontierDiff{Space: replication.SpaceID{1}, Round: 1, Part: 7}
	for i := range EntriesPerDiff {
		h := replication.HashParts("bench", []byte{byte(i)})
		m.Entries = append(m.Entries, replication.FrontierEntry{Log: replication.LogID(h), Base: 1, Pos: replication.Position{Seq: 1000, Hash: h}})
	}
	f, err := Encode(m)
	if err != nil {
		b.Fatal(err)
	}
	for _, way := range []struct {
		name   string
		decode func(d *decoder) any
	}{{"quick", (*decoder).frontierDiff}, {"generated", (*decoder).anyFrontierDiff}} {
		b.Run(way.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				d := decoder{frame: f}
				if way.decode(&d); d.err != nil {
					b.Fatal(d.err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(len(m.Entries)), "ns/entry")
		})
	}
}
