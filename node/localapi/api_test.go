package localapi

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
)

func start(t *testing.T) (*fake, *Client, string) {
	t.Helper()
	f, dir := newFake(), t.TempDir()
	s, err := Start(Config{Dir: dir, Backend: f, PeerID: "12D3KooWFake", Version: "test"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	c, err := Dial(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return f, c, dir
}

// raw makes a request as curl would.
func raw(t *testing.T, dir, method, path, body string) (int, string) {
	t.Helper()
	e, err := readEndpoint(dir)
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(t.Context(), method, "http://"+e.addr+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+e.token)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	out, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, strings.TrimSpace(string(out))
}

func TestClientIsABackend(t *testing.T) {
	f, c, _ := start(t)
	ctx := t.Context()
	binary := []byte{0xff, 0x00, 'x'}
	w, err := c.Write(ctx, "default", Write{Ops: []Op{
		{Op: OpPut, Key: []byte("a/1"), Value: []byte("<one> & two")},
		{Op: OpPut, Key: binary, Value: binary},
		{Op: OpPut, Key: []byte("a/empty"), Value: nil},
		{Op: OpAppend, Kind: "note", Payload: []byte("hi")},
	}})
	if err != nil || w.Seq != 4 || w.Log != "ab" {
		t.Fatalf("Write = %+v, %v", w, err)
	}
	if len(f.commits) != 1 {
		t.Errorf("a batch became %d commits", len(f.commits))
	}
	e, err := c.Get(ctx, "default", binary)
	if err != nil || !bytes.Equal(e.Value.Bytes(), binary) || !bytes.Equal(e.Key.Bytes(), binary) {
		t.Errorf("Get(binary) = %+v, %v", e, err)
	}
	if e, err := c.Get(ctx, "default", []byte("a/empty")); err != nil || len(e.Value.Bytes()) != 0 {
		t.Errorf("Get(empty) = %+v, %v", e, err)
	}
	if !e.Time.Equal(at.Truncate(time.Millisecond)) {
		t.Errorf("time came back as %v", e.Time)
	}
	if _, err := c.Get(ctx, "default", []byte("none")); CodeOf(err) != CodeNotFound {
		t.Errorf("Get(none) = %v", err)
	}
	var keys []string
	if err := c.List(ctx, "default", List{Prefix: []byte("a/")}, func(e Entry) error {
		keys = append(keys, e.Key.String())
		return nil
	}); err != nil || fmt.Sprint(keys) != "[a/1 a/empty]" {
		t.Errorf("List = %v, %v", keys, err)
	}
	var kinds []string
	if err := c.Tail(ctx, "default", Tail{}, func(r Record) error { kinds = append(kinds, r.Kind.String()); return nil }); err != nil || fmt.Sprint(kinds) != "[put put put note]" {
		t.Errorf("Tail = %v, %v", kinds, err)
	}
	var aside []Record
	err = c.Tail(ctx, "default", Tail{SetAside: true}, func(r Record) error { aside = append(aside, r); return nil })
	same(t, "what is set aside", aside, err, []Record{asideRecord})
	if err := c.Tail(ctx, "default", Tail{SetAside: true, Follow: true}, nil); CodeOf(err) != CodeUsage {
		t.Errorf("what is set aside, followed: %v", err)
	}
	if err := c.Tail(ctx, "default", Tail{From: "other"}, nil); CodeOf(err) != CodeReset {
		t.Errorf("Tail(other) = %v", err)
	}
	if st, err := c.Status(ctx); err != nil || st.Spaces["default"].Keys != 3 || st.Version != "test" {
		t.Errorf("Status = %+v, %v", st, err)
	}
	if got, err := c.Connect(ctx, "h:2"); err != nil || got.Addr != "h:2" {
		t.Errorf("Connect = %+v, %v", got, err)
	}
	if _, err := c.Connect(ctx, "h:1"); CodeOf(err) != CodeUnreachable {
		t.Errorf("Connect(dead) = %v", err)
	}
	if _, err := c.Disconnect(ctx, "nobody"); CodeOf(err) != CodeNotFound {
		t.Errorf("Disconnect(nobody) = %v", err)
	}
	_, err = c.Write(ctx, "default", Write{Ops: []Op{{Op: OpDelete, Key: []byte("a/1")}}, Replicas: 2, Timeout: time.Second})
	var ae *Error
	if !errors.As(err, &ae) || ae.Code != CodeReplicas || ae.Written == nil || ae.Written.Replicas != 1 {
		t.Errorf("Write(replicas 2) = %v", err)
	}
	f.verify = []Finding{{Log: "ab", Seq: 3, Problem: "a flipped byte"}}
	var found []Finding
	if err := c.Verify(ctx, true, func(x Finding) error { found = append(found, x); return nil }); err != nil || len(found) != 1 || !f.rebuilt {
		t.Errorf("Verify = %v, %v", found, err)
	}
}

func TestWaitTellsWhatIsMissing(t *testing.T) {
	f, c, _ := start(t)
	if err := c.Wait(t.Context(), Wait{Peers: 2, Synced: true}); err != nil {
		t.Fatal(err)
	}
	if f.waited[0] != (Wait{Peers: 2, Synced: true}) {
		t.Errorf("the condition arrived as %+v", f.waited[0])
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := c.Wait(ctx, Wait{Peers: 3}); CodeOf(err) != CodeTimeout || !strings.Contains(err.Error(), "2 of 3") {
		t.Errorf("Wait = %v", err)
	}
	ctx, cancel = context.WithTimeout(t.Context(), time.Hour)
	time.AfterFunc(10*time.Millisecond, cancel)
	if err := c.Wait(ctx, Wait{Peers: 3}); CodeOf(err) != CodeCancelled {
		t.Errorf("Wait, cancelled = %v", err)
	}
}

func TestFilesOfARunningNode(t *testing.T) {
	f, dir := newFake(), t.TempDir()
	if _, err := Dial(t.Context(), dir); !errors.Is(err, ErrNotRunning) {
		t.Fatalf("Dial(nothing) = %v", err)
	}
	s, err := Start(Config{Dir: dir, Backend: f})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{AddrFile, TokenFile} {
		fi, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if runtime.GOOS != "windows" && fi.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v", name, fi.Mode())
		}
	}
	stale, err := readEndpoint(dir)
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
	if left, _ := filepath.Glob(filepath.Join(dir, "*")); len(left) != 0 {
		t.Errorf("Close left %v", left)
	}

	// A killed node leaves its files; nobody answers at the port.
	if err := writeEndpoint(dir, stale); err != nil {
		t.Fatal(err)
	}
	if _, err := Dial(t.Context(), dir); !errors.Is(err, ErrNotRunning) {
		t.Errorf("Dial(dead) = %v", err)
	}
	// Or another node has got the port since.
	other, err := Start(Config{Dir: t.TempDir(), Backend: f})
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if err := writeEndpoint(dir, endpoint{addr: other.Addr(), token: stale.token}); err != nil {
		t.Fatal(err)
	}
	if _, err := Dial(t.Context(), dir); !errors.Is(err, ErrNotRunning) {
		t.Errorf("Dial(other's port) = %v", err)
	}
}

func TestOnlyLoopback(t *testing.T) {
	for _, addr := range []string{"0.0.0.0:0", "[::]:0", "192.0.2.1:0", "example.com:80", "nonsense"} {
		s, err := Start(Config{Dir: t.TempDir(), Addr: addr, Backend: newFake()})
		if CodeOf(err) != CodeUsage {
			t.Errorf("Start(%s) = %v", addr, err)
		}
		if s != nil {
			s.Close()
		}
	}
	dir := t.TempDir()
	if err := writeEndpoint(dir, endpoint{addr: "192.0.2.1:80", token: "t"}); err != nil {
		t.Fatal(err)
	}
	if _, err := Dial(t.Context(), dir); err == nil {
		t.Error("a client would send its token to another machine")
	}
}

func TestTokenAndHost(t *testing.T) {
	_, _, dir := start(t)
	e, _ := readEndpoint(dir)
	for name, change := range map[string]func(*http.Request){
		"no token":    func(r *http.Request) { r.Header.Del("Authorization") },
		"wrong token": func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+strings.Repeat("0", len(e.token))) },
		"short token": func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+e.token[:8]) },
		"no scheme":   func(r *http.Request) { r.Header.Set("Authorization", e.token) },
		"web page":    func(r *http.Request) { r.Host = "evil.example:80" },
	} {
		req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+e.addr+"/v1/status", nil)
		req.Header.Set("Authorization", "Bearer "+e.token)
		change(req)
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		var got Error
		_ = json.NewDecoder(res.Body).Decode(&got)
		res.Body.Close()
		if res.StatusCode != http.StatusUnauthorized || got.Code != CodeUnauthorized || strings.Contains(got.Message, e.token) {
			t.Errorf("%s: %d %+v", name, res.StatusCode, got)
		}
	}
}

func TestByHand(t *testing.T) {
	_, _, dir := start(t)
	e, err := readEndpoint(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		method, path, body string
		status             int
		want               string
	}{
		{"GET", "/v1/prove?nonce=" + strings.Repeat("n", 32), "", 200, `{"proof":"` + proofOf(e.token, strings.Repeat("n", 32)) + `","dir":"` + proofOfDir(e, strings.Repeat("n", 32)) + `"}`},
		{"GET", "/v1/ping", "", 200, `{"ok":true,"pong":true,"peer_id":"12D3KooWFake","version":"test"}`},
		{"PUT", "/v1/kv?key=k%2F1", "raw <bytes>", 200, `{"log":"ab","seq":1,"replicas":0}`},
		{"GET", "/v1/kv?key=k%2F1", "", 200, `{"key":"k/1","value":"raw <bytes>","origin":"me","log":"ab","seq":1,"time":"2026-01-02T03:04:05.006Z","conflicts":0,"siblings":[{"value":"raw <bytes>","origin":"me","log":"ab","seq":1,"time":"2026-01-02T03:04:05.006Z"}]}`},
		{"GET", "/v1/kv?key=k%2F1&raw=1", "", 200, `raw <bytes>`},
		{"PUT", "/v1/kv?key=%ff", "\xfe", 200, `{"log":"ab","seq":2,"replicas":0}`},
		{"GET", "/v1/kv?key=%ff", "", 200, `{"key_base64":"/w==","value_base64":"/g==","origin":"me","log":"ab","seq":2,"time":"2026-01-02T03:04:05.006Z","conflicts":0,"siblings":[{"value_base64":"/g==","origin":"me","log":"ab","seq":2,"time":"2026-01-02T03:04:05.006Z"}]}`},
		{"POST", "/v1/log?kind=note", "hello", 200, `{"log":"ab","seq":3,"replicas":0}`},
		{"GET", "/v1/log?count=1", "", 200, `{"cursor":"c","origin":"me","log":"ab","seq":1,"time":"2026-01-02T03:04:05.006Z","kind":"put","key":"k/1","payload":"raw <bytes>"}`},
		{"DELETE", "/v1/kv?key=%ff", "", 200, `{"log":"ab","seq":4,"replicas":0}`},
		{"POST", "/v1/batch", "{\"op\":\"put\",\"key\":\"b\",\"value_base64\":\"\"}\n{\"op\":\"delete\",\"key\":\"b\"}", 200, `{"log":"ab","seq":6,"replicas":0}`},
		{"POST", "/v1/connect", `{"addr":"h:2"}`, 200, `{"peer_id":"p9","addr":"h:2"}`},
		{"POST", "/v1/disconnect", `{"peer":"p1"}`, 200, `{"peer_id":"p1"}`},
		{"POST", "/v1/forget", `{"peer":"p1"}`, 200, `{"peer_id":"p1"}`},
		{"GET", "/v1/wait?peers=2&synced=1", "", 200, `{"ok":true}`},
		{"GET", "/v1/watch?count=1&prefix=k", "", 200, `{"cursor":"c","event":"put","key":"k/1","origin":"me","log":"ab","seq":1,"time":"2026-01-02T03:04:05.006Z","conflicts":0}`},
		{"POST", "/v1/verify", "", 200, ``},

		{"GET", "/v1/prove?nonce=short", "", 400, `{"error":"the parameter \"nonce\" is 32 to 128 characters","code":"usage"}`},
		{"GET", "/v1/nothing", "", 404, `{"error":"there is no GET /v1/nothing in this API","code":"not_found"}`},
		{"PATCH", "/v1/kv", "", 404, `{"error":"there is no PATCH /v1/kv in this API","code":"not_found"}`},
		{"GET", "/v1/kv?key=none", "", 404, `{"error":"there is no key \"none\"","code":"not_found"}`},
		{"PUT", "/v1/kv", "v", 400, `{"error":"the key is empty: a key has at least one byte","code":"usage"}`},
		{"GET", "/v1/status?verbose=1", "", 400, `{"error":"the parameter \"verbose\" is not known here","code":"usage"}`},
		{"GET", "/v1/keys?conflicts=yes", "", 400, `{"error":"the parameter \"conflicts\" is 1 or 0","code":"usage"}`},
		{"GET", "/v1/log?count=-1", "", 400, `{"error":"the parameter \"count\" is a whole number from 0 on","code":"usage"}`},
		{"GET", "/v1/kv?key=a&key=b", "", 400, `{"error":"the parameter \"key\" is given more than once","code":"usage"}`},
		{"POST", "/v1/connect", `{"addr":`, 400, `{"error":"the body is cut off in the middle of its JSON","code":"invalid_json"}`},
		{"POST", "/v1/connect", ``, 400, `{"error":"the body is empty, and a JSON object was expected","code":"invalid_json"}`},
		{"POST", "/v1/connect", `{"addr":"a"}{}`, 400, `{"error":"the body has more than one JSON object","code":"invalid_json"}`},
		{"POST", "/v1/connect", `{"host":"a"}`, 400, `{"error":"the body is not valid JSON: json: unknown field \"host\"","code":"invalid_json"}`},
		{"POST", "/v1/batch", ``, 400, `{"error":"the batch is empty: send lines such as {\"op\":\"put\",\"key\":\"k\",\"value\":\"v\"}","code":"invalid_json"}`},
		{"POST", "/v1/batch", `{"op":"put","key":"k"}`, 400, `{"error":"operation 1: there is no \"value\"","code":"invalid_json"}`},
		{"POST", "/v1/batch", `{"op":"put","key":"k","value":"v"}{"op":"drop"}`, 400, `{"error":"operation 2: the operation \"drop\" is not \"put\", \"delete\" or \"append\"","code":"invalid_json"}`},
		{"POST", "/v1/batch", `{"op":"append","kind":"put","payload":""}`, 400, `{"error":"operation 1: the kind \"put\" is built in: use put and del for keys, or choose another kind","code":"invalid_json"}`},
		{"POST", "/v1/batch", "{\"op\":\"put\",\"key\":\"k\",\"value\":\"\xff\"}", 400, `{"error":"the body: it is not valid UTF-8: send such bytes as base64 under a name that ends in _base64","code":"invalid_json"}`},
	} {
		status, body := raw(t, dir, c.method, c.path, c.body)
		if status != c.status || body != c.want {
			t.Errorf("%s %s\n got %d %s\nwant %d %s", c.method, c.path, status, body, c.status, c.want)
		}
	}
}

func TestBodyLimits(t *testing.T) {
	f, c, dir := start(t)
	for path, size := range map[string]int{"/v1/kv?key=k": MaxValue + 1, "/v1/batch": maxBatchBody + 1, "/v1/connect": maxObjectBody + 1} {
		method := http.MethodPost
		if strings.Contains(path, "kv") {
			method = http.MethodPut
		}
		status, body := raw(t, dir, method, path, strings.Repeat(" ", size))
		if status != http.StatusRequestEntityTooLarge || !strings.Contains(body, `"too_large"`) {
			t.Errorf("%s: %d %s", path, status, body)
		}
	}
	if len(f.commits) != 0 {
		t.Error("something of a refused body was written")
	}
	// What is allowed arrives, however its bytes look in JSON.
	for _, b := range []byte{0x01, 0xff, '"'} {
		v := bytes.Repeat([]byte{b}, MaxValue)
		if _, err := c.Write(t.Context(), "default", Write{Ops: []Op{{Op: OpPut, Key: []byte("k"), Value: v}}}); err != nil {
			t.Errorf("a value of %d bytes %#x: %v", len(v), b, err)
		}
		if e, err := c.Get(t.Context(), "default", []byte("k")); err != nil || !bytes.Equal(e.Value.Bytes(), v) {
			t.Errorf("a value of %d bytes %#x came back as %d bytes, %v", len(v), b, len(e.Value.Bytes()), err)
		}
	}
}

func TestStreamsEnd(t *testing.T) {
	f, c, dir := start(t)
	put := func() {
		if _, err := f.Write(t.Context(), "", Write{Ops: []Op{{Op: OpPut, Key: []byte("k")}}}); err != nil {
			t.Error(err)
		}
	}
	put()

	// The caller gives up: the backend is let go.
	ctx, cancel := context.WithCancel(t.Context())
	err := c.Tail(ctx, "default", Tail{Follow: true}, func(Record) error { cancel(); return nil })
	if CodeOf(err) != CodeCancelled {
		t.Errorf("cancelled: %v", err)
	}
	// The caller has had enough.
	enough := errors.New("enough")
	if err := c.Tail(t.Context(), "default", Tail{Follow: true}, func(Record) error { return enough }); !errors.Is(err, enough) {
		t.Errorf("stopped: %v", err)
	}
	// A line comes soon, not when the buffer is full.
	got := make(chan Event, 4)
	done := make(chan error, 1)
	go func() {
		done <- c.Watch(t.Context(), "default", Watch{}, func(e Event) error { got <- e; return nil })
	}()
	<-got
	put()
	if e := <-got; e.Event != EventPut || e.Key.String() != "k" {
		t.Errorf("event %+v", e)
	}
	// The node stops: the stream says so instead of just ending.
	s2, err := Start(Config{Dir: t.TempDir(), Backend: f})
	if err != nil {
		t.Fatal(err)
	}
	c2, err := Dial(t.Context(), s2.cfg.Dir)
	if err != nil {
		t.Fatal(err)
	}
	seen := make(chan struct{})
	var once sync.Once
	closed := make(chan struct{})
	go func() { <-seen; s2.Close(); close(closed) }()
	err = c2.Tail(t.Context(), "default", Tail{Follow: true}, func(Record) error { once.Do(func() { close(seen) }); return nil })
	if CodeOf(err) != CodeClosed || !strings.Contains(err.Error(), "is stopping") {
		t.Errorf("node stopped: %v", err)
	}
	<-closed
	if _, err := c2.Status(t.Context()); CodeOf(err) != CodeClosed || !strings.Contains(err.Error(), s2.cfg.Dir) {
		t.Errorf("after the node stopped: %v", err)
	}
	_ = dir
}

// A node that is killed in the middle of an answer must not look like the end of
// the answer.
func TestCutStreamIsAnError(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	dir, e := t.TempDir(), endpoint{addr: ln.Addr().String(), token: "t"}
	if err := writeEndpoint(dir, e); err != nil {
		t.Fatal(err)
	}
	if e, err = readEndpoint(dir); err != nil { // with the directory's id
		t.Fatal(err)
	}
	go func() {
		conn, err := ln.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		in := bufio.NewReader(conn)
		for _, answer := range []func(r *http.Request) string{
			func(r *http.Request) string { return proofAnswerOf(e, r.URL.Query().Get("nonce")) },
			func(*http.Request) string {
				return "HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\n{\"pong\":true}"
			},
			func(*http.Request) string {
				return "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n10\r\n{\"kind\":\"note\"}\n\r\n"
			},
		} {
			req, err := http.ReadRequest(in)
			if err != nil {
				return
			}
			_, _ = io.WriteString(conn, answer(req))
		}
	}()
	c, err := Dial(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	err = c.Tail(t.Context(), "default", Tail{}, func(Record) error { n++; return nil })
	if n != 1 || CodeOf(err) != CodeClosed || strings.Contains(err.Error(), "whether a write") {
		t.Errorf("%d records, %v", n, err)
	}
}

// Streams that take every place keep nobody from seeing that the node is there.
func TestTooManyRequests(t *testing.T) {
	s, err := Start(Config{Dir: t.TempDir(), Backend: newFake()})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for range cap(s.slots) {
		s.slots <- struct{}{}
	}
	c, err := Dial(t.Context(), s.cfg.Dir)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Status(t.Context()); CodeOf(err) != CodeBusy || !strings.Contains(err.Error(), "128 requests already") {
		t.Errorf("Status = %v", err)
	}
	for range cap(s.slots) {
		<-s.slots
	}
	if _, err := c.Status(t.Context()); err != nil {
		t.Error(err)
	}
}

// What a node answers to the first question of a client that it knows is what
// the client says.
func TestDialTellsWhatTheNodeSays(t *testing.T) {
	s, err := Start(Config{Dir: t.TempDir(), Backend: newFake()})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	s.auth[0]++ // it proves that it knows the token, and does not take it
	if _, err := Dial(t.Context(), s.cfg.Dir); CodeOf(err) != CodeUnauthorized || errors.Is(err, ErrNotRunning) {
		t.Errorf("Dial = %v", err)
	}
}
