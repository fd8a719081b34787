package localapi

import (
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"
)

func TestMessages(t *testing.T) {
	f, c, dir := start(t)
	want := Send{Peer: "p1", Text: []byte("\x00hi"), TTL: 3, Lifetime: time.Hour, Timeout: time.Minute}
	sent, err := c.Send(t.Context(), want)
	if err != nil || !sent.Delivered || sent.To != "p1" || sent.ID != "aa" {
		t.Fatalf("Send = %+v, %v", sent, err)
	}
	if got := f.sent[0]; got.Peer != want.Peer || string(got.Text) != string(want.Text) || got.TTL != 3 || got.Lifetime != time.Hour || got.Timeout != time.Minute {
		t.Errorf("it arrived as %+v", got)
	}
	_, err = c.Send(t.Context(), Send{Peer: "p2", Text: []byte{0xff}})
	var ae *Error
	if !errors.As(err, &ae) || ae.Code != CodeUndelivered || ae.Sent == nil || ae.Sent.To != "p2" || ae.Sent.Delivered {
		t.Errorf("not delivered: %v", err)
	}
	var texts []string
	if err := c.Messages(t.Context(), Inbox{Count: 2}, func(m Message) error { texts = append(texts, string(m.Text.Bytes())); return nil }); err != nil ||
		strings.Join(texts, ",") != "\x00hi,\xff" {
		t.Errorf("Messages = %q, %v", texts, err)
	}
	if status, out := raw(t, dir, http.MethodGet, "/v1/messages?count=1", ""); status != http.StatusOK || !strings.HasPrefix(out, `{"id":"aa","from":"p1","text":"\u0000hi","time":"2026-01-02T`) {
		t.Errorf("by hand: %d %s", status, out)
	}
	for body, status := range map[string]int{
		`{"peer":"p1","text":""}`: http.StatusOK,
		`{"peer":"p1","text":"` + strings.Repeat(`\u0041`, 16<<10) + `"}`: http.StatusOK,
		`{"peer":"p1","text":"` + strings.Repeat(`A`, 16<<10+1) + `"}`:    http.StatusRequestEntityTooLarge,
		`{"peer":"p1","text":"` + strings.Repeat(`A`, 200<<10) + `"}`:     http.StatusRequestEntityTooLarge,
		`{"peer":"p1","text":"x","text_base64":"eA=="}`:                   http.StatusBadRequest,
		`{"peer":"p1"}`:                              http.StatusBadRequest,
		`{"text":"x"}`:                               http.StatusBadRequest,
		`{"peer":"p1","text":"x","ttl":33}`:          http.StatusBadRequest,
		`{"peer":"p1","text":"x","timeout_ms":-1}`:   http.StatusBadRequest,
		`{"peer":"p1","text":"x","lifetime_ms":1e9}`: http.StatusBadRequest,
		`{"peer":"p1","text":"x","more":1}`:          http.StatusBadRequest,
	} {
		if got, out := raw(t, dir, http.MethodPost, "/v1/send", body); got != status {
			t.Errorf("%.60s: %d %s", body, got, out)
		}
	}
}
