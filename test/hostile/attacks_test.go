//go:build linux

package hostile

import (
	"context"
	"encoding/binary"
	"sync/atomic"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"

	"vixp2p/protocols"
	"vixp2p/replication"
)

// attack is one way to mistreat a node.
type attack struct {
	name string
	run  func(ctx context.Context, a *attacker)
	// where says in which networks it runs, and as whom.
	where where
	// log is what the node's log must say beside the attacker's peer ID; empty: the
	// node may find nothing wrong.
	log string
	// The attack is worth its name once it has done so much of unit. One without goes
	// on for as long as is measured.
	amount int64
	unit   string
	// short: it is one of those that run with -short, where amounts are not reached.
	short where
}

// where is a set of networks.
type where int

const (
	open    where = 1 << iota
	member        // of members, by members
	outside       // of members, by somebody who is none
)

var attacks = []attack{
	{name: "garbage", run: garbage, where: open | outside, log: "handshake refused", short: open},
	{name: "strangers", run: strangers, where: outside, log: "other network"},
	{name: "frame of 4 GiB", run: hugeFrame, where: member, log: "a frame of 4294967296 bytes"},
	// A million frames are on offer; how many the node takes is its decision.
	{name: "tiny frames without end", run: tinyFrames, where: member, log: "read slowly", amount: 10_000, unit: "pings taken", short: member},
	{name: "bad runs", run: badRuns, where: open | member, log: "bad run", short: member},
	{name: "rewritten history", run: rewrites, where: open | member, log: "two branches"},
	{name: "clock of 2500", run: farClock, where: member},
	{name: "zip bombs", run: zipBombs, where: member},
	{name: "never reads", run: neverReads, where: member},
	{name: "streams without end", run: streamsWithoutEnd, where: member | outside, log: "streams without end"},
	{name: "a thousand reconnects", run: reconnects, where: member, log: "one handshake after the other", amount: 1000, unit: "dials", short: member},
	{name: "a million logs", run: millionLogs, where: member, log: "a frontier difference of more than", amount: 1_000_000, unit: "logs claimed"},
	{name: busy, run: spin},
}

// busy is no attack: a process that takes what an attacker may take of the machine, and
// leaves the node alone.
const busy = "busy"

func spin(ctx context.Context, a *attacker) {
	a.begun(a.newHost(0))
	for ctx.Err() == nil {
	}
}

// garbage sends random bytes: to the port, in place of a Hello, and after one.
func garbage(ctx context.Context, a *attacker) {
	go a.loop(ctx, 1, 0, func(ctx context.Context, _ host.Host) error {
		var tcp ma.Multiaddr
		for _, at := range a.target.Addrs {
			tcp = at
		}
		c, err := manet.Dial(tcp)
		if err != nil {
			return err
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(time.Second))
		noise := make([]byte, 4096)
		random(noise)
		a.count("raw connections", 1)
		_, err = c.Write(noise)
		_, _ = c.Read(noise) // until it is closed
		return err
	})
	a.loop(ctx, 2, 8, func(ctx context.Context, h host.Host) error {
		st, err := a.stream(ctx, h, protocols.SyncProtocol)
		if err != nil {
			return err
		}
		noise := make([]byte, 64<<10)
		random(noise)
		if _, err = st.Write(noise); err == nil {
			a.count("streams with noise", 1)
			_, err = st.Read(noise)
		}
		a.begun(h)
		if a.As == outside {
			return err // it gets no session
		}
		if c, st, err := a.session(ctx, h); err == nil {
			_, _ = st.Write(noise)
			a.count("sessions with noise", 1)
			a.pump(c, nil)
		}
		return err
	})
}

// strangers are nodes of another network, each with a new identity, and in a network
// of members some that know which one it is and have no certificate.
func strangers(ctx context.Context, a *attacker) {
	var n atomic.Int64
	a.loop(ctx, 4, 4, func(ctx context.Context, h host.Host) error {
		st, err := a.stream(ctx, h, protocols.SyncProtocol)
		if err != nil {
			return err
		}
		id, what := replication.OpenNetwork("another"), "hellos"
		if a.As == outside && n.Add(1)%8 > 4 {
			id, what = a.Network, "hellos without a certificate"
		}
		if _, err = a.hello(h, st, id); err == nil {
			a.count("SESSIONS OF STRANGERS", 1)
		}
		a.count(what, 1)
		a.begun(h)
		return err
	})
}

// hugeFrame announces 4 GiB, before and after Hello.
func hugeFrame(ctx context.Context, a *attacker) {
	huge := append(uvarint(4<<30), uvarint(40)...)
	a.loop(ctx, 1, 4, func(ctx context.Context, h host.Host) error {
		if st, err := a.stream(ctx, h, protocols.SyncProtocol); err == nil {
			_, _ = st.Write(huge)
			_, _ = st.Read(make([]byte, 1024))
			a.count("before hello", 1)
		}
		c, st, err := a.session(ctx, h)
		if err != nil {
			return err
		}
		if _, err = st.Write(huge); err == nil {
			a.count("in a session", 1)
			a.pump(c, nil)
			a.begun(h)
		}
		return err
	})
}

// tinyFrames sends as many pings as are taken.
func tinyFrames(ctx context.Context, a *attacker) {
	a.loop(ctx, 2, 0, func(ctx context.Context, h host.Host) error {
		c, _, err := a.session(ctx, h)
		if err != nil {
			return err
		}
		go a.pump(c, nil)
		a.begun(h)
		pings := make([]replication.Message, 500)
		for i := range pings {
			pings[i] = &replication.Ping{Nonce: uint64(i)}
		}
		for sent := 0; sent < 1_000_000 && err == nil; sent += len(pings) {
			if err = c.Write(pings...); err == nil {
				a.count("pings taken", len(pings))
			}
		}
		return err
	})
}

// badRuns pushes runs that are wrong in each way, over a session that is right.
func badRuns(ctx context.Context, a *attacker) {
	a.loop(ctx, 2, 0, func(ctx context.Context, h host.Host) error {
		c, _, err := a.session(ctx, h)
		if err != nil {
			return err
		}
		go a.pump(c, nil)
		a.begun(h)
		for err == nil {
			hash, sig, gap, wrong := a.author(h, now()), a.author(h, now()), a.author(h, now()), a.author(h, now())
			badHash := hash.push(replication.Position{}, hash.block("evil", "hash"))
			badHash.Data[len(badHash.Data)-1] ^= 1
			blk, _, _ := replication.ParseBlock(sig.block("evil", "signature"))
			badSig := append([]byte(nil), blk.Sig...)
			badSig[7] ^= 1
			gap.block("evil", "not sent")
			before := gap.pos
			other := wrong.push(replication.Position{}, wrong.block("evil", "origin"))
			other.Log = a.author(h, now()).log
			err = c.Write(badHash,
				sig.push(replication.Position{}, replication.AppendBlock(nil, blk.HeaderRaw, badSig, blk.Body)),
				gap.push(before, gap.block("evil", "after a gap")), other)
			a.count("bad runs", 4)
		}
		return err
	})
}

// rewrites pushes a log and then another history of the same log.
func rewrites(ctx context.Context, a *attacker) {
	a.loop(ctx, 1, 0, func(ctx context.Context, h host.Host) error {
		c, _, err := a.session(ctx, h)
		if err != nil {
			return err
		}
		go a.pump(c, nil)
		a.begun(h)
		for err == nil {
			o := a.author(h, now())
			err = c.Write(o.push(replication.Position{}, o.block("evil", "first"), o.block("evil", "second")))
			for i := 0; i < 50 && err == nil; i++ {
				o.pos = replication.Position{}
				err = c.Write(o.push(replication.Position{}, o.block("evil", string(rune('a'+i))), o.block("evil", "b"), o.block("evil", "c")))
				a.count("rewritten histories", 1)
			}
		}
		return err
	})
}

// farClock writes in the year 2500, to a key that honest peers write too.
func farClock(ctx context.Context, a *attacker) {
	at := replication.HLCAt(time.Date(2500, 1, 1, 0, 0, 0, 0, time.UTC))
	a.loop(ctx, 1, 0, func(ctx context.Context, h host.Host) error {
		c, _, err := a.session(ctx, h)
		if err != nil {
			return err
		}
		go a.pump(c, nil)
		a.begun(h)
		o := a.author(h, at)
		for err == nil {
			from := o.pos
			err = c.Write(o.push(from, o.block("contested", "evil")))
			a.count("writes", 1)
			pause(ctx, 5*time.Millisecond)
		}
		return err
	})
}

// zipBombs pushes bodies that say little and unpack to much.
func zipBombs(ctx context.Context, a *attacker) {
	var hidden []byte // 256 MiB of zeros, whose frame does not tell its size
	if enc, err := zstd.NewWriter(nil); err == nil {
		hidden = enc.EncodeAll(make([]byte, 256<<20), nil)
	}
	bombs := []struct {
		body   []byte
		rawLen uint64
	}{
		{hidden[:min(len(hidden), replication.MaxBody)], 1 << 10},
		{repeating(1<<10, 1024, 10_000), 1 << 10},
		{repeating(1<<20, 128<<10, 30_000), 1 << 20},
		{repeating(1<<20, 128<<10, 8), 1 << 20}, // as much as is allowed
	}
	a.loop(ctx, 1, 0, func(ctx context.Context, h host.Host) error {
		c, _, err := a.session(ctx, h)
		if err != nil {
			return err
		}
		go a.pump(c, nil)
		a.begun(h)
		for err == nil {
			o := a.author(h, now())
			for i := 0; i < 64 && err == nil; i++ {
				o.hlc++
				b := bombs[i%len(bombs)]
				from := o.pos
				err = c.Write(o.push(from, o.sealed(b.body, b.rawLen, replication.CodecZstd)))
				a.count("bombs", 1)
				pause(ctx, 10*time.Millisecond) // what many bytes do is not the matter here
			}
		}
		return err
	})
}

// repeating is a zstd frame that says that it has so many bytes, and has n blocks of
// size equal ones.
func repeating(says, size uint32, n int) []byte {
	const magic, singleSegment, fourByteSize, rle = 0xFD2FB528, 1 << 5, 2 << 6, 1
	out := binary.LittleEndian.AppendUint32(nil, magic)
	out = append(out, singleSegment|fourByteSize)
	out = binary.LittleEndian.AppendUint32(out, says)
	for i := range n {
		header := size<<3 | rle<<1
		if i == n-1 {
			header |= 1
		}
		out = append(out, byte(header), byte(header>>8), byte(header>>16), 0)
	}
	return out
}

// neverReads asks for all that there is and takes nothing.
func neverReads(ctx context.Context, a *attacker) {
	a.loop(ctx, 4, 1, func(ctx context.Context, h host.Host) error {
		c, _, err := a.session(ctx, h)
		if err != nil {
			return err
		}
		a.begun(h)
		for round := uint64(1); err == nil; round++ {
			err = c.Write(
				&replication.FrontierDigest{Space: a.space, Round: round, Digest: replication.Hash{1}, Logs: 1},
				&replication.OutboxPull{ID: round, Space: a.space},
				&replication.Ping{Nonce: round})
			a.count("questions", 3)
		}
		return err
	})
}

// streamsWithoutEnd opens streams and says nothing on them.
func streamsWithoutEnd(ctx context.Context, a *attacker) {
	a.loop(ctx, 4, 0, func(ctx context.Context, h host.Host) error {
		c, err := a.dial(ctx, h)
		if err != nil {
			return err
		}
		for i := 0; err == nil && ctx.Err() == nil; i++ {
			opening, cancel := context.WithTimeout(ctx, time.Second)
			if i%4 == 0 {
				var st network.Stream
				if st, err = h.NewStream(opening, a.target.ID, protocols.SyncProtocol); err == nil {
					_, err = st.Write([]byte{40}) // or the protocol would not be asked for
				}
			} else {
				_, err = c.NewStream(opening)
			}
			cancel()
			if err == nil {
				a.count("streams opened", 1)
			} else if !c.IsClosed() {
				a.count("streams refused", 1)
				pause(ctx, time.Millisecond)
				err = nil
			}
			a.begun(h)
		}
		return err
	})
}

// reconnects comes again and again, and makes a session each time if it may.
func reconnects(ctx context.Context, a *attacker) {
	a.loop(ctx, 1, 0, func(ctx context.Context, h host.Host) error {
		_, st, err := a.session(ctx, h)
		a.begun(h)
		if err == nil {
			_ = st.Reset()
		}
		return nil
	})
}

// millionLogs answers the node's question with logs that nobody has.
func millionLogs(ctx context.Context, a *attacker) {
	a.loop(ctx, 3, 2, func(ctx context.Context, h host.Host) error {
		c, _, err := a.session(ctx, h)
		if err != nil {
			return err
		}
		a.pump(c, func(q *replication.FrontierDigest) {
			go a.claim(c, q, 1_000_000)
		})
		a.begun(h)
		return nil
	})
}

// claim answers a question with n logs.
func (a *attacker) claim(c *protocols.Conn, q *replication.FrontierDigest, n int) {
	err := c.Write(&replication.FrontierDigest{Space: q.Space, Round: q.Round, Reply: true, Digest: replication.Hash{1}, Logs: uint64(n)})
	for part := uint64(0); n > 0 && err == nil; part++ {
		entries := make([]replication.FrontierEntry, min(n, protocols.EntriesPerDiff))
		for i := range entries {
			e := &entries[i]
			e.Log = replication.LogID(replication.HashParts("evil", uvarint(part), uvarint(uint64(i))))
			e.Base, e.Pos = 1, replication.Position{Seq: 1, Hash: replication.Hash(e.Log)}
		}
		n -= len(entries)
		a.count("logs claimed", len(entries))
		err = c.Write(&replication.FrontierDiff{Space: q.Space, Round: q.Round, Part: part, Last: n == 0, Entries: entries})
	}
}

func now() replication.HLC { return replication.HLCAt(time.Now()) }
