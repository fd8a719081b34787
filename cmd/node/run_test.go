package main

import (
	"bytes"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"vixp2p/node/localapi"
)

var statsForm = regexp.MustCompile(`^\[vix p2p\] peers_total=\d+ peers_connected=\d+ handshakes_started=\d+ handshakes_completed=\d+ connect_attempts=\d+ connect_deduped=\d+ connect_failures=\d+ backoff_skips=\d+ tracked_endpoints=\d+ ops=\d+ pending=\d+$`)

func TestRunPrintsReadyAndStats(t *testing.T) {
	p := background(t, nil, "run", "--data-dir", t.TempDir(), "--stats-every", "20")
	if l := p.line(); !regexp.MustCompile(`^ready peer_id=12D3KooW\w+ listen=/ip4/127\.0\.0\.1/tcp/\d+,\S+$`).MatchString(l) {
		t.Errorf("the first line is %q", l)
	}
	for range 3 {
		if l := p.line(); !statsForm.MatchString(l) {
			t.Errorf("a line is %q", l)
		}
	}
	p.signal(os.Interrupt)
	if code := p.end(); code != 0 {
		t.Errorf("exit %d: %s", code, p.errText())
	}

	r := vix(t, "run", "--data-dir", t.TempDir(), "--run", "0.2", "--quiet", "--log-level", "off").ok(t)
	lines := strings.Split(strings.TrimSpace(r.out), "\n")
	if len(lines) != 2 || !strings.HasPrefix(lines[0], "ready ") || !statsForm.MatchString(lines[1]) {
		t.Errorf("run --quiet prints %q", lines)
	}
	r = vix(t, "run", "--data-dir", t.TempDir(), "--run=1.5", "--tui=on", "--stats-every=20ms", "--log-level=none").ok(t)
	if !strings.Contains(r.out, eraseLine+"[vix p2p] ") || !statsForm.MatchString(lastLine(r.out)) {
		t.Errorf("run --tui on prints %q", r.out)
	}
}

func lastLine(s string) string {
	s = strings.TrimSpace(s)
	s = s[strings.LastIndex(s, "\n")+1:]
	return strings.TrimSpace(s[strings.LastIndex(s, "\x1b[K")+len("\x1b[K"):])
}

// The original's command lines work: `p2p`, its flags, its forms of addresses.
func TestOriginalCommandLines(t *testing.T) {
	data := []string{"XDG_DATA_HOME=" + t.TempDir(), "HOME=" + t.TempDir()}
	a := &running{proc: background(t, data, "p2p", "--id", "A", "--listen", "0", "--discovery", "off", "--tui", "off")}
	a.ready(a.line())
	b := background(t, data, "p2p", "--id", "B", "--listen=0", "--connect", "tcp://"+a.addr, "--connect-delay", "10",
		"--stats-every", "20", "--tui=off", "--discovery", "on", "--disc-port", "37021", "--disc-mode", "multicast", "--disc-interval", "500",
		"--bootstrap", "off", "--registry", "http://127.0.0.1:8080/p2p/v1", "--boot-interval", "5", "--announce", "off", "--log-level", "warning")
	for l := b.line(); !strings.Contains(l, "peers_connected=1 "); l = b.line() {
	}
	b.signal(os.Interrupt)
	if code := b.end(); code != 0 {
		t.Errorf("exit %d", code)
	}
	if got := b.errText(); strings.Count(got, "note:") != 1 || !strings.Contains(got, "--disc-port and --disc-mode have no effect: LAN discovery is multicast DNS") {
		t.Errorf("the error output is %q", got)
	}
	if got := a.errText(); strings.Contains(got, "note:") {
		t.Errorf("a note about what was switched off: %q", got)
	}
	r := vixIn(t, data, "", "put", "--id", "A", "k", "v")
	r.ok(t)
}

// A node that has all the peers it may have says so to one more.
func TestMaxPeers(t *testing.T) {
	a := runNode(t, "", "--max-peers", "1")
	b, c := runNode(t, ""), runNode(t, "")
	b.vix("connect", a.addr).ok(t)
	a.vix("wait", "--peers", "1").ok(t) // a has its end of the session a moment after b
	c.vix("connect", a.addr).fails(t, 1, "the peer says: busy (it has its 1 session already)")
	a.vix("status").ok(t)
	a.vix("connect", c.addr).fails(t, 1, "this node has its 1 session (--max-peers 1)")
}

func TestBadInput(t *testing.T) {
	busy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	dir := t.TempDir()
	n := runNode(t, dir, "--network-name", "lab")
	port := busy.Addr().String()

	vix(t, "run", "--data-dir", t.TempDir(), "--listen", port).fails(t, 1, "another program uses it")
	vix(t, "run", "--data-dir", t.TempDir(), "--api", port).fails(t, 1, "local API", "another address")
	vix(t, "run", "--data-dir", dir).fails(t, 1, "a node is running", n.peerID)
	n.stop()
	// A directory keeps its network, and commands and run know it.
	vix(t, "put", "k", "v", "--data-dir", dir).ok(t)
	vix(t, "run", "--data-dir", dir, "--network-name", "other").fails(t, 1, `"lab"`, `"other"`)
	runNode(t, dir).stop()

	// A node without an API has the directory, and cannot be asked.
	held := runNode(t, dir, "--api", "off")
	vix(t, "get", "k", "--data-dir", dir, "--timeout", "200ms").fails(t, 1)
	held.stop()

	// What is no data directory, or one of a later version.
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	vix(t, "get", "k", "--data-dir", file).fails(t, 1, "not a directory")
	vix(t, "run", "--data-dir", file).fails(t, 1, "not a directory")
	newer := t.TempDir()
	if err := os.WriteFile(filepath.Join(newer, "format"), []byte("vix-node 99\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	vix(t, "run", "--data-dir", newer).fails(t, 1, "version 99", "upgrade")
	vix(t, "put", "k", "v", "--data-dir", newer).fails(t, 1, "version 99", "upgrade")

	vix(t, "get", "k", "--data-dir", t.TempDir()).fails(t, 1, "no node data")
	vix(t, "verify", "--data-dir", t.TempDir()).fails(t, 1, "no node data")
}

func TestWrongUsage(t *testing.T) {
	dir := t.TempDir()
	on := func(args string, words ...string) {
		t.Helper()
		vix(t, append(strings.Fields(args), "--data-dir", dir)...).fails(t, 2, words...)
	}
	for args, word := range map[string]string{
		"run": "--id", "get k": "--id", "status": "--id",
		"frobnicate": `unknown command "frobnicate"`, "stauts": "did you mean status",
		"run --id a/b": "directory",
	} {
		vixIn(t, []string{"HOME=" + dir}, "", strings.Fields(args)...).fails(t, 2, word)
	}
	on("get", "needs a key")
	on("get a b", `"b"`)
	on("put k", "needs a key and a value")
	on("ls a b", `"b"`)
	on("tail x", "no argument")
	on("run x", "no argument")
	on("status --nope", "unknown flag --nope")
	on("get -x k", "unknown flag -x")
	on("run --tui maybe", `--tui takes on or off, not "maybe"`)
	on("run --discovery=yes", "--discovery takes on or off")
	on("run --disc-mode unicast", "broadcast or multicast")
	on("run --disc-port 70000", "0 to 65535")
	on("run --id A --disc-interval 5", "--disc-interval takes 100ms or more, not \"5\"")
	on("run --dht maybe", "off, client, server or auto")
	on("run --id A --dht off --dht-bootstrap 127.0.0.1:1", "the DHT is off")
	on("run --id A --dht-bootstrap nonsense", "is not host:port")
	on("run --log-level loud", "--log-level takes trace, debug")
	on("run --log-format xml", "text or json")
	on("run --durability eventually", "strict or relaxed")
	on("run --stats-every soon", "milliseconds")
	on("run --max-peers 0", "--max-peers takes a whole number from 1 to 10000")
	on("run --run -5", "seconds")
	on("run --tcp off --quic off", "transports")
	on("run --listen 70000", "port")
	on("run --listen 0.0.0.0:0", "--open")
	on("run --connect nowhere", "host:port")
	on("run --connect ftp://127.0.0.1:1", "scheme")
	on("run --api 0.0.0.0:0", "loopback")
	on("run --json=perhaps", "true or false")
	on("run --listen=", "address")
	on("wait --peers many", "whole number")
	on("put k v --timeout never", "--timeout takes")
	on("append put x", "built in")
	vix(t, "put", "", "v", "--data-dir", dir).fails(t, 2, "key is empty")
	vix(t, "run", "--data-dir", dir, "--listen").fails(t, 2, "--listen needs a value")
}

func TestEnvironment(t *testing.T) {
	dir := t.TempDir()
	env := []string{"VIX_DATA_DIR=" + dir, "VIX_JSON=true", "VIX_SPACE=lab"}
	if r := vixIn(t, env, "", "put", "k", "v"); r.code != 0 || r.keys(t) != "log seq replicas" {
		t.Errorf("%+v", r)
	}
	// A flag is stronger than its variable.
	if r := vixIn(t, env, "", "get", "k", "--json=false").ok(t); r.out != "v" {
		t.Errorf("%+v", r)
	}
	vixIn(t, env, "", "get", "k", "--space", "default").fails(t, 1, "no key")
	vixIn(t, append(env, "VIX_JSON=perhaps"), "", "get", "k").fails(t, 2, "VIX_JSON", "true or false")
	// A list has several items.
	p := background(t, append(env, "VIX_LISTEN=/ip4/127.0.0.1/tcp/0,/ip4/127.0.0.1/udp/0/quic-v1", "VIX_LOG_LEVEL=off", "VIX_QUIET=true"), "run")
	if l := p.line(); strings.Count(l, "/ip4/127.0.0.1/") != 2 || strings.Contains(l, "/ip6/") {
		t.Errorf("listening: %s", l)
	}
}

// Help needs no node, and every command has an example.
func TestHelp(t *testing.T) {
	r := vix(t).ok(t)
	for _, cmd := range []string{"run", "put", "get", "del", "ls", "watch", "append", "tail", "load", "wait", "status", "peers", "connect", "disconnect", "forget", "verify", "registry", "demo", "version"} {
		if !regexp.MustCompile(`(?m)^  ` + cmd + ` +[A-Z]`).MatchString(r.out) {
			t.Errorf("help does not list %s", cmd)
		}
		help := vix(t, cmd, "--help").ok(t).out
		if !strings.Contains(help, "Usage:") || !strings.Contains(help, "--data-dir") || cmd != "version" && !strings.Contains(help, "Examples:") {
			t.Errorf("%s --help prints %s", cmd, help)
		}
	}
	if out := vix(t, "completion", "bash").ok(t).out; !strings.Contains(out, "vix-node") {
		t.Error("there is no completion for bash")
	}
}

// A reader of run's output that stands still, or has gone, neither ends the node
// nor keeps it from ending.
func TestShowerDoesNotHoldTheEndUp(t *testing.T) {
	s := newShower()
	stuck := make(chan struct{})
	defer close(stuck)
	began := make(chan struct{})
	s.show(func() { close(began); <-stuck })
	<-began
	for range 10 {
		s.show(func() {})
	}
	ctx, cancel := within(t.Context(), 20*time.Millisecond)
	defer cancel()
	s.last(ctx, func() { t.Error("the last thing is shown although the reader stands still") })

	s = newShower()
	shown := false
	s.last(t.Context(), func() { shown = true })
	if !shown {
		t.Error("the last thing is not shown")
	}
}

func TestNotes(t *testing.T) {
	for args, want := range map[string]string{
		"":                                    "",
		"--discovery off --disc-port 1":       "--disc-port has no effect",
		"--bootstrap off --registry http://x": "",
		"--announce off":                      "",
		"--discovery on":                      "",
		"--disc-interval 100":                 "",
		"--disc-mode multicast --disc-port 1": "--disc-port and --disc-mode have no effect",
		"--registry http://x":                 "",
	} {
		p := &program{terminal: func(io.Writer) bool { return false }}
		cmd := p.runCommand()
		if err := cmd.Flags().Parse(strings.Fields(args)); err != nil {
			t.Fatal(err)
		}
		if got := idleNote(cmd.Flags()); want == "" && got != "" || !strings.HasPrefix(got, want) {
			t.Errorf("%q: %q", args, got)
		}
	}
}

func TestLiveLine(t *testing.T) {
	st := localapi.Totals{
		Label: "A", Durability: "strict", Counters: localapi.Counters{PeersTotal: 3, PeersConnected: 2},
		Ops: 63667, Pending: 13, Settled: true,
		Sync: &localapi.Sync{Done: 430, Total: 1000, Percent: 43, RemainingS: 12},
	}
	for _, c := range []struct {
		change func()
		width  int
		want   string
	}{
		{func() {}, 200, "[vix p2p] A | peers 2/3 | ops 63,667 | pending 13 | catching up 43 %, 430 of 1,000 operations, 12 s left"},
		{func() { st.Sync.RemainingS = -1 }, 200, "[vix p2p] A | peers 2/3 | ops 63,667 | pending 13 | catching up 43 %, 430 of 1,000 operations"},
		{func() {}, 40, "[vix p2p] A | peers 2/3 | ops 63,667 |…"},
		{func() { st.Sync, st.Pending = nil, 0 }, 200, "[vix p2p] A | peers 2/3 | ops 63,667 | in step"},
		{func() { st.Ended = true }, 200, "[vix p2p] A | peers 2/3 | ops 63,667 | a certificate has ended, see peers"},
		{func() { st.Settled, st.Ended = false, false }, 200, "[vix p2p] A | peers 2/3 | ops 63,667 | comparing"},
		{func() { st.Settled, st.Damaged = true, true }, 200, "[vix p2p] A | peers 2/3 | ops 63,667 | in step | DAMAGED, see status"},
		{func() { st.Counters, st.Durability, st.Damaged = localapi.Counters{}, "relaxed", false }, 200, "[vix p2p] A | peers 0/0 | ops 63,667 | RELAXED"},
		{func() { st.Label = "\x1b[31mred" }, 200, `[vix p2p] \x1b[31mred | peers 0/0 | ops 63,667 | RELAXED`},
	} {
		c.change()
		if got := renderLive(&st, c.width); got != c.want {
			t.Errorf("got  %s\nwant %s", got, c.want)
		}
	}

	var out, logs bytes.Buffer
	l := &liveLine{out: &out, logs: &logs}
	if _, err := l.Write([]byte("early\n")); err != nil || out.Len() != 0 {
		t.Errorf("a log line before the live line: %q, %v", out.String(), err)
	}
	l.set("one")
	if _, err := l.Write([]byte("log\n")); err != nil {
		t.Error(err)
	}
	l.clear()
	if want := eraseLine + "one" + eraseLine + "one" + eraseLine; out.String() != want || logs.String() != "early\nlog\n" {
		t.Errorf("terminal %q, logs %q", out.String(), logs.String())
	}
}

func TestStatusForPeople(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	acked := localapi.Time{Time: now.Add(-1500 * time.Millisecond)}
	st := localapi.Status{
		PeerID: "12D3KooWAyyXTq5w5HkenwD7kB4ryuNLQTJLMQ88nAxqqgZisqau", Label: "A", Instance: "9a55f0a4b13937bfc8996eec11d37517",
		Network: "open", NetworkName: "dev", DataDir: "/data/A", Durability: "relaxed", Recovered: "the witness is ahead",
		Listen: []string{"/ip4/127.0.0.1/tcp/9001", "/ip4/127.0.0.1/udp/9001/quic-v1"},
		Spaces: map[string]localapi.Space{"default": {Ops: 63666, Bytes: 12_900_000, Keys: 63666, Logs: 2, ForkedLogs: 1, ViewDigest: "1bb80db4ff", FrontierDigest: "87449895ff"},
			"diary": {Logs: 1, ViewError: "a relay cannot read it", FrontierDigest: "aa"}, "letters": {Logs: 1, Sealed: true, ViewError: "not said", FrontierDigest: "dd"}, "notes": {Keys: 1, ViewError: "no key yet", ViewDigest: "bb", FrontierDigest: "cc"}},
		Peers: []localapi.Peer{
			{PeerID: "12D3KooWBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBB", Label: "B", State: "Connected", Direction: "out", Addr: "tcp://127.0.0.1:9002", RTTMillis: 0.42,
				PendingOps: 1200, PendingBytes: 34_000, MissingOps: 7, LastAck: &acked, Settled: true, Durability: "strict",
				Spaces: []localapi.Flow{{Space: "default", Settled: true}, {Space: "notes", Why: "the peer's certificate for it ended"}},
				Paused: []localapi.Paused{{Space: "default", Log: "0123456789abcdef", Why: "forked"}}},
			{PeerID: "12D3KooWCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCC", State: "Disconnected", Durability: "relaxed", LastError: "nothing listens at tcp://127.0.0.1:9003"},
		},
		Endpoints: []localapi.Endpoint{{Endpoint: "tcp://127.0.0.1:9003", Failures: 3, LastError: "connection refused"}, {Endpoint: "tcp://127.0.0.1:9002"},
			{Endpoint: "tcp://127.0.0.1:9004", Failures: 1, LastError: "tcp://127.0.0.1:9004 cannot be reached"},
			{Endpoint: "quic://127.0.0.1:9003", Failures: 2, LastError: "no answer", PeerID: "12D3KooWCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCC"},
			{Endpoint: "tcp://10.0.0.1:9003", Failures: 1, LastError: "no answer", PeerID: "12D3KooWCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCC"},
			{Endpoint: "tcp://10.0.0.2:9002", Failures: 1, LastError: "no answer", PeerID: "12D3KooWBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBB"}},
		Started: &localapi.Time{Time: now.Add(-26 * time.Hour)}, Copies: true,
	}
	var out bytes.Buffer
	if err := printStatus(&out, &st, now); err != nil {
		t.Fatal(err)
	}
	want := `node        A  12D3KooWAyyXTq5w5HkenwD7kB4ryuNLQTJLMQ88nAxqqgZisqau
network     open (dev)
directory   /data/A
instance    9a55f0a4b13937bfc8996eec11d37517
since       2026-01-01 01:04:05 UTC (26 h ago)
durability  RELAXED: writes are not fsynced; if this machine crashes, the newest may be lost
listen      /ip4/127.0.0.1/tcp/9001
            /ip4/127.0.0.1/udp/9001/quic-v1
COPIES      another node runs from a copy of this data directory and takes over its sessions: stop one of them, or give one a new directory
RECOVERED   the witness is ahead

SPACE    OPS     BYTES     KEYS    CONFLICTS  LOGS          VIEW        FRONTIER
default  63,666  12.3 MiB  63,666  0          2 (1 FORKED)  1bb80db4    87449895
diary    0       0 B       0       0          1             UNREADABLE  aa
letters  0       0 B       0       0          1             sealed      dd
notes    0       0 B       1       0          0             WAITING     cc

the keys of space diary: a relay cannot read it
space letters is encrypted: this node stores and forwards it, and has no role to read it
the keys of space notes: no key yet

PEER       LABEL  STATE                 ADDRESS               RTT     PENDING           MISSING  LAST ACK
…BBBBBBBB  B      Connected (out)       tcp://127.0.0.1:9002  0.4 ms  1,200 (33.2 KiB)  7        1.5 s ago
…CCCCCCCC         Disconnected RELAXED                        -       0                 ?        -

B (…BBBBBBBB): log 01234567 of space default is paused: forked
B (…BBBBBBBB): space notes is not exchanged: the peer's certificate for it ended
…CCCCCCCC: nothing listens at tcp://127.0.0.1:9003 (3 failed attempts at 2 addresses)
…CCCCCCCC: it runs with relaxed durability: what it holds counts for no --replicas
tcp://127.0.0.1:9003: connection refused (3 failed attempts)
tcp://127.0.0.1:9004 cannot be reached (1 failed attempt)
`
	if out.String() != want {
		t.Errorf("got\n%s\nwant\n%s", out.String(), want)
	}
}
