package replicator

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"vixp2p/replication"
)

// tick is what rounding may make of a time, and a byte that goes first.
const tick = 2 * time.Millisecond

func near(got, want time.Duration) bool { return (got - want).Abs() <= tick }

// Over all who share a pace, no more passes than its rate and the burst allow.
func TestPace(t *testing.T) {
	const perSecond, sessions, each, piece = 100 << 10, 4, 200 << 10, 10 << 10
	synctest.Test(t, func(t *testing.T) {
		p := NewPace(perSecond)
		began := time.Now()
		var wg sync.WaitGroup
		for range sessions {
			wg.Go(func() {
				for n := 0; n < each; n += piece {
					p.Wait(context.Background(), piece)
				}
			})
		}
		wg.Wait()
		// The last piece of all begins when the others have passed.
		want := time.Duration(float64(sessions*each-piece)/perSecond*float64(time.Second)) - paceBurst
		if got := time.Since(began); !near(got, want) {
			t.Errorf("%d bytes at %d a second took %v, want %v", sessions*each, perSecond, got, want)
		}
		time.Sleep(time.Hour) // a rest saves up no more than the burst
		rested := time.Now()
		if p.Wait(context.Background(), perSecond); time.Since(rested) > tick {
			t.Error("nothing had to wait")
		}
		if got := p.take(time.Now(), 1); !near(got, time.Second-paceBurst) {
			t.Errorf("after a rest and %d bytes at once the next wait is %v", perSecond, got)
		}
	})
}

func TestNoPace(t *testing.T) {
	p := NewPace(0)
	if p.Wait(context.Background(), 1<<40); p.take(time.Now(), 1<<40) != 0 || p.bytesIn(time.Second, 1, 7) != 7 {
		t.Error("no limit limits")
	}
}

// lineConn notes what is written, and when.
type lineConn struct {
	mu    sync.Mutex
	began time.Time
	lines []line
}

type line struct {
	msg replication.Message
	at  time.Duration
}

func (c *lineConn) Read() (replication.Message, func(), error) { select {} }
func (c *lineConn) Close(replication.Code, string) error       { return nil }
func (c *lineConn) Write(msgs ...replication.Message) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, m := range msgs {
		c.lines = append(c.lines, line{m, time.Since(c.began)})
	}
	return nil
}

// find tells when a message was written.
func (c *lineConn) find(t *testing.T, m replication.Message) time.Duration {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, l := range c.lines {
		if l.msg == m {
			return l.at
		}
	}
	t.Fatalf("%T was not written", m)
	return 0
}

// Acks and pongs pass the pushes that wait for their turn; a ping, whose answer
// says that what was before it was read, does not; and a Bye does not wait.
func TestOvertaking(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		conn := &lineConn{began: time.Now()}
		w := newWriter(t.Context(), conn, 1000, NewPace(1000))
		w.sent = func(replication.Message) {}
		w.failed = func(err error) { t.Error(err) }
		go w.run()

		push := func() replication.Message { return &replication.WalPush{Data: make([]byte, 1000)} }
		first, ping, ack, pong, behind, last, bye := push(), &replication.Ping{}, &replication.WalAck{}, &replication.Pong{}, &replication.WalAck{}, push(), &replication.Bye{}
		for _, m := range []replication.Message{first, push(), push()} {
			w.put(time.Now(), m)
		}
		time.Sleep(500 * time.Millisecond)
		for _, m := range []replication.Message{ack, pong, ping, behind, last} {
			w.put(time.Now(), m)
		}
		time.Sleep(2 * time.Second)
		for _, c := range []struct {
			what string
			msg  replication.Message
			want time.Duration
		}{
			{"the first push", first, 0},
			{"an ack", ack, 500 * time.Millisecond},
			{"a pong", pong, 500 * time.Millisecond},
			{"a ping", ping, 2*time.Second - paceBurst},
			{"an ack behind a ping", behind, 2*time.Second - paceBurst},
		} {
			if got := conn.find(t, c.msg); !near(got, c.want) {
				t.Errorf("%s is written after %v, want %v", c.what, got, c.want)
			}
		}
		w.put(time.Now(), bye)
		w.finish()
		<-w.idle
		if got := conn.find(t, bye); got > 2500*time.Millisecond {
			t.Errorf("the goodbye waits for its turn: %v", got)
		}
		if bytes, _ := w.backlog(); bytes != 0 {
			t.Errorf("%d bytes are left", bytes)
		}
	})
}
