package main

import (
	"context"
	"fmt"
	"net/url"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	natsStream  = "OPS"
	natsMirror  = "MIRROR"
	natsSubject = "ops"
	// natsWindow is how many messages of batches may wait for their PubAck.
	natsWindow = 1000
)

// uncompressed is a link of a leaf. By itself it compresses the harder the longer a
// round trip took at its start: on a busy machine so hard that it stands still for
// seconds.
var uncompressed = server.CompressionOpts{Mode: server.CompressionOff}

// broker is an embedded server with JetStream, and a client of it over loopback.
type broker struct {
	srv    *server.Server
	conn   *nats.Conn
	js     jetstream.JetStream
	failed atomic.Pointer[error] // a message that was not stored
}

func openBroker(dir, domain string, fsync bool, change func(*server.Options)) (b *broker, err error) {
	o := &server.Options{
		ServerName: domain, Host: "127.0.0.1", Port: server.RANDOM_PORT, NoLog: true, NoSigs: true,
		JetStream: true, JetStreamDomain: domain, StoreDir: dir, SyncAlways: fsync,
	}
	if change != nil {
		change(o)
	}
	b = &broker{}
	if b.srv, err = server.NewServer(o); err != nil {
		return nil, err
	}
	b.srv.Start()
	if !b.srv.ReadyForConnections(10 * time.Second) {
		b.close()
		return nil, fmt.Errorf("the NATS server %s does not get ready", domain)
	}
	if b.conn, err = nats.Connect(b.srv.ClientURL()); err == nil {
		b.js, err = jetstream.New(b.conn, jetstream.WithPublishAsyncMaxPending(natsWindow),
			jetstream.WithPublishAsyncErrHandler(func(_ jetstream.JetStream, _ *nats.Msg, err error) { b.failed.Store(&err) }))
	}
	if err != nil {
		b.close()
		return nil, err
	}
	return b, nil
}

func (b *broker) close() {
	if b.conn != nil {
		b.conn.Close()
	}
	b.srv.Shutdown()
	b.srv.WaitForShutdown()
}

// openStream makes the stream of a writer, unless its directory has it.
func (b *broker) openStream(ctx context.Context) error {
	_, err := b.js.CreateOrUpdateStream(ctx, jetstream.StreamConfig{Name: natsStream, Subjects: []string{natsSubject}, Storage: jetstream.FileStorage})
	return err
}

// write publishes one message and waits for its PubAck, or several that wait for
// theirs together with those before.
func (b *broker) write(ctx context.Context, w batch) error {
	if len(w.payloads) == 1 {
		_, err := b.js.Publish(ctx, natsSubject, w.payloads[0])
		return err
	}
	return b.publish(ctx, w)
}

func (b *broker) publish(ctx context.Context, w batch) error {
	for _, payload := range w.payloads {
		if _, err := b.js.PublishAsync(natsSubject, payload, jetstream.WithStallWait(time.Minute)); err != nil {
			return err
		}
	}
	return context.Cause(ctx)
}

// acked waits for all PubAcks.
func (b *broker) acked(ctx context.Context) error {
	select {
	case <-b.js.PublishAsyncComplete():
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if err := b.failed.Load(); err != nil {
		return *err
	}
	return nil
}

// natsPair is a leaf that writes, and a hub that mirrors its stream.
type natsPair struct{ leaf, hub *broker }

func prepareNATS(ctx context.Context, dir string, l load) error {
	b, err := openBroker(dir, "leaf", false, nil)
	if err != nil {
		return err
	}
	defer b.close()
	if err := b.openStream(ctx); err != nil {
		return err
	}
	for w := range l.batches(0) {
		if err := b.publish(ctx, w); err != nil {
			return err
		}
	}
	return b.acked(ctx)
}

func openNATS(fsync bool) func(ctx context.Context, writer, peer string) (pair, error) {
	return func(ctx context.Context, writer, peer string) (_ pair, err error) {
		p := &natsPair{}
		defer func() {
			if err != nil {
				_ = p.close()
			}
		}()
		p.hub, err = openBroker(peer, "hub", fsync, func(o *server.Options) {
			o.LeafNode.Host, o.LeafNode.Port = "127.0.0.1", server.RANDOM_PORT
			o.LeafNode.Compression = uncompressed
		})
		if err != nil {
			return nil, err
		}
		at, err := p.hub.leafURL()
		if err != nil {
			return nil, err
		}
		p.leaf, err = openBroker(writer, "leaf", fsync, func(o *server.Options) {
			o.LeafNode.Remotes = []*server.RemoteLeafOpts{{URLs: []*url.URL{at}, Compression: uncompressed}}
		})
		if err != nil {
			return nil, err
		}
		if err := p.leaf.openStream(ctx); err != nil {
			return nil, err
		}
		// The hub must reach the leaf's stream before it can mirror it.
		far, err := jetstream.NewWithDomain(p.hub.conn, "leaf")
		if err != nil {
			return nil, err
		}
		return p, poll(ctx, 5*time.Millisecond, func() (bool, error) {
			short, cancel := context.WithTimeout(ctx, time.Second)
			defer cancel()
			_, err := far.Stream(short, natsStream)
			return err == nil, nil
		})
	}
}

// leafURL is where leaves connect.
func (b *broker) leafURL() (*url.URL, error) {
	v, err := b.srv.Varz(nil)
	if err != nil {
		return nil, err
	}
	return url.Parse(fmt.Sprintf("nats-leaf://%s:%d", v.LeafNode.Host, v.LeafNode.Port))
}

func (p *natsPair) start(ctx context.Context) error {
	_, err := p.hub.js.CreateStream(ctx, jetstream.StreamConfig{
		Name: natsMirror, Storage: jetstream.FileStorage, Mirror: &jetstream.StreamSource{Name: natsStream, Domain: "leaf"},
	})
	return err
}

func (p *natsPair) write(ctx context.Context, b batch) error { return p.leaf.write(ctx, b) }

func (p *natsPair) await(ctx context.Context, ops int) error {
	if err := p.leaf.acked(ctx); err != nil {
		return err
	}
	mirror, err := p.hub.js.Stream(ctx, natsMirror)
	if err != nil {
		return err
	}
	return poll(ctx, time.Millisecond, func() (bool, error) {
		info, err := mirror.Info(ctx)
		if err != nil {
			return false, err
		}
		return info.State.Msgs >= uint64(ops), nil
	})
}

func (p *natsPair) read(ctx context.Context, fn func(int, []byte) error) error {
	mirror, err := p.hub.js.Stream(ctx, natsMirror)
	if err != nil {
		return err
	}
	consumer, err := mirror.OrderedConsumer(ctx, jetstream.OrderedConsumerConfig{})
	if err != nil {
		return err
	}
	messages, err := consumer.Messages()
	if err != nil {
		return err
	}
	defer messages.Stop()
	for left := mirror.CachedInfo().State.Msgs; left > 0; left-- {
		m, err := messages.Next(jetstream.NextContext(ctx))
		if err != nil {
			return err
		}
		meta, err := m.Metadata()
		if err == nil {
			err = fn(int(meta.Sequence.Stream)-1, m.Data())
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (p *natsPair) close() error {
	for _, b := range []*broker{p.hub, p.leaf} {
		if b != nil {
			b.close()
		}
	}
	return nil
}
