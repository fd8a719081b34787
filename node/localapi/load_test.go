package localapi

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http/httptest"
	"strings"
	"testing"
)

func newRecorder(t testing.TB, s *Server, method, path string, body []byte) *httptest.ResponseRecorder {
	req := httptest.NewRequestWithContext(t.Context(), method, "http://127.0.0.1"+path, bytes.NewReader(body))
	req.Header.Set("Authorization", "Bearer "+s.endpoint.token)
	rec := httptest.NewRecorder()
	s.http.Handler.ServeHTTP(rec, req)
	return rec
}

// load runs a Loader over text and returns the stored pairs in order.
func load(t *testing.T, in io.Reader) (pairs []string, res Loaded, err error) {
	t.Helper()
	l := NewLoader(in, func(_ context.Context, ops []Op) error {
		for _, op := range ops {
			pairs = append(pairs, fmt.Sprintf("%s=%s", op.Key, op.Value))
		}
		return nil
	})
	res, err = l.Run(t.Context(), func(d Loaded) error {
		if int(d.Records) != len(pairs) {
			t.Errorf("acked %d of %d stored records", d.Records, len(pairs))
		}
		return nil
	})
	l.Wait()
	if int(res.Records) != len(pairs) {
		t.Errorf("the result says %d records, %d are stored", res.Records, len(pairs))
	}
	return pairs, res, err
}

func TestLoadValues(t *testing.T) {
	for _, c := range []struct{ line, want string }{
		{`{"key":"k","value":"text"}`, "k=text"},
		{`{"key":"k","value":""}`, "k="},
		{`  {"value" : "v" , "key":"k"}  `, "k=v"},
		{`{"key":"k","value":{ "b" : [1, 2.50, true],  "a":"x y" } }`, `k={"b":[1,2.50,true],"a":"x y"}`},
		{`{"key":"k","value": 12.0 }`, "k=12.0"},
		{`{"key":"k","value":null}`, "k=null"},
		{`{"key":"k","value":"é 😀 \u00e9 \ud83d\ude00 <&>"}`, "k=é 😀 é 😀 <&>"},
		{`{"key":"k","value":"\\ud800"}`, `k=\ud800`},
		{`{"key":"k","value":{"x":"<\u003c>"}}`, `k={"x":"<\u003c>"}`},
		{`{"key_base64":"/w==","value_base64":"/g=="}`, "\xff=\xfe"},
		{`{"key":"k","value":"v","origin":"o","conflicts":0}`, "k=v"},
	} {
		got, _, err := load(t, strings.NewReader(c.line))
		if err != nil || len(got) != 1 || got[0] != c.want {
			t.Errorf("%s: %q, %v; want %q", c.line, got, err, c.want)
		}
	}
}

func TestLoadBadLineStops(t *testing.T) {
	good := `{"key":"a","value":"1"}` + "\n\n" + `{"key":"b","value":"2"}` + "\r\n"
	for _, c := range []struct{ line, want string }{
		{`{"key":"k","value":`, "valid JSON"},
		{`not json`, "valid JSON"},
		{`[1]`, "not an object"},
		{`"text"`, "not an object"},
		{`{"key":7,"value":1}`, "not an object"},
		{`{"value":1}`, `no "key"`},
		{`{"key":"","value":1}`, "key is empty"},
		{`{"key_base64":"","value":1}`, "key is empty"},
		{`{"key":"` + strings.Repeat("k", 4097) + `","value":1}`, "key is 4097 bytes"},
		{`{"key":"k"}`, `no "value"`},
		{`{"key":"k","value":1,"value_base64":""}`, "both"},
		{"{\"key\":\"k\",\"value\":\"\xff\"}", "UTF-8"},
		{`{"key":"k","value":"\ud800"}`, "surrogate"},
		{`{"key":"k","value":"\ude00\ud83d"}`, "surrogate"},
		{`{"key":"k","value":"v"} {"key":"l","value":"v"}`, "valid JSON"},
		{`{"key":"k","value":"` + strings.Repeat("x", MaxValue+1) + `"}`, "limit"},
		{`{"key":"k","value":"` + strings.Repeat("x", maxLoadLine) + `"}`, "longer than the limit"},
	} {
		got, res, err := load(t, strings.NewReader(good+c.line+"\n"+`{"key":"z","value":"9"}`))
		var le *LineError
		if !errors.As(err, &le) || le.Line != 4 || !strings.Contains(err.Error(), c.want) || CodeOf(err) == CodeUsage {
			t.Errorf("%.60s: error %v; want line 4 and %q", c.line, err, c.want)
		}
		if fmt.Sprint(got) != "[a=1 b=2]" || res.Records != 2 {
			t.Errorf("%.60s: stored %q, said %d", c.line, got, res.Records)
		}
	}
}

// A commit that fails ends the load, which says how far it came.
func TestLoadFails(t *testing.T) {
	for stored, want := range map[uint64]string{0: "no", 1: "after 1 stored record: no", 2: "after 2 stored records: no"} {
		in, out := io.Pipe()
		l := NewLoader(in, func(context.Context, []Op) error {
			if stored == 0 {
				return errors.New("no")
			}
			stored--
			return nil
		})
		line := func() error {
			_, err := io.WriteString(out, `{"key":"k","value":1}`+"\n")
			return err
		}
		if err := line(); err != nil {
			t.Fatal(err)
		}
		_, err := l.Run(t.Context(), func(Loaded) error { return line() })
		if err == nil || err.Error() != want {
			t.Errorf("%v, not %q", err, want)
		}
		_ = in.Close()
		l.Wait()
	}
}

func TestLoadGzip(t *testing.T) {
	var z bytes.Buffer
	w := gzip.NewWriter(&z)
	for i := range 5000 {
		fmt.Fprintf(w, "{\"key\":\"k/%d\",\"value\":%d}\n", i, i)
	}
	w.Close()
	got, res, err := load(t, bytes.NewReader(z.Bytes()))
	if err != nil || len(got) != 5000 || got[4999] != "k/4999=4999" || res.Bytes == 0 {
		t.Errorf("%d records, %+v, %v", len(got), res, err)
	}
	flipped := bytes.Clone(z.Bytes())
	flipped[len(flipped)-6] ^= 1 // in the checksum at the end
	for _, c := range []struct {
		input []byte
		want  string
	}{
		{z.Bytes()[:z.Len()/2], "ends in the middle of its gzip data"},
		{flipped, "the gzip data of the input is damaged"},
		{[]byte("\x1f\x8bnot gzip"), "the gzip data of the input is damaged"},
	} {
		if _, res, err := load(t, bytes.NewReader(c.input)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%d records, %v, want %q", res.Records, err, c.want)
		}
	}
	if got, _, err := load(t, strings.NewReader("")); err != nil || len(got) != 0 {
		t.Errorf("an empty input: %q, %v", got, err)
	}
}

// A producer that pauses must not wait for later lines to have its earlier ones
// stored.
func TestLoadDoesNotWaitForMore(t *testing.T) {
	in, out := io.Pipe()
	commits := make(chan int)
	l := NewLoader(in, func(_ context.Context, ops []Op) error { commits <- len(ops); return nil })
	end := make(chan error, 1)
	go func() { _, err := l.Run(t.Context(), nil); end <- err }()
	for i := range 3 {
		fmt.Fprintf(out, "{\"key\":\"%d\",\"value\":1}\n", i)
		if n := <-commits; n != 1 {
			t.Errorf("a commit of %d", n)
		}
	}
	out.Close()
	if err := <-end; err != nil {
		t.Error(err)
	}
	l.Wait()
}

func TestLoadStops(t *testing.T) {
	// The store fails: the reader, which waits for room, is let go.
	boom := errors.New("boom")
	line := `{"key":"k","value":"` + strings.Repeat("v", 1000) + "\"}\n"
	l := NewLoader(strings.NewReader(strings.Repeat(line, 20000)), func(context.Context, []Op) error { return boom })
	if _, err := l.Run(t.Context(), nil); !errors.Is(err, boom) {
		t.Errorf("store fails: %v", err)
	}
	l.Wait()

	// The caller gives up while nothing comes.
	in, out := io.Pipe()
	ctx, cancel := context.WithCancel(t.Context())
	l = NewLoader(in, func(context.Context, []Op) error { cancel(); return nil })
	fmt.Fprint(out, line)
	if res, err := l.Run(ctx, nil); !errors.Is(err, context.Canceled) || res.Records != 1 {
		t.Errorf("cancelled: %+v, %v", res, err)
	}
	out.Close()
	l.Wait()
}
