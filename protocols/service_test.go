package protocols

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"reflect"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peerstore"

	"vixp2p/replication"
)

// hostPair is two libp2p hosts on loopback that know each other's address.
func hostPair(t *testing.T, listen string) (a, b host.Host) {
	t.Helper()
	var hosts [2]host.Host
	for i := range hosts {
		h, err := libp2p.New(libp2p.ListenAddrStrings(listen), libp2p.DisableRelay())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := h.Close(); err != nil {
				t.Error(err)
			}
		})
		hosts[i] = h
	}
	a, b = hosts[0], hosts[1]
	a.Peerstore().AddAddrs(b.ID(), b.Addrs(), peerstore.PermanentAddrTTL)
	return a, b
}

// transports are what streams run over.
var transports = map[string]string{"tcp": "/ip4/127.0.0.1/tcp/0", "quic": "/ip4/127.0.0.1/udp/0/quic-v1"}

func overTransports(t *testing.T, test func(t *testing.T, a, b host.Host)) {
	for name, listen := range transports {
		t.Run(name, func(t *testing.T) {
			a, b := hostPair(t, listen)
			test(t, a, b)
		})
	}
}

func discard() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

func streamConfig(s network.Stream) HelloConfig {
	return HelloConfig{Network: testNetwork, Self: s.Conn().LocalPeer(), Peer: s.Conn().RemotePeer(), Attempt: 1}
}

// open opens a stream, whose test ends it.
func open(t *testing.T, s *Service, to host.Host) network.Stream {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	st, release, err := s.Open(ctx, to.ID(), SyncProtocol)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(release)
	return st
}

// A session over a real stream: handshake, a run of full size, and a Bye that
// arrives although the stream is closed right after it.
func TestSessionOverLibp2p(t *testing.T) {
	overTransports(t, func(t *testing.T, a, b host.Host) {
		heard := make(chan []replication.Message, 1)
		server := NewService(b, discard())
		defer server.Close()
		server.Handle(SyncProtocol, func(st network.Stream) error {
			sess, err := Respond(st, streamConfig(st))
			if err != nil {
				return err
			}
			c := NewConn(sess)
			var all []replication.Message
			for {
				m, release, err := c.Read()
				release()
				if err != nil {
					heard <- all
					return c.Close(replication.CodeShutdown, "")
				}
				all = append(all, m)
			}
		})
		client := NewService(a, discard())
		defer client.Close()
		st := open(t, client, b)
		sess, err := Initiate(st, streamConfig(st))
		if err != nil {
			t.Fatal(err)
		}
		c := NewConn(sess)
		push := somePush(replication.MaxRunBytes)
		if err := c.Write(&replication.Ping{Nonce: 1}, push); err != nil {
			t.Fatal(err)
		}
		if err := c.Close(replication.CodeDisconnect, "enough"); err != nil {
			t.Fatal(err)
		}
		want := []replication.Message{&replication.Ping{Nonce: 1}, push, &replication.Bye{Code: replication.CodeDisconnect, Detail: "enough"}}
		if got := <-heard; !reflect.DeepEqual(got, want) {
			t.Errorf("%d messages arrived, or with other contents", len(got))
		}
	})
}

// A refusal reaches the other side, though the stream ends at once.
func TestRefusalOverLibp2p(t *testing.T) {
	overTransports(t, func(t *testing.T, a, b host.Host) {
		refused := make(chan error, 1)
		server := NewService(b, discard())
		defer server.Close()
		server.Handle(SyncProtocol, func(st network.Stream) error {
			cfg := streamConfig(st)
			cfg.Verdict = func(PeerHello) error { return Refuse(replication.CodeBusy, "64 peers already") }
			_, err := Respond(st, cfg)
			refused <- err
			return err
		})
		client := NewService(a, discard())
		defer client.Close()
		st := open(t, client, b)
		_, err := Initiate(st, streamConfig(st))
		checkRefused(t, <-refused, err, ErrBusy)
	})
}

// Close ends a Read that waits for a real stream.
func TestConnCloseUnblocksOverLibp2p(t *testing.T) {
	overTransports(t, func(t *testing.T, a, b host.Host) {
		server := NewService(b, discard())
		defer server.Close()
		server.Handle(SyncProtocol, func(st network.Stream) error {
			sess, err := Respond(st, streamConfig(st))
			if err != nil {
				return err
			}
			_, _, err = NewConn(sess).Read()
			return err
		})
		client := NewService(a, discard())
		defer client.Close()
		st := open(t, client, b)
		sess, err := Initiate(st, streamConfig(st))
		if err != nil {
			t.Fatal(err)
		}
		c := NewConn(sess)
		read := make(chan error, 1)
		go func() { _, _, err := c.Read(); read <- err }()
		if err := c.Close(replication.CodeShutdown, ""); err != nil {
			t.Error(err)
		}
		if err := <-read; !errors.Is(err, replication.ErrClosed) {
			t.Errorf("got %v", err)
		}
	})
}

// Close of a Service resets the streams that it serves and waits for their
// handlers; afterwards the protocol is not served.
func TestServiceClose(t *testing.T) {
	a, b := hostPair(t, transports["tcp"])
	server := NewService(b, discard())
	started := make(chan struct{})
	var ended error // the race detector checks that Close waits
	server.Handle(SyncProtocol, func(st network.Stream) error {
		if _, err := st.Read(make([]byte, 1)); err != nil {
			return err
		}
		close(started)
		_, ended = st.Read(make([]byte, 1)) // nothing comes
		return ended
	})
	client := NewService(a, discard())
	defer client.Close()
	st := open(t, client, b)
	defer st.Reset()
	if _, err := st.Write([]byte{1}); err != nil {
		t.Fatal(err)
	}
	<-started
	server.Close()
	if ended == nil {
		t.Error("the handler still reads, or its stream was not reset")
	}
	if len(server.streams) != 0 {
		t.Errorf("%d streams left", len(server.streams))
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if again, _, err := client.Open(ctx, b.ID(), SyncProtocol); err == nil {
		// libp2p may answer a known protocol before it asks.
		_ = again.SetDeadline(time.Now().Add(time.Minute))
		_, err = again.Write([]byte{1})
		if err == nil {
			_, err = again.Read(make([]byte, 1))
		}
		if err == nil {
			t.Error("the protocol is still served")
		}
		again.Reset()
	}
}
