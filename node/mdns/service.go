package mdns

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"time"
)

const (
	// answerPause is the least time between two announcements on one link, and
	// answerSpread what an answer waits at most, so that not all speak at one
	// moment (RFC 6762 6).
	answerPause  = time.Second
	answerSpread = 100 * time.Millisecond
	// openings is how often an instance announces itself unasked, with the pause
	// above in between.
	openings = 2
	// errorPause is after a failure to receive.
	errorPause = time.Second
)

// Config says what a Service announces and asks for.
type Config struct {
	// Service is the name of the service, such as _vix-abc._udp, and Instance a
	// name of this process that nobody else has: one label, at most 63 bytes, lower
	// case.
	Service, Instance string
	// Port is told to other tools; Text is what this process says about itself on
	// a link, strings of at most 255 bytes; with none it is silent there.
	Port uint16
	Text func(l *Link) []string
	// Every is the interval of questions.
	Every time.Duration
	// Known are instances whose answer is not needed now.
	Known func() []string
	// Heard takes what others announce, in the service's own goroutine. Anyone on
	// the link can have written it, and it comes again with each answer.
	Heard func(a Announcement)
	// Failed hears when sending works no longer, and with nil when it works again.
	Failed func(err error)
}

// Service announces and asks on a set of links until Close.
type Service struct {
	cfg     Config
	names   names
	links   []Link
	sockets []socket
	packets chan received

	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup

	// Of the goroutine of run.
	nextQuestion time.Time
	voices       []voice
	failing      bool
	closeErr     error // valid when run has ended
}

// voice is this instance on one link, over one socket.
type voice struct {
	socket int
	link   *Link
	last   time.Time // of the last announcement
	due    time.Time // of the next one; zero: none
	unsaid int       // openings that are left
}

type received struct {
	packet
	socket int
}

// Open starts to announce and to ask on the links. An error tells that none of
// them can be used.
func Open(cfg Config, links []Link) (*Service, error) {
	sockets, err := listen(links)
	if err != nil {
		return nil, err
	}
	return start(cfg, links, sockets)
}

func start(cfg Config, links []Link, sockets []socket) (*Service, error) {
	n, err := newNames(cfg.Service, cfg.Instance)
	if err != nil {
		for _, s := range sockets {
			err = errors.Join(err, s.close())
		}
		return nil, err
	}
	s := &Service{cfg: cfg, names: n, links: links, sockets: sockets, packets: make(chan received)}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	now := time.Now()
	s.nextQuestion = now.Add(rand.N(answerSpread))
	for i := range sockets {
		for j := range links {
			s.voices = append(s.voices, voice{socket: i, link: &links[j], due: now.Add(rand.N(answerSpread)), unsaid: openings})
		}
		s.wg.Go(func() { s.receive(i) })
	}
	s.wg.Go(s.run)
	return s, nil
}

// Close says goodbye and ends everything that was started.
func (s *Service) Close() error {
	s.cancel()
	s.wg.Wait()
	return s.closeErr
}

// receive hands packets of one socket to run until the socket is closed.
func (s *Service) receive(socket int) {
	for {
		p, err := s.sockets[socket].receive()
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil:
			select { // an interface that went down, for example
			case <-s.ctx.Done():
				return
			case <-time.After(errorPause):
			}
			continue
		}
		p.data = slices.Clone(p.data)
		select {
		case s.packets <- received{p, socket}:
		case <-s.ctx.Done():
			return
		}
	}
}

// run speaks when it is time and listens in between.
func (s *Service) run() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-s.ctx.Done():
			for i := range s.voices {
				s.announce(&s.voices[i], 0)
			}
			var errs []error
			for _, sock := range s.sockets {
				errs = append(errs, sock.close())
			}
			s.closeErr = errors.Join(errs...)
			return
		case p := <-s.packets:
			s.hear(p)
		case <-timer.C:
		}
		timer.Reset(time.Until(s.step(time.Now())))
	}
}

// step does what is due and returns when to come again.
func (s *Service) step(now time.Time) time.Time {
	if !now.Before(s.nextQuestion) {
		s.ask()
		s.nextQuestion = now.Add(s.cfg.Every)
	}
	next := s.nextQuestion
	for i := range s.voices {
		v := &s.voices[i]
		if v.due.IsZero() {
			continue
		}
		if !now.Before(v.due) {
			s.announce(v, recordTTL)
			v.last, v.due = now, time.Time{}
			if v.unsaid > 0 {
				v.unsaid--
			}
			if v.unsaid > 0 {
				v.due = now.Add(answerPause)
			}
		}
		if !v.due.IsZero() && v.due.Before(next) {
			next = v.due
		}
	}
	return next
}

// ask sends the question on every link.
func (s *Service) ask() {
	// Its own questions come back to it, for the sake of others on this machine.
	data, err := s.names.question(append([]string{s.cfg.Instance}, s.cfg.Known()...))
	if err != nil {
		s.told(err)
		return
	}
	// One version of IP that works is enough, on one link: a link may have no
	// address of the other one.
	var worked bool
	for i := range s.voices {
		v := &s.voices[i]
		if e := s.sockets[v.socket].send(v.link.Index, data); e != nil {
			err = fmt.Errorf("cannot send on %s: %w", v.link.Name, e)
		} else {
			worked = true
		}
	}
	if worked {
		err = nil
	}
	s.told(err)
}

// told reports that sending fails, or works again, once each.
func (s *Service) told(err error) {
	if failing := err != nil; failing != s.failing {
		s.failing = failing
		s.cfg.Failed(err)
	}
}

// announce says what there is to say on a link. That it cannot be sent shows with
// the next question.
func (s *Service) announce(v *voice, ttl time.Duration) {
	text := s.cfg.Text(v.link)
	if len(text) == 0 {
		return
	}
	data, err := s.names.answer(s.cfg.Port, text, v.link.Addrs(), ttl)
	if err != nil {
		s.told(err)
		return
	}
	_ = s.sockets[v.socket].send(v.link.Index, data)
}

// hear takes a packet that anyone may have sent.
func (s *Service) hear(p received) {
	link := s.linkOf(p.packet)
	if link == nil {
		return
	}
	m, err := s.names.read(p.data)
	if err != nil {
		return // no DNS message, or one that is beyond what is read
	}
	if m.asked && !slices.Contains(m.known, s.cfg.Instance) {
		s.answerOn(p.socket, link)
	}
	for _, a := range m.heard {
		if a.Instance == s.cfg.Instance {
			continue
		}
		a.Link, a.From = *link, p.from
		s.cfg.Heard(a)
	}
}

// answerOn makes an announcement due, soon but not too soon after the last one.
func (s *Service) answerOn(socket int, link *Link) {
	for i := range s.voices {
		v := &s.voices[i]
		if v.socket == socket && v.link == link && v.due.IsZero() {
			v.due = time.Now().Add(answerSpread/5 + rand.N(answerSpread*4/5))
			if soonest := v.last.Add(answerPause); v.due.Before(soonest) {
				v.due = soonest
			}
		}
	}
}

// linkOf is the link on which a packet came; nil: none of ours, or not by
// multicast, or from beyond it (RFC 6762 11).
func (s *Service) linkOf(p packet) *Link {
	if p.to.IsValid() && !p.to.IsMulticast() {
		return nil
	}
	for i := range s.links {
		l := &s.links[i]
		near := l.Has(p.from) || p.from.Is6() && p.from.IsLinkLocalUnicast()
		if near && (p.link == 0 || p.link == l.Index) {
			return l
		}
	}
	return nil
}
