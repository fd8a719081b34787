package node

import "testing"

// FuzzParseTarget reads addresses as registries, members and people name them: what
// is accepted has an endpoint, and what it is shown as is read again as the same one,
// but for its peer, which is shown apart. Its seeds are in testdata alone: this package
// is large, and the fuzzer takes a while for each.
func FuzzParseTarget(f *testing.F) {
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
