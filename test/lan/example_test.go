//go:build linux

package lan_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"vixp2p/test/internal/netns"
)

// TestExample runs example 09 on two machines, as a reader would.
func TestExample(t *testing.T) {
	t.Parallel()
	lab := netns.New(t)
	const source = "../../examples/09_lan_discovery"
	if _, err := os.ReadFile(filepath.Join(source, "main.go")); err != nil { // a change must run the test again
		t.Fatal(err)
	}
	bin := filepath.Join(t.TempDir(), "example")
	if out, err := exec.Command("go", "build", "-o", bin, source).CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	lan := lab.Switch("lan")
	type process struct {
		cmd *exec.Cmd
		out bytes.Buffer
	}
	procs := map[string]*process{}
	for name, addr := range map[string]string{"alice": "192.168.7.1/24", "bob": "192.168.7.2/24"} {
		h := lab.Host(name)
		h.Plug(lan, addr)
		line := append(h.Prefix(), bin, name)
		p := &process{cmd: exec.Command(line[0], line[1:]...)}
		p.cmd.Stdout, p.cmd.Stderr = &p.out, &p.out
		if err := p.cmd.Start(); err != nil {
			t.Fatal(err)
		}
		procs[name] = p
	}
	for name, other := range map[string]string{"alice": "bob", "bob": "alice"} {
		p := procs[name]
		if err := p.cmd.Wait(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		for _, says := range []string{"found " + other + " (12D3", "greeting/" + other + ` = "hello from ` + other + `" arrived`, "durable at the other one too"} {
			if !strings.Contains(p.out.String(), says) {
				t.Errorf("%s does not say %q:\n%s", name, says, p.out.String())
			}
		}
	}
}
