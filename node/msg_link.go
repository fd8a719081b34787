package node

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"

	"vixp2p/protocols"
	"vixp2p/routing"
)

// answerPatience is how long a push may wait for its answer before the stream is
// given up.
const answerPatience = 60 * time.Second

// msgWindow is how many pushes the Router has under way on one link, and more.
const msgWindow = 64

// msgLink pushes messages to one neighbour, on a stream that is opened with the
// first of them.
type msgLink struct {
	c       *courier
	id      peer.ID
	key     routing.PeerKey
	session *session
	out     chan *protocols.MsgPush
	ctx     context.Context // ends with the link
	cancel  context.CancelFunc
	worked  bool // an answer came; read after run
}

func newMsgLink(c *courier, id peer.ID, key routing.PeerKey, s *session) *msgLink {
	l := &msgLink{c: c, id: id, key: key, session: s, out: make(chan *protocols.MsgPush, msgWindow)}
	l.ctx, l.cancel = context.WithCancel(c.m.ctx)
	return l
}

// send queues a push. The Router never has more under way than there is room for.
func (l *msgLink) send(p *protocols.MsgPush) {
	select {
	case l.out <- p:
	default:
		l.cancel() // as if the stream had failed
	}
}

var errNoAnswer = errors.New("a pushed message was not answered in time")

// run pushes until the link ends, and tells if the stream failed.
func (l *msgLink) run() {
	err := l.push()
	if l.session.alive() {
		l.c.m.log.Debug("a stream of messages ended", "peer", l.id.String(), "err", err)
	}
	l.cancel()
	select {
	case l.c.lost <- l:
	case <-l.c.done:
	}
}

func (l *msgLink) push() error {
	var first *protocols.MsgPush
	select {
	case first = <-l.out:
	case <-l.ctx.Done():
		return nil
	}
	opening, cancel := context.WithTimeout(l.ctx, l.c.m.timeout)
	st, release, err := l.c.m.service.Open(opening, l.id, protocols.MsgProtocol)
	cancel()
	if err != nil {
		return err
	}
	defer release()
	// Ends what waits on the stream, the reader too, when the link ends.
	stop := context.AfterFunc(l.ctx, func() { st.Reset() })
	defer stop()
	return l.serve(st, first)
}

// serve writes pushes and takes answers on an open stream.
func (l *msgLink) serve(st network.Stream, first *protocols.MsgPush) error {
	stream := protocols.PushStream(st)
	answers := make(chan struct{}, msgWindow)
	failed := make(chan error, 1)
	var reading sync.WaitGroup
	defer reading.Wait()
	defer l.cancel() // which resets the stream
	defer st.Reset()
	reading.Go(func() { failed <- l.read(stream, answers) })
	waiting := 0
	patience := time.NewTimer(answerPatience)
	defer patience.Stop()
	for next := first; ; {
		if next != nil {
			l.c.m.up.Wait(l.ctx, len(next.Data))
			if err := stream.Push(next); err != nil {
				return err
			}
			next = nil
			waiting++
			patience.Reset(answerPatience)
		}
		select {
		case next = <-l.out:
		case <-answers:
			waiting--
			l.worked = true
			patience.Reset(answerPatience)
		case err := <-failed:
			return err
		case <-patience.C:
			if waiting > 0 {
				return errNoAnswer
			}
		case <-l.ctx.Done():
			return nil
		}
	}
}

// read hands answers to the courier.
func (l *msgLink) read(stream *protocols.MsgStream, told chan<- struct{}) error {
	for {
		a, err := stream.NextAnswer()
		if errors.Is(err, protocols.ErrUnasked) {
			l.c.m.counts.unasked.Add(1)
		}
		if err != nil {
			return err
		}
		select {
		case told <- struct{}{}:
		case <-l.ctx.Done():
			return nil
		}
		ev := routing.Answered{Peer: l.key, Push: a.Number, Verdict: a.Verdict, Retry: a.Retry}
		select {
		case l.c.events <- arrived{ev: ev, link: l}:
		case <-l.ctx.Done():
			return nil
		case <-l.c.done:
			return nil
		}
	}
}
