package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"vixp2p/node/localapi"
)

// runRegistry starts a registry and returns its base URL.
func runRegistry(t *testing.T, args ...string) (*proc, string) {
	t.Helper()
	p := background(t, nil, append([]string{"registry", "--listen", "127.0.0.1:0"}, args...)...)
	addr, ok := strings.CutPrefix(p.line(), "ready listen=")
	if !ok {
		t.Fatalf("the first line is not that it is ready: %s", p.errText())
	}
	return p, "http://" + addr + "/p2p/v1"
}

func fetch(t *testing.T, url string) string {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

// Three nodes that are told nothing but a registry meet; status tells about it;
// the registry keeps its entries over a restart.
func TestRegistryCommand(t *testing.T) {
	file := filepath.Join(t.TempDir(), "registry.json")
	p, url := runRegistry(t, "--file", file, "--log-format", "json")
	a := runNode(t, "", "--registry", url)
	b := runNode(t, "", "--bootstrap", "on", "--registry", url, "--boot-interval", "1")
	c := runNode(t, "", "--registry", url, "--announce", "off")
	a.vix("put", "k", "v").ok(t)
	c.vix("wait", "--peers", "2", "--synced").ok(t)
	if r := c.vix("get", "k").ok(t); r.out != "v" {
		t.Errorf("%+v", r)
	}
	var reg map[string]any
	// The registry lists b before b has its answer.
	for deadline := time.Now().Add(patience); reg["last_success"] == nil && time.Now().Before(deadline); {
		st := b.vix("status", "--json").ok(t).object(t)
		reg, _ = st["discovery"].(map[string]any)["registry"].(map[string]any)
	}
	if reg["url"] != url || reg["announced"] != true || reg["last_error"] != "" || reg["last_success"] == nil {
		t.Errorf("status tells %v", reg)
	}
	list := fetch(t, url+"/peers")
	if !strings.Contains(list, a.peerID) || !strings.Contains(list, b.peerID) || strings.Contains(list, c.peerID) {
		t.Errorf("the registry lists %s", list)
	}

	p.signal(os.Interrupt)
	if code := p.end(); code != 0 {
		t.Errorf("exit %d: %s", code, p.errText())
	}
	for line := range strings.Lines(p.errText()) {
		if !strings.HasPrefix(line, `{"time":`) {
			t.Errorf("a log line is %q", line)
		}
	}
	a.stop()
	b.stop()
	_, url = runRegistry(t, "--file", file, "--log-level", "off")
	if list := fetch(t, url+"/peers?limit=1"); strings.Count(list, `"node_id"`) != 1 {
		t.Errorf("after a restart: %s", list)
	}
}

func TestRegistryUsage(t *testing.T) {
	dir := t.TempDir()
	run := func(args string, words ...string) {
		t.Helper()
		vix(t, append([]string{"run", "--data-dir", dir}, strings.Fields(args)...)...).fails(t, 2, words...)
	}
	run("--bootstrap on", "--registry URL", "http://127.0.0.1:8080/p2p/v1")
	run("--bootstrap on --registry=", "--registry URL")
	run("--registry 127.0.0.1:8080", "not an HTTP URL", "http://127.0.0.1:8080/p2p/v1")
	run("--registry ftp://host/", "not an HTTP URL")
	run("--bootstrap off --registry ftp://host/", "not an HTTP URL")
	run("--registry http://host --boot-interval 0", "--boot-interval")
	run("--registry http://host --boot-interval 1ms", "--boot-interval takes 100ms or more")
	run("--boot-interval soon", "seconds")
	run("--announce perhaps", "on or off")
	for args, word := range map[string]string{
		"--listen nowhere": "host:port", "--listen host:1": "IP address", "--ttl 0": "--ttl", "--ttl 1ms": "1 second", "--per-address 0": "--per-address", "x": "no argument",
	} {
		vix(t, append([]string{"registry"}, strings.Fields(args)...)...).fails(t, 2, word)
	}
	_, url := runRegistry(t)
	taken := strings.TrimSuffix(strings.TrimPrefix(url, "http://"), "/p2p/v1")
	vix(t, "registry", "--listen", taken).fails(t, 1, "another program uses it")
	vix(t, "registry", "--listen", "127.0.0.1:0", "--file", dir).fails(t, 1, "cannot be read")
}

func TestRegistryRow(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	at := localapi.Time{Time: now.Add(-3 * time.Second)}
	next := localapi.Time{Time: now.Add(30 * time.Second)}
	const url = "http://192.0.2.1:8080"
	for _, c := range []struct {
		reg  *localapi.Registry
		want string
	}{
		{nil, ""},
		{&localapi.Registry{URL: url}, url + ": not asked yet"},
		{&localapi.Registry{URL: url, LastSuccess: &at, Announced: true, Peers: 1}, url + ": 1 other node, 3.0 s ago; announced"},
		{&localapi.Registry{URL: url, LastSuccess: &at, Peers: 2}, url + ": 2 other nodes, 3.0 s ago; not announced"},
		{&localapi.Registry{URL: url, LastSuccess: &at, Why: "it is switched off"}, url + ": 0 other nodes, 3.0 s ago; not announced: it is switched off"},
		{&localapi.Registry{URL: url, LastError: "nobody\x1b there", Next: &next}, `nobody\x1b there; last success: never; asked again in 30 s`},
		{&localapi.Registry{URL: url, LastError: "nobody there", LastSuccess: &at, Next: &at}, "nobody there; last success: 3.0 s ago; asked again now"},
	} {
		got := ""
		registryRow(c.reg, now, func(_, format string, args ...any) { got += fmt.Sprintf(format, args...) })
		if got != c.want {
			t.Errorf("got %q, want %q", got, c.want)
		}
	}
}
