package protocols

import (
	"bytes"
	"errors"
	"io"
	"net"
	"reflect"
	"testing"
	"testing/synctest"
	"time"

	"vixp2p/replication"
)

// connPair is two Conns over a pipe, after a handshake.
func connPair(t testing.TB, budget Budget) (a, b *Conn) {
	t.Helper()
	dialer, responder := helloPair(t)
	responder.Budget = budget
	d, r := shake(dialer, responder)
	if d.err != nil || r.err != nil {
		t.Fatal(d.err, r.err)
	}
	return NewConn(d.sess), NewConn(r.sess)
}

// must reads the next message and releases it.
func must(t *testing.T, c *Conn) replication.Message {
	t.Helper()
	m, release, err := c.Read()
	release()
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// send writes in the background of a test that looks at what arrives.
func send(c *Conn, msgs ...replication.Message) { _ = c.Write(msgs...) }

// feed writes bytes to a side that may stop taking them.
func feed(w io.Writer, b []byte) { _, _ = w.Write(b) }

// drain takes what comes until the other side ends it.
func drain(r io.Reader) { _, _ = io.Copy(io.Discard, r) }

func somePush(n int) *replication.WalPush {
	return &replication.WalPush{
		Space: replication.SpaceID{1}, Log: replication.LogID{2},
		End:   replication.Position{Seq: 7, Hash: replication.Hash{3}},
		Total: uint64(n), Data: bytes.Repeat([]byte{0xab}, n),
	}
}

func TestConnCarriesMessagesInOrder(t *testing.T) {
	a, b := connPair(t, nil)
	sent := []replication.Message{
		&replication.Ping{Nonce: 1}, somePush(replication.MaxRunBytes), &replication.Ping{Nonce: 2}, somePush(5), &replication.Pong{Nonce: 3},
	}
	go func() {
		if err := a.Write(sent...); err != nil {
			t.Error(err)
		}
	}()
	for _, want := range sent {
		if got := must(t, b); !reflect.DeepEqual(got, want) {
			t.Errorf("got %T, want %T, or other contents", got, want)
		}
	}
}

// A list that is too long for one frame arrives whole, in several.
func TestConnSplitsLongAcks(t *testing.T) {
	a, b := connPair(t, nil)
	ack := &replication.WalAck{}
	for i := range 1000 {
		ack.Entries = append(ack.Entries, replication.AckEntry{
			Log: replication.LogID{byte(i), byte(i >> 8), 1}, Branch: replication.Hash{1},
			Pos: replication.Position{Seq: 1 << 62, Hash: replication.Hash{2}}, Code: replication.CodeForked,
			Detail:      string(bytes.Repeat([]byte("x"), 300)),
			PartialFrom: replication.Position{Seq: 1 << 61, Hash: replication.Hash{2}}, PartialBytes: 1 << 20,
			PartialEnd: replication.Position{Seq: 1 << 62, Hash: replication.Hash{2}},
		})
	}
	go send(a, ack)
	for n := 0; n < len(ack.Entries); {
		for _, e := range must(t, b).(*replication.WalAck).Entries {
			want := ack.Entries[n]
			want.Detail = want.Detail[:MaxDetailBytes]
			if e != want {
				t.Fatalf("entry %d: %+v", n, e)
			}
			n++
		}
	}
}

func TestConnByeOnce(t *testing.T) {
	a, b := connPair(t, nil)
	heard := make(chan []replication.Message, 1)
	go func() {
		var all []replication.Message
		for {
			m, _, err := b.Read()
			if err != nil {
				if !errors.Is(err, io.EOF) {
					t.Errorf("the other side got %v", err)
				}
				heard <- all
				return
			}
			all = append(all, m)
		}
	}()
	if err := a.Write(&replication.Bye{Code: replication.CodeShutdown}); err != nil {
		t.Fatal(err)
	}
	if err := a.Close(replication.CodeInternal, "not said: a Bye is under way"); err != nil {
		t.Fatal(err)
	}
	if all := <-heard; len(all) != 1 || all[0].(*replication.Bye).Code != replication.CodeShutdown {
		t.Errorf("heard %v", all)
	}
	if _, _, err := a.Read(); !errors.Is(err, replication.ErrClosed) {
		t.Errorf("Read after Close: %v", err)
	}
	if err := a.Write(&replication.Ping{}); !errors.Is(err, replication.ErrClosed) {
		t.Errorf("Write after Close: %v", err)
	}
	if err := b.Close(replication.CodeShutdown, ""); err != nil {
		t.Errorf("Close after the peer's Bye: %v", err)
	}
}

// Close ends a Read and a Write that wait, and says Bye where it can.
func TestConnCloseUnblocks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := connPair(t, nil)
		read, wrote := make(chan error, 1), make(chan error, 1)
		go func() { _, _, err := a.Read(); read <- err }()
		go func() { wrote <- a.Write(somePush(1 << 20)) }() // nobody takes it
		synctest.Wait()
		began := time.Now()
		a.Close(replication.CodeShutdown, "")
		for _, err := range []error{<-read, <-wrote} {
			if !errors.Is(err, replication.ErrClosed) {
				t.Errorf("got %v", err)
			}
		}
		if took := time.Since(began); took > 2*ByeTimeout {
			t.Errorf("took %v", took)
		}
		b.Close(replication.CodeShutdown, "")
	})
}

func TestConnSlowReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := connPair(t, nil)
		began := time.Now()
		err := a.Write(somePush(1 << 20))
		if !errors.Is(err, ErrSlowReader) || CodeOf(err) != replication.CodeSlowReader {
			t.Errorf("got %v", err)
		}
		if took := time.Since(began); took != frameTime(1<<20) {
			t.Errorf("took %v", took)
		}
		if _, _, err := a.Read(); !errors.Is(err, ErrSlowReader) {
			t.Errorf("Read after it: %v", err)
		}
		a.Close(replication.CodeSlowReader, "")
		b.Close(replication.CodeShutdown, "")
	})
}

// A peer may be silent between frames for as long as it likes; within one it may
// not, and then it holds no memory any more.
func TestConnStalledFrame(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		budget := newTestBudget(0)
		a, b := connPair(t, budget)
		f, err := Encode(somePush(1 << 20))
		if err != nil {
			t.Fatal(err)
		}
		env, _ := encodeEnvelope(f)
		go func() {
			time.Sleep(time.Hour) // virtual
			feed(a.s, append(appendFrameHead(nil, env, 1<<20), 1, 2, 3))
		}()
		began := time.Now()
		_, _, err = b.Read()
		if !errors.Is(err, ErrStale) {
			t.Errorf("got %v", err)
		}
		if took := time.Since(began); took != time.Hour+frameTime(1<<20) {
			t.Errorf("took %v", took)
		}
		if budget.Used() != 0 {
			t.Errorf("%d bytes still reserved", budget.Used())
		}
		a.Close(replication.CodeShutdown, "")
		b.Close(replication.CodeStale, "")
	})
}

// Attachments wait for memory before they are read, and give it back once.
func TestConnReservesAttachments(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		budget := newTestBudget(1 << 20)
		a, b := connPair(t, budget)
		go send(a, somePush(1<<20), somePush(1<<20))
		_, release, err := b.Read()
		if err != nil || budget.Used() != 1<<20 {
			t.Fatalf("%v, %d reserved", err, budget.Used())
		}
		second := make(chan error, 1)
		go func() {
			_, release, err := b.Read()
			release()
			second <- err
		}()
		time.Sleep(2 * FrameTimeout) // virtual: a wait for memory is not the peer's fault
		select {
		case err := <-second:
			t.Fatalf("the second was read before the first was released: %v", err)
		default:
		}
		release()
		release() // the second call does nothing
		if err := <-second; err != nil {
			t.Error(err)
		}
		if budget.Used() != 0 {
			t.Errorf("%d bytes still reserved", budget.Used())
		}
		a.Close(replication.CodeShutdown, "")
		b.Close(replication.CodeShutdown, "")
	})
}

// Close ends a Read that waits for memory.
func TestConnCloseWhileWaitingForMemory(t *testing.T) {
	budget := newTestBudget(1 << 10)
	if err := budget.Reserve(1<<10, nil); err != nil {
		t.Fatal(err)
	}
	a, b := connPair(t, budget)
	go send(a, somePush(1))
	read := make(chan error, 1)
	go func() { _, _, err := b.Read(); read <- err }()
	b.Close(replication.CodeShutdown, "")
	if err := <-read; !errors.Is(err, replication.ErrClosed) {
		t.Errorf("got %v", err)
	}
	if budget.Used() != 1<<10 {
		t.Errorf("%d reserved", budget.Used())
	}
	a.Close(replication.CodeShutdown, "")
}

func TestConnRefusesWhatContradictsTheNetwork(t *testing.T) {
	for _, m := range []replication.Message{
		&replication.FrontierDigest{Space: replication.SpaceID{1}, Name: "default"},
		&replication.Receipt{Network: replication.NetworkID{1}, Entries: make([]replication.FrontierEntry, 1), Signature: make([]byte, 64)},
	} {
		a, b := connPair(t, nil)
		go send(a, m)
		if _, _, err := b.Read(); !errors.Is(err, ErrMessage) || CodeOf(err) != replication.CodeProtocol {
			t.Errorf("%T: got %v", m, err)
		}
	}
}

// A message that breaks a limit is not sent, and breaks nothing else.
func TestConnRefusesToSendWhatPeersRefuse(t *testing.T) {
	a, b := connPair(t, nil)
	go func() {
		err := a.Write(&replication.Ping{Nonce: 1}, &replication.FrontierDiff{Entries: make([]replication.FrontierEntry, 1000)})
		if !errors.Is(err, ErrProtocol) {
			t.Errorf("got %v", err)
		}
		if err := a.Write(&replication.Ping{Nonce: 2}); err != nil {
			t.Error(err)
		}
	}()
	for _, want := range []uint64{1, 2} {
		if got := must(t, b).(*replication.Ping).Nonce; got != want {
			t.Errorf("got ping %d, want %d", got, want)
		}
	}
}

var errStop = errors.New("stop")

func TestConnServe(t *testing.T) {
	a, b := connPair(t, nil)
	go send(a, &replication.Ping{Nonce: 5}, &replication.Bye{})
	d := NewDispatcher()
	var nonce uint64
	On(d, func(p *replication.Ping) error { nonce = p.Nonce; return nil })
	On(d, func(*replication.Bye) error { return errStop })
	if err := b.Serve(d); !errors.Is(err, errStop) || nonce != 5 {
		t.Errorf("got %v, nonce %d", err, nonce)
	}
}

var _ Stream = (net.Conn)(nil)
