package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"vixp2p/node"
	"vixp2p/node/localapi"
)

const versionKeys = "origin log seq time"

var timeForm = regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$`)

// The commands about data do the same on a running node and on a directory that
// no node has open.
func TestKeys(t *testing.T) {
	for _, mode := range []string{"node", "directory"} {
		t.Run(mode, func(t *testing.T) {
			dir := t.TempDir()
			if mode == "node" {
				runNode(t, dir)
			} else {
				// The first write makes the directory, and says so.
				if r := vix(t, "put", "first", "1", "--data-dir", dir); r.code != 0 || !strings.Contains(r.err, "new data directory") {
					t.Fatalf("%+v", r)
				}
				vix(t, "del", "first", "--data-dir", dir).ok(t)
			}
			on := func(args ...string) result { return vix(t, append(args, "--data-dir", dir)...) }

			if r := on("put", "k", "hello <you> & me").ok(t); r.out != "" {
				t.Errorf("put prints %q", r.out)
			}
			if r := on("get", "k").ok(t); r.out != "hello <you> & me" {
				t.Errorf("get prints %q", r.out)
			}
			r := on("get", "k", "--json").ok(t)
			if got := r.keys(t); got != "key value "+versionKeys+" conflicts" {
				t.Errorf("get --json has %s", got)
			}
			o := r.object(t)
			if o["value"] != "hello <you> & me" || o["conflicts"] != 0.0 || !timeForm.MatchString(o["time"].(string)) || len(o["log"].(string)) != 64 {
				t.Errorf("get --json: %s", r.out)
			}
			r = on("get", "k", "--conflicts").ok(t)
			if got := r.keys(t); got != "key siblings" {
				t.Errorf("get --conflicts has %s", got)
			}
			if s := r.object(t)["siblings"].([]any); len(s) != 1 {
				t.Errorf("get --conflicts: %s", r.out)
			}

			raw := string([]byte{0, 0xff, '\n', 0xfe})
			vixIn(t, nil, raw, "put", "bin", "-", "--data-dir", dir).ok(t)
			if r := on("get", "bin").ok(t); r.out != raw {
				t.Errorf("bytes came back as %q", r.out)
			}
			if r := on("get", "bin", "--json").ok(t); r.object(t)["value_base64"] != "AP8K/g==" {
				t.Errorf("get --json of bytes: %s", r.out)
			}
			on("put", "empty", "").ok(t)
			if r := on("get", "empty", "--json").ok(t); r.object(t)["value"] != "" {
				t.Errorf("get --json of nothing: %s", r.out)
			}

			r = on("put", "k", "2", "--json").ok(t)
			if got := r.keys(t); got != "log seq replicas" {
				t.Errorf("put --json has %s", got)
			}
			if got := on("append", "note", "hi", "--json").ok(t); got.keys(t) != "log seq" || got.object(t)["seq"].(float64) != r.object(t)["seq"].(float64)+1 {
				t.Errorf("append --json: %s after %s", got.out, r.out)
			}
			if got := on("del", "empty", "--json").ok(t); got.keys(t) != "log seq replicas" {
				t.Errorf("del --json: %s", got.out)
			}
			on("put", "other", "x", "--space", "else").ok(t)

			if r := on("ls").ok(t); r.out != "bin\nk\n" {
				t.Errorf("ls prints %q", r.out)
			}
			if r := on("ls", "k").ok(t); r.out != "k\n" {
				t.Errorf("ls k prints %q", r.out)
			}
			if r := on("ls", "--json").ok(t); len(r.objects(t)) != 2 || r.keys(t) != "key value_base64 "+versionKeys+" conflicts" {
				t.Errorf("ls --json prints %s", r.out)
			}
			if r := on("ls", "--conflicts").ok(t); r.out != "" {
				t.Errorf("ls --conflicts prints %q", r.out)
			}
			if r := on("ls", "--space=else").ok(t); r.out != "other\n" {
				t.Errorf("ls of another space prints %q", r.out)
			}
			on("get", "none").fails(t, 1, `no key "none"`)
			on("put", "k", "v", "--space", strings.Repeat("s", 200)).fails(t, 2, "space name")
			on("get", "empty").fails(t, 1, `no key "empty"`)

			r = on("tail", "--json").ok(t)
			if got := r.keys(t); got != "cursor "+versionKeys+" kind key payload" {
				t.Errorf("tail --json has %s", got)
			}
			ops := r.objects(t)
			last := ops[len(ops)-1]
			if last["kind"] != "delete" || last["key"] != "empty" || last["payload"] != "" {
				t.Errorf("the last operation is %v", last)
			}
			note := ops[len(ops)-2]
			if note["kind"] != "note" || note["payload"] != "hi" || note["key"] != "" {
				t.Errorf("the appended operation is %v", note)
			}
			if r := on("tail", "--json", "--from", note["cursor"].(string)).ok(t); len(r.objects(t)) != 1 {
				t.Errorf("tail after the note prints %s", r.out)
			}
			if r := on("tail", "--set-aside").ok(t); r.out != "" { // in an open network there is none
				t.Error(r.out)
			}
			on("tail", "--set-aside", "--from", "now").fails(t, 2, "no order of arrival")
			if r := on("tail", "--json", "--count", "2").ok(t); len(r.objects(t)) != 2 || r.objects(t)[0]["cursor"] != ops[0]["cursor"] {
				t.Errorf("tail --count 2 prints %s", r.out)
			}
			r = on("verify", "--json").ok(t)
			if strings.TrimSpace(r.out) != `{"ok":true,"findings":[]}` {
				t.Errorf("verify --json prints %s", r.out)
			}
			if r := on("verify", "--rebuild"); r.code != 0 {
				t.Errorf("verify --rebuild: %+v", r)
			}
			if r := on("get", "k").ok(t); r.out != "2" {
				t.Errorf("after a rebuild get prints %q", r.out)
			}
			on("put", "big", strings.Repeat("x", 100_000)).ok(t)
			vixIn(t, nil, strings.Repeat("x", 1<<20), "put", "big", "-", "--data-dir", dir).fails(t, 1, "limit")
			vixIn(t, nil, strings.Repeat("x", 1<<20+1), "put", "big", "-", "--data-dir", dir).fails(t, 1, "limit")
			on("put", strings.Repeat("k", 5000), "v").fails(t, 1, "key", "limit")
			if r := on("get", "big").ok(t); len(r.out) != 100_000 {
				t.Errorf("a refused value left %d bytes", len(r.out))
			}
		})
	}
}

func TestTwoNodes(t *testing.T) {
	a := runNode(t, "", "--id", "A")
	b := runNode(t, "", "--id", "B")

	r := a.vix("connect", b.addr, "--json").ok(t)
	if r.keys(t) != "peer_id addr" || r.object(t)["peer_id"] != b.peerID {
		t.Errorf("connect prints %s", r.out)
	}
	a.vix("wait", "--peers", "1", "--timeout", "20").ok(t)
	r = a.vix("put", "k", "v", "--replicas", "1", "--timeout", "20s", "--json").ok(t)
	if r.object(t)["replicas"] != 1.0 {
		t.Errorf("put --replicas prints %s", r.out)
	}
	b.vix("wait", "--synced", "--timeout", "20").ok(t) // what is durable is not yet what get sees
	if r := b.vix("get", "k").ok(t); r.out != "v" {
		t.Errorf("B has %q", r.out)
	}
	r = a.runsOut([]string{"put", "k", "w", "--replicas", "3", "--json"},
		"durable here and at 1 other member", "3", "only members with a session here are counted (1 now)")
	if r.object(t)["replicas"] != 1.0 {
		t.Errorf("put --replicas 3 prints %s", r.out)
	}
	b.vix("wait", "--synced", "--timeout", "20").ok(t)
	a.runsOut([]string{"wait", "--peers", "2"}, "1 of 2 peers")

	r = a.vix("status", "--json").ok(t)
	if got, want := r.keys(t), "peer_id label instance network listen durability peers counters spaces"; !strings.HasPrefix(got, want) {
		t.Errorf("status --json has %s", got)
	}
	st := r.object(t)
	if st["peer_id"] != a.peerID || st["label"] != "A" || st["network"] != "open" || len(st["instance"].(string)) != 32 {
		t.Errorf("status --json prints %s", r.out)
	}
	space := st["spaces"].(map[string]any)["default"].(map[string]any)
	for _, k := range []string{"ops", "bytes", "keys", "conflicts", "logs", "frontier_digest", "view_digest"} {
		if _, ok := space[k]; !ok {
			t.Errorf("a space has no %s: %v", k, space)
		}
	}
	other := b.vix("status", "--json").ok(t).object(t)["spaces"].(map[string]any)["default"].(map[string]any)
	if space["view_digest"] != other["view_digest"] || space["frontier_digest"] != other["frontier_digest"] {
		t.Errorf("digests differ: %v, %v", space, other)
	}
	r = a.vix("peers", "--json").ok(t)
	if got, want := r.keys(t), "peer_id label state direction addr rtt_ms pending_ops pending_bytes missing_ops last_ack"; !strings.HasPrefix(got, want) {
		t.Errorf("peers --json has %s", got)
	}
	if p := r.object(t); p["label"] != "B" || p["state"] != "Connected" || p["direction"] != "out" || p["pending_ops"] != 0.0 || !timeForm.MatchString(p["last_ack"].(string)) {
		t.Errorf("peers --json prints %s", r.out)
	}
	for _, words := range [][]string{{"status", a.peerID, "strict", "default"}, {"peers", "B", "Connected (out)"}} {
		out := a.vix(words[0]).ok(t).out
		for _, w := range words[1:] {
			if !strings.Contains(out, w) {
				t.Errorf("%s does not show %q:\n%s", words[0], w, out)
			}
		}
	}

	if r := a.vix("disconnect", "B", "--json").ok(t); r.object(t)["peer_id"] != b.peerID {
		t.Errorf("disconnect prints %s", r.out)
	}
	a.vix("disconnect", "nobody").fails(t, 1, "nobody")
	a.vix("connect", "not an address").fails(t, 2, "host:port")
	start := time.Now()
	a.vix("connect", deadPort(t)).fails(t, 1, "nothing listens")
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("a dead port took %s", took)
	}
	a.vix("connect", a.addr).fails(t, 1, "itself")
}

// deadPort is an address at which nobody listens.
func deadPort(t *testing.T) string {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().String()
}

func TestWatchAndFollow(t *testing.T) {
	n := runNode(t, "")
	watch := background(t, nil, "watch", "user/", "--json", "--count", "2", "--data-dir", n.dir)
	tail := background(t, nil, "tail", "--json", "--follow", "--data-dir", n.dir)
	// It is not known when the watch begins: write until it has ended.
	ended := false
	for i := 0; !ended; i++ {
		n.vix("put", "user/1", fmt.Sprint(i)).ok(t)
		n.vix("put", "else", "x").ok(t)
		select {
		case <-watch.done:
			ended = true
		default:
		}
	}
	if code := watch.end(); code != 0 {
		t.Fatalf("watch ended with %d: %s", code, watch.errText())
	}
	var cursor string
	for range 2 {
		var ev map[string]any
		line := watch.line()
		if err := json.Unmarshal([]byte(line), &ev); err != nil || ev["event"] != "put" || ev["key"] != "user/1" || ev["cursor"] == "" {
			t.Fatalf("event %s", line)
		}
		if cursor == "" {
			cursor = ev["cursor"].(string)
		}
	}
	// From a cursor nothing is missed; a delete has no value.
	n.vix("del", "user/1").ok(t)
	rest := background(t, nil, "watch", "user/", "--json", "--from", cursor, "--data-dir", n.dir)
	var r result
	for deleted := false; !deleted; {
		r = result{out: rest.line()}
		deleted = r.object(t)["event"] == "delete"
	}
	if last := r.object(t); last["value"] != nil || r.keys(t)[:16] != "cursor event key" {
		t.Errorf("from the cursor: %s", r.out)
	}
	rest.signal(os.Interrupt)
	if code := rest.end(); code != 0 {
		t.Errorf("watch ended with %d: %s", code, rest.errText())
	}
	n.vix("watch", "--count", "1", "--timeout", "100ms").fails(t, 1, "the time is up")
	n.vix("watch", "--from", "nonsense").fails(t, 2, "cursor")

	if line := tail.line(); !strings.Contains(line, `"kind":"put"`) {
		t.Errorf("tail --follow prints %s", line)
	}
	// Ctrl-C is how a person ends it.
	tail.signal(os.Interrupt)
	if code := tail.end(); code != 0 {
		t.Errorf("tail --follow ended with %d: %s", code, tail.errText())
	}
}

func TestLoad(t *testing.T) {
	n := runNode(t, "")
	file := filepath.Join(t.TempDir(), "in.jsonl")
	var lines strings.Builder
	for i := range 5000 {
		fmt.Fprintf(&lines, "{\"key\":\"k/%04d\",\"value\":{\"n\": %d}}\n", i, i)
	}
	if err := os.WriteFile(file, []byte(lines.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	r := n.vix("load", file, "--json").ok(t)
	objs := r.objects(t)
	acked := 0.0
	for _, o := range objs[:len(objs)-1] {
		if o["acked"].(float64) <= acked {
			t.Errorf("acked goes from %v to %v", acked, o["acked"])
		}
		acked = o["acked"].(float64)
	}
	if total := objs[len(objs)-1]; acked != 5000 || total["records"] != 5000.0 || total["bytes"].(float64) < 5000*10 || total["seconds"].(float64) <= 0 {
		t.Errorf("the last ack is %v, the end %v", acked, total)
	}
	if r := n.vix("get", "k/4999").ok(t); r.out != `{"n":4999}` {
		t.Errorf("a value is %q", r.out)
	}
	if r := n.vix("load", file).ok(t); !strings.HasPrefix(r.out, "5,000 records, ") {
		t.Errorf("load prints %q", r.out)
	}
	if r := vixIn(t, nil, `{"key":"one","value":1}`, "load", "-", "--data-dir", n.dir).ok(t); !strings.HasPrefix(r.out, "1 record, ") {
		t.Errorf("load of one record prints %q", r.out)
	}
	// What ls prints can be loaded elsewhere, bytes included.
	vixIn(t, nil, "\xff", "put", "bytes", "-", "--data-dir", n.dir).ok(t)
	dump := n.vix("ls", "--json").ok(t).out
	other := t.TempDir()
	if r := vixIn(t, nil, dump, "load", "-", "--data-dir", other); r.code != 0 {
		t.Fatalf("%+v", r)
	}
	if r := vix(t, "get", "bytes", "--data-dir", other).ok(t); r.out != "\xff" {
		t.Errorf("bytes arrive as %q", r.out)
	}

	bad := "{\"key\":\"good\",\"value\":1}\n\n{\"key\":\"bad\",\"value\":}\n{\"key\":\"late\",\"value\":1}\n"
	r = vixIn(t, nil, bad, "load", "-", "--json", "--data-dir", n.dir)
	r.fails(t, 1, "line 3", "JSON", "the record before it")
	if strings.TrimSpace(r.out) != `{"acked":1}` {
		t.Errorf("a bad line: %s", r.out)
	}
	n.vix("get", "good").ok(t)
	for _, line := range []string{`{"key":"","value":1}`, `{"key":"` + strings.Repeat("k", 5000) + `","value":1}`} {
		r = vixIn(t, nil, "{\"key\":\"good\",\"value\":1}\n"+line+"\n", "load", "-", "--json", "--data-dir", n.dir)
		r.fails(t, 1, "line 2: the key is", "the record before it")
		if strings.TrimSpace(r.out) != `{"acked":1}` {
			t.Errorf("a bad key: %s", r.out)
		}
	}
	n.vix("get", "late").fails(t, 1)
	n.vix("load", file+"x").fails(t, 1, "cannot open", "no such file")
	n.vix("load", filepath.Dir(file)).fails(t, 1, "directory")

	// An interrupted load says what is stored.
	load := background(t, nil, "load", "-", "--json", "--data-dir", n.dir)
	fmt.Fprintln(load.stdin, `{"key":"slow","value":1}`)
	if l := load.line(); l != `{"acked":1}` {
		t.Errorf("a slow producer: %s", l)
	}
	load.signal(os.Interrupt)
	if code := load.end(); code != 1 || !strings.Contains(load.errText(), "1 record is stored and stays: go on after it, or load all again if nobody else writes these keys") {
		t.Errorf("interrupted: exit %d, %s", code, load.errText())
	}
}

// A killed node leaves its files behind, and nobody is fooled by them.
func TestKilledNode(t *testing.T) {
	n := runNode(t, "")
	n.vix("put", "k", "v").ok(t)
	n.signal(syscall.SIGKILL)
	n.end()
	if _, err := os.Stat(filepath.Join(n.dir, localapi.AddrFile)); err != nil {
		t.Fatal("the test needs the files of the killed node: ", err)
	}
	n.vix("status").fails(t, 1, "no node is running", "vix-node run --data-dir")
	if r := n.vix("get", "k").ok(t); r.out != "v" {
		t.Errorf("get prints %q", r.out)
	}
	again := runNode(t, n.dir)
	if again.peerID != n.peerID {
		t.Errorf("the node is %s now, it was %s", again.peerID, n.peerID)
	}
	again.stop()
	if left, _ := filepath.Glob(filepath.Join(n.dir, "api.*")); len(left) != 0 {
		t.Errorf("a clean end leaves %v", left)
	}
}

// A copy of a running node's directory is a directory of its own: commands on it
// neither write to the original nor read from it.
func TestCopyOfARunningDirectory(t *testing.T) {
	n := runNode(t, "")
	n.vix("put", "k", "original").ok(t)
	empty := t.TempDir()
	for _, name := range []string{localapi.AddrFile, localapi.TokenFile} {
		b, err := os.ReadFile(filepath.Join(n.dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(empty, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	on := func(args ...string) result { return vix(t, append(args, "--data-dir", empty)...) }
	on("verify").fails(t, 1, "no node data in "+empty)
	on("status").fails(t, 1, "no node is running on "+empty)
	if r := on("put", "k", "copy"); r.code != 0 {
		t.Fatalf("%+v", r)
	}
	if r := on("get", "k").ok(t); r.out != "copy" {
		t.Errorf("the copy has %q", r.out)
	}
	if r := n.vix("get", "k").ok(t); r.out != "original" {
		t.Errorf("the original has %q", r.out)
	}
}

// A node that is there and cannot answer is not told to be started.
func TestNodeThatCannotAnswer(t *testing.T) {
	n := runNode(t, "")
	n.vix("put", "k", "v").ok(t)
	c, err := localapi.Dial(t.Context(), n.dir)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx, stop := context.WithCancel(t.Context())
	var streams sync.WaitGroup
	defer streams.Wait()
	defer stop()
	for range 128 { // as many as the node answers at one time
		begun := make(chan struct{})
		streams.Go(func() {
			_ = c.Tail(ctx, "default", localapi.Tail{Follow: true}, func(localapi.Record) error { close(begun); return nil })
		})
		<-begun
	}
	for _, args := range [][]string{{"status"}, {"get", "k"}, {"put", "k", "w"}, {"wait"}} {
		n.vix(args...).fails(t, 1, "the node answers 128 requests already", "try again")
	}
	stop()
	streams.Wait()
	r := n.vix("get", "k")
	// The node learns of the end of a stream after the client.
	for deadline := time.Now().Add(patience); strings.Contains(r.err, "128 requests already") && time.Now().Before(deadline); {
		r = n.vix("get", "k")
	}
	r.ok(t)
}

// A node whose loopback is another one (of a container that shares the directory) is
// not missing: the command has to be run over there.
func TestNodeOnAnotherLoopback(t *testing.T) {
	n, err := node.Open(t.Context(), node.Config{DataDir: t.TempDir(), Offline: true})
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	at := deadPort(t)
	for name, content := range map[string]string{localapi.AddrFile: at, localapi.TokenFile: strings.Repeat("ab", 32)} {
		if err := os.WriteFile(filepath.Join(n.DataDir(), name), []byte(content+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, args := range [][]string{{"status"}, {"put", "k", "v"}, {"wait", "--timeout", "300ms"}} {
		vix(t, append(args, "--data-dir", n.DataDir())...).fails(t, 1, n.DataDir()+" open", "nothing answers at "+at, "container", "run the command there")
	}
}

func TestWaitForANodeToStart(t *testing.T) {
	dir := t.TempDir()
	wait := background(t, nil, "wait", "--json", "--data-dir", dir)
	n := runNode(t, dir)
	if code := wait.end(); code != 0 {
		t.Errorf("wait ended with %d: %s", code, wait.errText())
	}
	n.vix("wait").ok(t)
	n.runsOut([]string{"wait", "--synced"}, "no peer is connected", "the time is up")
	vix(t, "wait", "--data-dir", t.TempDir(), "--timeout", "100ms").fails(t, 1, "no node answers", "vix-node run")
}

func TestVersion(t *testing.T) {
	r := vix(t, "version", "--json").ok(t)
	if got := r.keys(t); !strings.HasPrefix(got, "version commit go") {
		t.Errorf("version --json has %s", got)
	}
	if r := vix(t, "version").ok(t); !strings.HasPrefix(r.out, "vix-node ") {
		t.Errorf("version prints %q", r.out)
	}
	for _, as := range [][]string{{"--version"}, {"-v"}, {"--version", "--json"}} {
		want := vix(t, append([]string{"version"}, as[1:]...)...).ok(t).out
		if r := vixIn(t, []string{"VIX_VERSION=2"}, "", as...).ok(t); r.out != want {
			t.Errorf("%v prints %q", as, r.out)
		}
	}
}

func TestDemo(t *testing.T) {
	tmp := t.TempDir()
	r := vixIn(t, []string{"TMPDIR=" + tmp}, "", "demo").ok(t)
	if !strings.Contains(r.out, "Everything held") || strings.Count(r.out, "   ok, ") != 6 {
		t.Errorf("the demo prints %s", r.out)
	}
	if left, _ := filepath.Glob(filepath.Join(tmp, "vix-node-demo-*")); len(left) != 0 {
		t.Errorf("the demo leaves %v", left)
	}
	// Ctrl-C takes the nodes and their directory along.
	p := background(t, []string{"TMPDIR=" + tmp}, "demo")
	for l := p.line(); !strings.HasPrefix(l, "2."); l = p.line() {
	}
	p.signal(os.Interrupt)
	if code := p.end(); code != 1 || p.errText() != "vix-node: interrupted\n" {
		t.Errorf("an interrupted demo: exit %d, %q", code, p.errText())
	}
	if left, _ := filepath.Glob(filepath.Join(tmp, "vix-node-demo-*")); len(left) != 0 {
		t.Errorf("an interrupted demo leaves %v", left)
	}
	r = vixIn(t, []string{"TMPDIR=" + tmp}, "", "demo", "--timeout", "1ms")
	r.fails(t, 1, "step 1")
	if left, _ := filepath.Glob(filepath.Join(tmp, "vix-node-demo-*")); len(left) != 1 || !strings.Contains(r.out, left[0]) {
		t.Errorf("a demo that fails keeps %v and prints %s", left, r.out)
	}
}
