package main

import (
	"strings"
	"testing"
)

// forget ends a session and is for good, with a running node and without one.
func TestForget(t *testing.T) {
	b := runNode(t, "", "--id", "B")
	a := runNode(t, "", "--connect", b.addr)
	a.vix("wait", "--peers", "1").ok(t)
	a.vix("forget", "nobody").fails(t, 1, "nobody", "peers")
	if r := a.vix("forget", "B", "--json").ok(t); r.object(t)["peer_id"] != b.peerID {
		t.Errorf("forget prints %s", r.out)
	}
	if r := a.vix("peers").ok(t); strings.Contains(r.out, "Connected") {
		t.Errorf("B is still connected:\n%s", r.out)
	}
	a.vix("connect", b.addr).ok(t)
	// As text output shows it.
	shown := short(b.peerID)
	if out := a.vix("peers").ok(t).out; !strings.Contains(out, shown) {
		t.Errorf("peers does not show %s:\n%s", shown, out)
	}
	a.vix("disconnect", shown).ok(t)
	a.vix("disconnect", strings.TrimPrefix(shown, "…")).ok(t)
	a.vix("disconnect", shown[len(shown)-5:]).fails(t, 1, "no peer is known", "last 6 characters")
	a.vix("forget", shown).ok(t)
	a.vix("connect", b.addr).ok(t)
	a.stop()
	if r := a.vix("forget", b.peerID[len(b.peerID)-6:]).ok(t); r.out != b.peerID+" is forgotten\n" {
		t.Errorf("forget prints %s", r.out)
	}
	a.vix("forget", "B").fails(t, 1, `no peer is known by the name "B"`)
	a.vix("forget", b.peerID).fails(t, 1, "no peer is known")
}
