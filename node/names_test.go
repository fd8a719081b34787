package node

import (
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/libp2p/go-libp2p/core/peer"
)

func TestFindPeer(t *testing.T) {
	id := func(s string) peer.ID {
		id, err := peer.Decode(s)
		if err != nil {
			t.Fatal(err)
		}
		return id
	}
	a := id("12D3KooWKYy8bzwrV78AULam11TxxqCHUrazxY9Hi5eYKpaRLQ6S")
	b := id("12D3KooWLExbaQCV8BEZVRxHrQ5V4o6HMDLBtgmaP2ueurGnLnXy")
	far := id("12D3KooWApAHY114bGoCJ2YHNEMhdjp8fABBigURUTMDJ8UAMd2u")
	twins := []peer.ID{peer.ID(string(a) + "x"), peer.ID(string(b) + "x")} // of no known kind
	tail := func(id peer.ID, n int) string { s := id.String(); return s[len(s)-n:] }
	known := map[peer.ID]string{a: "A", b: "same", twins[0]: "same", twins[1]: tail(a, 8)}
	for name, want := range map[string]peer.ID{
		"A": a, b.String(): b, far.String(): far,
		tail(b, 8): b, "…" + tail(b, 8): b, "..." + tail(b, 6): b, tail(b, 40): b,
		"…" + tail(a, 9): a,
	} {
		if got, err := findPeer(name, maps.All(known)); got != want || err != nil {
			t.Errorf("%q is %s, %v", name, got, err)
		}
	}
	for name, want := range map[string][]peer.ID{
		"": nil, "B": nil, tail(b, 5): nil, "…": nil, "…A": nil, "..." + tail(far, 8): nil, "x" + tail(b, 8): nil,
		"same":     {b, twins[0]},
		tail(a, 8): {a, twins[1]}, // a label that pretends to be an ID
	} {
		_, err := findPeer(name, maps.All(known))
		var unknown *UnknownPeerError
		if !errors.As(err, &unknown) || unknown.Name != name {
			t.Errorf("%q: %v", name, err)
			continue
		}
		slices.Sort(want)
		if !slices.Equal(unknown.Candidates, want) {
			t.Errorf("%q means %v, want %v", name, unknown.Candidates, want)
		}
		for _, id := range want {
			if !strings.Contains(err.Error(), id.String()) {
				t.Errorf("%q does not name %s", err, id)
			}
		}
	}
}
