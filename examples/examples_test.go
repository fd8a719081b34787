// Package examples_test builds and runs every example as a reader would.
package examples_test

import (
	"bufio"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	_ "vixp2p/node" // and all that examples import: go test keeps results by what a test imports and reads
)

const patience = 2 * time.Minute

func buildAll(t *testing.T) string {
	t.Helper()
	sources, err := filepath.Glob("*/main.go")
	if err != nil || len(sources) == 0 {
		t.Fatalf("no examples: %v", err)
	}
	for _, f := range sources {
		if _, err := os.ReadFile(f); err != nil { // a change must run the test again
			t.Fatal(err)
		}
	}
	dir := t.TempDir()
	out, err := exec.Command("go", "build", "-o", dir+string(filepath.Separator), "./...").CombinedOutput()
	if err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return dir
}

func TestExamples(t *testing.T) {
	bin := buildAll(t)
	want := map[string][]string{
		"01_envelope_framing":       {"sent Ping", "read OutboxPull", "MaxOps:128", "a frame that announces 4 GiB: oversize frame"},
		"02_hello_handshake":        {`with "alice"`, `with "bob"`, "bob: other network", "mallory: the peer says: other network"},
		"04_router":                 {"C: next hop B, TTL 8, from learned", "D: next hop B, TTL 4, from hand", "D: no route now"},
		"05_secure_envelope":        {"a hop finds the text in it: false", "bob reads \"the pump is at 40 degrees\" (<nil>)", "mallory reads it: the body does not open", "forged message", "sends it as its own: the body does not open", "expired message"},
		"03_discovery_announcement": {"the plain one: taken", "the signed one: taken: port 9001, signed true", "another port: refused: the announcement's signature", "a member twice: refused"},
		"10_registry_bootstrap":     {"A's write is durable at B and C", "the registry has 3 entries; A sees", `somebody announces itself as B: {"error":"invalid_announcement"`, "the registry is gone; C's write is durable"},
		"06_dispatch":               {"ping 7", "durable at the peer up to seq 12", "Pong: no handler, skipped"},
		"07_wal_push_ack":           {"2 operations are durable", "one flipped bit would be refused", "committed, fsynced; WalAck up to seq 2", "the same run again: duplicate", "0 bytes are left"},
	}
	entries, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		// 09 needs a LAN: test/lan runs it on one of its own.
		if !e.IsDir() || e.Name() == "08_manual_connect" || e.Name() == "09_lan_discovery" {
			continue
		}
		t.Run(e.Name(), func(t *testing.T) {
			lines, ok := want[e.Name()]
			if !ok {
				t.Fatal("this example has no expectation here")
			}
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			out, err := exec.CommandContext(ctx, filepath.Join(bin, e.Name())).CombinedOutput()
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			for _, l := range lines {
				if !strings.Contains(string(out), l) {
					t.Errorf("no %q in\n%s", l, out)
				}
			}
		})
	}
	t.Run("08_manual_connect", func(t *testing.T) { manualConnect(t, filepath.Join(bin, "08_manual_connect")) })
}

func manualConnect(t *testing.T, bin string) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	server := exec.CommandContext(ctx, bin, "server", "0")
	server.Stderr = os.Stderr
	out, err := server.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	sc := bufio.NewScanner(out)
	if !sc.Scan() {
		t.Fatalf("the server printed nothing: %v", sc.Err())
	}
	// "server: listening on [/ip4/127.0.0.1/tcp/PORT ...]"
	_, rest, ok := strings.Cut(sc.Text(), "/ip4/127.0.0.1/tcp/")
	if !ok {
		t.Fatalf("no address in %q", sc.Text())
	}
	port := rest[:strings.IndexFunc(rest, func(r rune) bool { return r < '0' || r > '9' })]
	got, err := exec.CommandContext(ctx, bin, "client", "127.0.0.1:"+port).CombinedOutput()
	if err != nil {
		t.Fatalf("client: %v\n%s", err, got)
	}
	if !strings.Contains(string(got), "durable at the server too") {
		t.Errorf("the client printed\n%s", got)
	}
	var arrived bool
	for sc.Scan() {
		arrived = arrived || strings.Contains(sc.Text(), `greeting/client = "hello over the wire" arrived`)
	}
	if err := server.Wait(); err != nil {
		t.Error(err)
	}
	if !arrived {
		t.Error("the server did not see the greeting")
	}
}
