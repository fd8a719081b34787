package main

import (
	"encoding/json"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Who does not wait for the other members any longer hears that the write is
// durable here, and how to look later.
func TestInterruptedWriteIsDurable(t *testing.T) {
	n := runNode(t, "", "--discovery", "off")
	for name, args := range map[string][]string{
		"put":    {"put", "k", "v", "--replicas", "1"},
		"del":    {"del", "k", "--replicas", "2", "--timeout", "0"},
		"append": {"append", "note", "hi", "--replicas", "1", "--json"},
	} {
		t.Run(name, func(t *testing.T) {
			kind := `"kind":"` + map[string]string{"put": "put", "del": "delete", "append": "note"}[name] + `"`
			p := interruptedIn(t, n, func() int {
				return strings.Count(n.vix("tail", "--json").ok(t).out, kind)
			}, args...)
			for _, w := range []string{"vix-node: interrupted: ", "the write is durable here and goes on to other members", "`vix-node wait --synced --data-dir " + n.dir + "`"} {
				if !strings.Contains(p.errText(), w) {
					t.Errorf("%q does not say %q", p.errText(), w)
				}
			}
			if name == "append" {
				var w struct{ Log string }
				if err := json.Unmarshal([]byte(p.line()), &w); err != nil || len(w.Log) != 64 {
					t.Errorf("it prints %+v, %v", w, err)
				}
			}
		})
	}
}

// The same of a message.
func TestInterruptedSendIsStored(t *testing.T) {
	n := runNode(t, "", "--discovery", "off")
	const far = "12D3KooWKYy8bzwrV78AULam11TxxqCHUrazxY9Hi5eYKpaRLQ6S"
	p := interruptedIn(t, n, func() int {
		return int(n.vix("status", "--json").ok(t).object(t)["messages"].(map[string]any)["outbox"].(float64))
	}, "send", far, "later", "--json")
	for _, w := range []string{"vix-node: interrupted: ", far + " has not acknowledged the message yet", "it is stored here and goes on being tried by itself until 20", "`vix-node status --data-dir " + n.dir + "`"} {
		if !strings.Contains(p.errText(), w) {
			t.Errorf("%q does not say %q", p.errText(), w)
		}
	}
	var sent struct {
		To        string
		Delivered bool
	}
	if err := json.Unmarshal([]byte(p.line()), &sent); err != nil || sent.To != far || sent.Delivered {
		t.Errorf("it prints %+v, %v", sent, err)
	}
}

// interruptedIn starts a command, waits until the node has more of what it brings,
// and interrupts it. The command may not have heard of that yet: then it says so,
// and is started again.
func interruptedIn(t *testing.T, n *running, have func() int, args ...string) *proc {
	t.Helper()
	deadline := time.Now().Add(patience)
	for sig := os.Signal(os.Interrupt); ; sig = syscall.SIGTERM {
		before := have()
		p := background(t, nil, append(args, "--data-dir", n.dir)...)
		for have() == before {
			if time.Now().After(deadline) {
				t.Fatalf("%v has no effect: %s", args, p.errText())
			}
		}
		p.signal(sig)
		if code := p.end(); code != exitFailed || strings.Count(p.errText(), "\n") != 1 {
			t.Fatalf("%v: exit %d, %q", args, code, p.errText())
		}
		if !strings.Contains(p.errText(), "had answered") || time.Now().After(deadline) {
			return p
		}
	}
}
