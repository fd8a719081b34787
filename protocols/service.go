package protocols

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"

	"vixp2p/replication"
)

// ServiceName is how libp2p's resource manager knows our streams.
const ServiceName = "vix.p2p"

// streamMemory is what a stream's buffers take, in bytes.
const streamMemory = readBuffer + writeBuffer

// Service is the stream handlers of one libp2p host. libp2p does not wait for
// handlers when it closes; Service does.
type Service struct {
	host host.Host
	log  *slog.Logger

	mu      sync.Mutex // guards all below; never held while waiting
	closed  bool
	ids     []protocol.ID
	streams map[network.Stream]struct{} // handlers that run
	running sync.WaitGroup              // Add only under mu while not closed
}

// NewService serves nothing yet.
func NewService(h host.Host, log *slog.Logger) *Service {
	return &Service{host: h, log: log, streams: map[network.Stream]struct{}{}}
}

// Handle runs fn for each stream that a peer opens for the protocol. When fn
// returns without having closed the stream, it is closed, or reset if fn failed.
func (s *Service) Handle(id protocol.ID, fn func(network.Stream) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	s.ids = append(s.ids, id)
	s.host.SetStreamHandler(id, func(opened network.Stream) {
		st := &served{Stream: opened}
		if !s.enter(st) {
			st.Reset()
			return
		}
		defer s.leave(st)
		err := account(st)
		if err == nil {
			err = fn(st)
			st.Scope().ReleaseMemory(streamMemory)
		}
		switch {
		case st.closed.Load(): // what was written before, a Bye perhaps, must arrive
		case err == nil:
			err = st.Close()
		default:
			st.Reset()
		}
		if err != nil {
			s.log.Debug("stream ended", "peer", st.Conn().RemotePeer(), "protocol", id, "err", err)
		}
	})
}

// served is a stream that knows whether it was closed.
type served struct {
	network.Stream
	closed atomic.Bool
}

func (s *served) Close() error {
	s.closed.Store(true)
	return s.Stream.Close()
}

// Open opens a stream to a peer that is connected or whose addresses are known,
// over a relayed connection too. release gives its memory back: call it after
// the stream is closed.
func (s *Service) Open(ctx context.Context, to peer.ID, id protocol.ID) (st network.Stream, release func(), err error) {
	st, err = s.host.NewStream(network.WithAllowLimitedConn(ctx, string(id)), to, id)
	if err != nil {
		return nil, nil, err
	}
	if err := account(st); err != nil {
		st.Reset()
		return nil, nil, err
	}
	return st, sync.OnceFunc(func() { st.Scope().ReleaseMemory(streamMemory) }), nil
}

// account puts a stream and its buffers on the service's account.
func account(st network.Stream) error {
	if err := st.Scope().SetService(ServiceName); err != nil {
		return errors.Join(&CodeError{Code: replication.CodeBusy}, err)
	}
	if err := st.Scope().ReserveMemory(streamMemory, network.ReservationPriorityAlways); err != nil {
		return errors.Join(&CodeError{Code: replication.CodeBusy}, err)
	}
	return nil
}

func (s *Service) enter(st network.Stream) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	s.streams[st] = struct{}{}
	s.running.Add(1)
	return true
}

func (s *Service) leave(st network.Stream) {
	s.mu.Lock()
	delete(s.streams, st)
	s.mu.Unlock()
	s.running.Done()
}

// Close takes the handlers off the host, resets the streams that they serve and
// waits until all have returned.
func (s *Service) Close() {
	s.mu.Lock()
	s.closed = true
	for _, id := range s.ids {
		s.host.RemoveStreamHandler(id)
	}
	for st := range s.streams {
		st.Reset()
	}
	s.mu.Unlock()
	s.running.Wait()
}
