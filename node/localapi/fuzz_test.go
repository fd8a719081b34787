package localapi

import (
	"encoding/json"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
)

// bodyRoutes are the routes that read a body. Fuzz inputs name them by their place:
// a new one comes last.
var bodyRoutes = []string{
	"POST /v1/batch", "POST /v1/connect", "POST /v1/disconnect", "POST /v1/log?kind=k",
	"POST /v1/forget", "POST /v1/send", "POST /v1/invite", "POST /v1/revoke",
	"POST /v1/spaces", "POST /v1/certificate", "PUT /v1/kv?key=k",
}

// goodBodies are taken by the routes of the same places.
var goodBodies = []string{
	`{"op":"put","key":"k","value":"v"}{"op":"append","kind":"n","payload_base64":"/w=="}{"op":"delete","key_base64":"AA=="}`,
	`{"addr":"h:9001"}`,
	`{"peer":"p1"}`,
	"any bytes \xff",
	`{"peer":"p1"}`,
	`{"peer":"p1","text":"hello","ttl":3,"lifetime_ms":60000,"timeout_ms":1000,"early":true}`,
	`{"role":"writer","spaces":["default"],"label":"B","expires_ns":3600000000000,"valid_ns":1,"addrs":["h:1"]}`,
	`{"name":"B","gather_ns":1000000000}`,
	`{"name":"notes","encrypted":true}`,
	`{"peer":"p1","role":"reader","spaces":["default"],"label":"B","valid_ns":1}`,
	"any bytes \xff",
}

// post sends a body to one of bodyRoutes.
func post(t testing.TB, backend *fake, route string, body []byte) (code int, answer *strings.Reader) {
	s := newServer(Config{Backend: backend}, endpoint{addr: "127.0.0.1:1", token: "t"})
	method, path, _ := strings.Cut(route, " ")
	rec := newRecorder(t, s, method, path, body)
	return rec.Code, strings.NewReader(rec.Body.String())
}

// Every route with a body is fuzzed, from a body that it takes.
func TestBodiesAreFuzzed(t *testing.T) {
	for pattern := range newServer(Config{Backend: newFake()}, endpoint{}).table() {
		fuzzed := slices.ContainsFunc(bodyRoutes, func(r string) bool { r, _, _ = strings.Cut(r, "?"); return r == pattern })
		reads := !strings.HasPrefix(pattern, "GET ") && !strings.HasPrefix(pattern, "DELETE ") && pattern != "POST /v1/verify"
		if fuzzed != reads {
			t.Errorf("%s is fuzzed: %v", pattern, fuzzed)
		}
	}
	if len(goodBodies) != len(bodyRoutes) {
		t.Fatalf("%d bodies of %d routes", len(goodBodies), len(bodyRoutes))
	}
	for i, body := range goodBodies {
		if code, answer := post(t, newFake(), bodyRoutes[i], []byte(body)); code != http.StatusOK {
			out, _ := io.ReadAll(answer)
			t.Errorf("%s answers %d %s", bodyRoutes[i], code, out)
		}
	}
}

// FuzzAPIBody sends any body to the routes that take one: each answers with its
// own JSON, writes nothing on an error of the body, and never panics.
func FuzzAPIBody(f *testing.F) {
	for i, body := range goodBodies {
		f.Add(uint8(i), []byte(body))
	}
	f.Fuzz(func(t *testing.T, place uint8, body []byte) {
		backend := newFake()
		route := bodyRoutes[int(place)%len(bodyRoutes)]
		code, answer := post(t, backend, route, body)
		dec := json.NewDecoder(answer)
		for {
			var line map[string]any
			if err := dec.Decode(&line); err == io.EOF {
				break
			} else if err != nil {
				t.Fatalf("%s answers with what is not JSON: %v", route, err)
			}
		}
		if code != http.StatusOK && len(backend.commits) != 0 {
			t.Fatalf("%s answers %d and has written", route, code)
		}
		for _, ops := range backend.commits {
			for _, op := range ops {
				if err := op.Check(); err != nil {
					t.Fatalf("%s let through %+v: %v", route, op, err)
				}
			}
		}
		for _, m := range backend.sent {
			if err := m.Check(); err != nil {
				t.Fatalf("%s let through %+v: %v", route, m, err)
			}
		}
	})
}
