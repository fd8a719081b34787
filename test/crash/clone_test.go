package crash

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"vixp2p/test/internal/proc"
)

// TestCopiedDirectory copies the directory of a stopped node with cp -a and with
// tar, starts the original and both copies, and lets all write. All have one
// identity. Nothing forks, no seq is used twice, everything converges.
func TestCopiedDirectory(t *testing.T) {
	hub := proc.New(t, "hub").Start()
	a := proc.New(t, "A", "--connect", hub.Addr()).Start()
	for i := range 20 {
		a.OK("put", key(i), value(i))
	}
	proc.Converged(t, hub, a)
	a.Stop()

	copies := []*proc.Node{a}
	for _, how := range []string{"cp", "tar"} {
		c := proc.New(t, "A-"+how, "--connect", hub.Addr())
		copyDir(t, how, a.Dir, c.Dir)
		copies = append(copies, c)
	}
	instances := map[string]string{}
	for _, n := range copies {
		n.Start()
		if n.PeerID != a.PeerID {
			t.Fatalf("%s has another identity than A", n.Label)
		}
		if other, ok := instances[n.Status().Instance]; ok {
			t.Errorf("%s and %s have the same instance", n.Label, other)
		}
		instances[n.Status().Instance] = n.Label
	}
	for i := range 10 {
		for _, n := range copies {
			n.OK("put", fmt.Sprintf("%s/%d", n.Label, i), "written by "+n.Label)
		}
	}
	all := proc.Converged(t, append(copies, hub)...)
	if got := all[0].Spaces["default"].Keys; got != 50 {
		t.Errorf("%d keys after all wrote, not 50", got)
	}
	for _, n := range append(copies, hub) {
		checkTail(t, n)
		if out := n.OK("status", "--json"); strings.Contains(out, `"forked":true`) {
			t.Errorf("%s shows a fork: %s", n.Label, out)
		}
		if r := n.Run("verify", "--json"); r.Code != 0 {
			t.Errorf("verify on %s: exit %d\n%s", n.Label, r.Code, r.Stdout)
		}
	}
}

func copyDir(t *testing.T, how, from, to string) {
	t.Helper()
	script := `cp -a "$1" "$2"`
	if how == "tar" {
		script = `mkdir "$2" && tar -C "$1" -cf - . | tar -C "$2" -xf -`
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("sh", "-c", script, "sh", from, to).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", how, err, out)
	}
}
