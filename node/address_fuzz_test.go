package node

import "testing"

// FuzzParseTarget reads addresses as registries, members and people name them: what
// is accepted has an endpoint, and what it is shown as is read again as the same one,
// but for its peer, which is shown apart.
func FuzzParseTarget(f *testing.F) {
	for _, s := range []string{
		"127.0.0.1:9001", "tcp://h:1", "quic://[::1]:65535", "/ip4/127.0.0.1/tcp/9001", "/dns4/example.org/udp/1/quic-v1",
		"/ip4/198.18.0.1/udp/4001/quic-v1/p2p/12D3KooWGzBm2Rk4JtC3TrZ7bUoMRE6yNfkWmBxNqbuBZ5gQm9ma/p2p-circuit",
		"/p2p-circuit", "http://h:1", ":0", "[::", "h:99999", "",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, err := parseTarget(s)
		if err != nil {
			return
		}
		if got.Key == "" {
			t.Fatalf("%q is accepted and has no endpoint", s)
		}
		again, err := parseTarget(got.String())
		if again = again.of(got.ID); err != nil || again.Key != got.Key {
			t.Fatalf("%q is written as %q, which is %q, %v", s, got.String(), again.Key, err)
		}
	})
}
