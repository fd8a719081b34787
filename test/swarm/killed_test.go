package swarm

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"vixp2p/test/internal/proc"
)

// promise is design 10: connect to a dead port fails within it.
const promise = 5 * time.Second

// TestConnectToKilledPeer: a peer that was connected, over both transports, and
// was just killed is a dead port like another one. Of such a peer more addresses
// are known than the one that is asked for, the guard may be waiting, and an
// automatic attempt may be under way: none of that may make the answer late.
func TestConnectToKilledPeer(t *testing.T) {
	a, b := proc.New(t, "A").Start(), proc.New(t, "B")
	b.Start()
	a.OK("connect", b.Addr())
	a.OK("wait", "--peers", "1")
	b.Kill()
	notConnected(t, a)
	for try := range 3 {
		// What any command takes at this moment is not the answer's.
		began := time.Now()
		a.OK("peers")
		command := time.Since(began)
		began = time.Now()
		r := a.Run("connect", b.Addr())
		if took := time.Since(began) - command; took >= promise {
			t.Errorf("try %d: connect to a killed peer took %s", try, took)
		}
		if r.Code != 1 || !strings.Contains(r.Stderr, "connection refused") {
			t.Errorf("try %d: exit %d, %s%s", try, r.Code, r.Stdout, r.Stderr)
		}
	}
}

// notConnected waits until the node has noticed that its peers are gone.
func notConnected(t *testing.T, n *proc.Node) {
	t.Helper()
	for give := time.Now().Add(proc.Patience); ; time.Sleep(10 * time.Millisecond) {
		var st proc.Status
		if err := json.Unmarshal([]byte(n.OK("status", "--json")), &st); err != nil {
			t.Fatal(err)
		}
		live := 0
		for _, p := range st.Peers {
			if p.State == "Connected" {
				live++
			}
		}
		if live == 0 {
			return
		}
		if time.Now().After(give) {
			t.Fatal("the killed peer is still connected")
		}
	}
}
