package main

import (
	"crypto/rand"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	ma "github.com/multiformats/go-multiaddr"
	"google.golang.org/protobuf/encoding/protowire"
)

// fakeHost is a libp2p host that is no vix node.
func fakeHost(t *testing.T) (h host.Host, addr string) {
	t.Helper()
	h, err := libp2p.New(libp2p.ListenAddrStrings("/ip4/127.0.0.1/tcp/0"), libp2p.Transport(tcp.NewTCPTransport), libp2p.DisableRelay())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	port, err := h.Addrs()[0].ValueForProtocol(ma.P_TCP)
	if err != nil {
		t.Fatal(err)
	}
	return h, "127.0.0.1:" + port
}

// frameOfMajor is a frame (docs/wire.md) of a message of some major version.
func frameOfMajor(major, messageType uint64) []byte {
	var env []byte
	for field, v := range []uint64{1: major, 3: messageType, 4: 1} {
		if v != 0 {
			env = protowire.AppendTag(env, protowire.Number(field), protowire.VarintType)
			env = protowire.AppendVarint(env, v)
		}
	}
	body := append(protowire.AppendVarint(nil, uint64(len(env))), env...)
	return append(protowire.AppendVarint(nil, uint64(len(body))), body...)
}

const syncProtocol = protocol.ID("/vix/sync/1")

// connect to what is no node of this version says so in one sentence.
func TestConnectToOtherPrograms(t *testing.T) {
	t.Parallel() // it waits for a timeout
	n := runNode(t, "")
	newer, newerAddr := fakeHost(t)
	newer.SetStreamHandler(syncProtocol, func(s network.Stream) {
		_, _ = s.Write(frameOfMajor(2, 2))
		_, _ = io.Copy(io.Discard, s)
		_ = s.Close()
	})
	n.vix("connect", newerAddr).fails(t, 1, newer.ID().String(), "speaks major version 2", "upgrade the older one")
	later, laterAddr := fakeHost(t)
	later.SetStreamHandler("/vix/sync/2", func(s network.Stream) { _ = s.Reset() })
	n.vix("connect", laterAddr).fails(t, 1, later.ID().String(), "does not answer to /vix/sync/1", "is it a vix node?")
	noise, noiseAddr := fakeHost(t)
	noise.SetStreamHandler(syncProtocol, func(s network.Stream) {
		_, _ = io.CopyN(s, rand.Reader, 1000)
		_ = s.Close()
	})
	n.vix("connect", noiseAddr).fails(t, 1, noise.ID().String())
	silent, silentAddr := fakeHost(t)
	silent.SetStreamHandler(syncProtocol, func(s network.Stream) { _, _ = io.Copy(io.Discard, s) })
	n.vix("connect", silentAddr).fails(t, 1, silent.ID().String(), "no answer")
	if out := n.vix("status").ok(t).out; !strings.Contains(out, "speaks major version 2") {
		t.Errorf("status does not say why:\n%s", out)
	}
}

// A peer of another major version that dials this node gets an answer and leaves
// a line in the log; garbage on the port is thrown out. The node goes on.
func TestGarbageOnThePort(t *testing.T) {
	n := runNode(t, "")
	newer, _ := fakeHost(t)
	to, err := ma.NewMultiaddr("/ip4/127.0.0.1/tcp/" + strings.TrimPrefix(n.addr, "127.0.0.1:"))
	if err != nil {
		t.Fatal(err)
	}
	id, err := peer.Decode(n.peerID)
	if err != nil {
		t.Fatal(err)
	}
	if err := newer.Connect(t.Context(), peer.AddrInfo{ID: id, Addrs: []ma.Multiaddr{to}}); err != nil {
		t.Fatal(err)
	}
	s, err := newer.NewStream(t.Context(), id, syncProtocol)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Write(frameOfMajor(2, 1)); err != nil {
		t.Fatal(err)
	}
	_ = s.SetReadDeadline(time.Now().Add(patience))
	if answer, err := io.ReadAll(s); err != nil || len(answer) == 0 {
		t.Errorf("the answer has %d bytes, %v", len(answer), err)
	}
	for deadline := time.Now().Add(patience); !strings.Contains(n.errText(), "speaks major version 2"); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("the log does not say why: %s", n.errText())
		}
	}

	for _, garbage := range []string{"GET / HTTP/1.1\r\nHost: x\r\nUser-Agent: " + strings.Repeat("x", 100) + "\r\n\r\n", strings.Repeat("\xff", 1<<16), "\x13/multistream/1.0.0\n\xff\xff\xff\xff\x7f"} {
		c, err := net.Dial("tcp", n.addr)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(c, garbage) // it may be cut off meanwhile
		_ = c.SetReadDeadline(time.Now().Add(patience))
		if _, err := io.Copy(io.Discard, c); err != nil {
			if ne := net.Error(nil); errors.As(err, &ne) && ne.Timeout() {
				t.Errorf("the node keeps a connection with %.20q", garbage)
			}
		}
		c.Close()
	}
	b := runNode(t, "")
	b.vix("connect", n.addr).ok(t)
	n.vix("put", "k", "v", "--replicas", "1").ok(t)
}
