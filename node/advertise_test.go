package node

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	ma "github.com/multiformats/go-multiaddr"
)

// TestAdvertisedNames: a name among the advertised addresses is looked up again; one
// that is not found holds up neither the start nor the others, and what it led to
// before holds on.
func TestAdvertisedNames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log logBuffer
		a := newAdvertisement([]string{"tcp://home.example:9001", "192.0.2.7:9002", "tcp://hangs.example:9003", "/dns4/other.example/tcp/9004"}, log.logger())
		lookups := 0
		var leads string
		a.resolve = func(ctx context.Context, scheme, host string, port uint16) ([]ma.Multiaddr, error) {
			switch {
			case host == "hangs.example":
				<-ctx.Done()
				return nil, ctx.Err()
			case host == "home.example" && leads == "":
				lookups++
				return nil, errors.New("no such host")
			case host == "home.example":
				lookups++
				host = leads
			}
			return resolveHost(ctx, scheme, host, port)
		}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		const fixed = "/ip4/192.0.2.7/tcp/9002 /ip4/192.0.2.7/udp/9002/quic-v1 /dns4/other.example/tcp/9004"
		expect := func(when, want string) {
			t.Helper()
			synctest.Wait()
			if got := strings.TrimSpace(want + " " + fixed); strings.Trim(fmt.Sprint(a.addrs()), "[]") != got {
				t.Errorf("%s: %v, want %s", when, a.addrs(), got)
			}
		}
		began := time.Now()
		a.look(ctx)
		if took := time.Since(began); took > answerTime {
			t.Errorf("a name that hangs holds up the start for %s", took)
		}
		expect("at the start", "")
		done := make(chan struct{})
		go func() { a.run(ctx); close(done) }()
		time.Sleep(3 * (advertiseRetry + answerTime))
		if n := strings.Count(log.b.String(), "home.example"); n != 1 || lookups < 3 {
			t.Errorf("%d lines about a name that was looked up %d times", n, lookups)
		}
		leads = "198.51.100.1"
		time.Sleep(advertiseRetry + answerTime)
		expect("once it is found", "/ip4/198.51.100.1/tcp/9001")
		leads = "198.51.100.2"
		a.changed()
		time.Sleep(answerTime)
		expect("after the network has changed", "/ip4/198.51.100.2/tcp/9001")
		leads = ""
		time.Sleep(10 * time.Minute)
		expect("while it is not found", "/ip4/198.51.100.2/tcp/9001")
		cancel()
		<-done
	})
}

// TestAdvertisedPause: names that all lead somewhere are looked up once a minute, and
// what is no name never.
func TestAdvertisedPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lookups := 0
		a := newAdvertisement([]string{"tcp://home.example:9001"}, testLog(t, "A"))
		a.resolve = func(ctx context.Context, scheme, _ string, port uint16) ([]ma.Multiaddr, error) {
			lookups++
			return resolveHost(ctx, scheme, "192.0.2.7", port)
		}
		a.look(t.Context())
		ctx, cancel := context.WithTimeout(t.Context(), 10*advertiseLook+time.Second)
		defer cancel()
		a.run(ctx)
		if lookups != 11 {
			t.Errorf("looked up %d times in 10 minutes", lookups)
		}
		newAdvertisement([]string{"192.0.2.7:9001", "/dns4/a.example/tcp/1"}, testLog(t, "A")).run(t.Context()) // returns
	})
}

// TestHostTellsWhatIsAdvertised: the host, and with it peers and status, learns where
// a name leads now. A name that nobody knows does not keep a node from starting.
func TestHostTellsWhatIsAdvertised(t *testing.T) {
	t.Parallel()
	n := open(t, Config{Label: "A", Advertise: []string{"no..name:4001", "192.0.2.7:4002"}})
	if all := fmt.Sprint(n.Addrs()); !strings.Contains(all, "/ip4/192.0.2.7/tcp/4002") {
		t.Errorf("addresses %s", all)
	}
	list, err := resolveHost(t.Context(), schemeTCP, "192.0.2.8", 4001)
	if err != nil {
		t.Fatal(err)
	}
	n.reach.ads.found.Store(&list)
	until(t, "the host tells the new address", func() bool {
		all := fmt.Sprint(n.Addrs())
		return strings.Contains(all, "/ip4/192.0.2.8/tcp/4001") && !strings.Contains(all, "192.0.2.7")
	})
	if w := n.whereabouts(); fmt.Sprint(w.addrs) != "[/ip4/192.0.2.8/tcp/4001]" {
		t.Errorf("a registry is told %v", w.addrs)
	}
}

func TestAdvertiseConfig(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ addr, says string }{
		{"192.0.2.1:4001", ""},
		{"home.example:4001", ""},
		{"/dns4/home.example/tcp/4001", ""},
		{"quic://[2001:db8::1]:4001", ""},
		{"127.0.0.1:4001", ""}, // of a tunnel, or in a test
		{"0.0.0.0:4001", "no machine"},
		{"[::]:4001", "no machine"},
		{"224.0.0.1:4001", "no machine"},
		{"/ip4/0.0.0.0/udp/4001/quic-v1", "no machine"},
		{"192.0.2.1", "host:port"},
	} {
		wantError(t, Config{DataDir: t.TempDir(), Advertise: []string{c.addr}}, c.says)
	}
	var log logBuffer
	open(t, Config{Label: "A", Logger: log.logger(), Advertise: []string{"192.0.2.7:4001"}})
	if !log.has("level=WARN", "this machine only") {
		t.Error("it does not say that nobody comes in there")
	}
}
