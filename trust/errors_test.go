package trust

import (
	"errors"
	"testing"

	"vixp2p/replication"
)

func TestNaming(t *testing.T) {
	peer, digits := keyOf(adminKey), keyOf(adminKey).String()[:8]
	err := refuse(ErrRevoked, "%s and %s of %s: %d", peer, peerGen{peer, 3}, "text", 7)
	var e *Error
	if !errors.As(err, &e) || !errors.Is(err, ErrRevoked) {
		t.Fatal(err)
	}
	for got, want := range map[string]string{
		err.Error(): digits + " and " + digits + " in generation 3 of text: 7",
		e.Naming(func(k replication.OriginKey) string { return map[replication.OriginKey]string{peer: "B"}[k] }): "B and B in generation 3 of text: 7",
	} {
		if got != want {
			t.Errorf("%q, not %q", got, want)
		}
	}
}
