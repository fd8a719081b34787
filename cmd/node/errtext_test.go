package main

import (
	"encoding/base64"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// What is wrong is named as it is, with what to do, and in words of the command
// line.
func TestErrorsSayWhatToDo(t *testing.T) {
	n := runNode(t, "", "--discovery", "off", "--messages", "off")
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	on := func(args ...string) result { return n.vix(args...) }
	for _, c := range []struct {
		r     result
		code  int
		words string
	}{
		{on("send", "B", "x", "--lifetime", "999999999"), 2, `--lifetime takes at most 7 days, not "999999999"`},
		{on("send", "B", "x", "--lifetime", "700000"), 2, `--lifetime takes at most 7 days, not "700000"`},
		{on("send", "B", "x", "--lifetime", "8d"), 2, `--lifetime takes at most 7 days, not "8d"`},
		{on("put", "k", "v", "--space", ""), 2, `--space takes the name of a space, and got none: leave it out for "default"`},
		{on("get", "k", "--timeout", "1e30"), 2, "--timeout takes a number of seconds"},
		{on("get", "k", "--timeout", "99999999999"), 2, "--timeout takes at most 10 years"},
		{vix(t, "registry", "--ttl", "100000000000"), 2, "--ttl takes at most 10 years"},
		{on("send", "B", "x"), 1, "takes no part in messages: start it with --messages on"},
		{on("messages"), 1, "start it with --messages on"},
		{vix(t, "help", "get", "put"), 2, `help takes one command, and got "put" after get`},
		{vix(t, "help", "gett", "put"), 2, `unknown command "gett": did you mean get?`},
		{vixIn(t, nil, `{"key":"k","value_base64":"%%%%"}`, "load", "-", "--data-dir", n.dir), 1, "line 1: it has a text under a name that ends in _base64 which is no base64"},
		{vix(t, "run", "--data-dir", t.TempDir(), "--relay", "127.0.0.1:4001"), 2, "add --open to allow that, or leave --relay out"},
		{vix(t, "run", "--data-dir", t.TempDir(), "--listen", "0.0.0.0:0"), 2, "add --open to allow that, or listen on 127.0.0.1"},
		{vix(t, "run", "--data-dir", t.TempDir(), "--listen", "39072", "--listen", "39072"), 2, "39072 is given twice to listen on"},
		{vix(t, "run", "--data-dir", t.TempDir(), "--listen", "39072", "--listen", "127.0.0.1:39072"), 2, "39072 is given twice to listen on"},
		{vix(t, "run", "--data-dir", filepath.Join(file, "below")), 1, "is no"},
		{on("connect", n.addr), 1, "is this node itself"},
	} {
		c.r.fails(t, c.code, c.words)
		for _, word := range []string{"Config", "NoMessages", "Offline", "INTERNAL"} {
			if strings.Contains(c.r.err, word) {
				t.Errorf("%v says %s: %s", c.r.args, word, c.r.err)
			}
		}
	}
	for _, ok := range []string{"7d", "1h30m", "0.5", "1000s", "168h"} {
		on("send", "B", "x", "--lifetime", ok).fails(t, 1, "--messages on")
	}
	if r := vixIn(t, nil, `{"key":"k","value_base64":"`+base64.StdEncoding.EncodeToString([]byte{0xff})+`"}`, "load", "-", "--data-dir", n.dir); r.code != 0 {
		t.Errorf("%+v", r)
	}
}

// Why nobody answers in time is said, and not only that the time is up.
func TestConnectToASilentPort(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0") // takes connections and says nothing
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	n := runNode(t, "", "--discovery", "off")
	n.vix("connect", l.Addr().String(), "--timeout", "300ms").fails(t, 1, l.Addr().String()+" has not answered in 300ms: check the address")
}
