package main

import (
	"encoding/json"
	"regexp"
	"strings"
	"testing"
)

// send and messages, by the letter of the contract, over a hop.
func TestSendAndMessages(t *testing.T) {
	noLAN := []string{"--discovery", "off"}
	a := runNode(t, "", append(noLAN, "--id", "A")...)
	b := runNode(t, "", append(noLAN, "--id", "B", "--connect", a.addr)...)
	c := runNode(t, "", append(noLAN, "--id", "C", "--connect", b.addr)...)
	b.vix("wait", "--peers", "2").ok(t)

	if r := a.vix("send", c.peerID, "over B").ok(t); r.out != "" {
		t.Errorf("send printed %q", r.out)
	}
	a.vix("send", "B", "by label", "--ttl", "1").ok(t)
	bin := vixIn(t, nil, "\xff\x00", "send", c.peerID, "-", "--json", "--data-dir", a.dir).ok(t)
	var sent struct {
		ID, To    string
		Delivered bool
	}
	if err := json.Unmarshal([]byte(bin.out), &sent); err != nil || sent.To != c.peerID || !sent.Delivered || !regexp.MustCompile(`^[0-9a-f]{32}$`).MatchString(sent.ID) {
		t.Errorf("send --json printed %q (%v)", bin.out, err)
	}

	lines := strings.Split(strings.TrimSpace(c.vix("messages", "--json").ok(t).out), "\n")
	if len(lines) != 2 {
		t.Fatalf("messages printed %q", lines)
	}
	var first, second map[string]any
	for i, m := range []*map[string]any{&first, &second} {
		if err := json.Unmarshal([]byte(lines[i]), m); err != nil {
			t.Fatal(err)
		}
	}
	if first["from"] != a.peerID || first["text"] != "over B" || second["text_base64"] != "/wA=" || second["id"] != sent.ID ||
		!regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$`).MatchString(first["time"].(string)) {
		t.Errorf("messages printed %q", lines)
	}
	cursor := first["cursor"].(string)
	if out := c.vix("messages", "--json", "--from", cursor).ok(t).out; strings.TrimSpace(out) != lines[1] {
		t.Errorf("after the first: %q", out)
	}
	if out := c.vix("messages", "--json", "--follow", "--count", "2").ok(t).out; strings.TrimSpace(out) != strings.Join(lines, "\n") {
		t.Errorf("followed: %q", out)
	}
	// Who only reads can answer, also one that was never connected.
	if out := c.vix("messages").ok(t).out; !strings.Contains(out, a.peerID+"  over B\n") {
		t.Errorf("for people: %q", out)
	}
	c.vix("send", "…"+a.peerID[len(a.peerID)-8:], "by the end of the ID").ok(t)
	b.vix("send", a.peerID[len(a.peerID)-8:], "likewise").ok(t)
	if out := b.vix("messages").ok(t).out; strings.Count(out, "\n") != 1 || !strings.Contains(out, "by label") {
		t.Errorf("the hop has %q", out)
	}

	var st struct {
		Started  string
		Messages struct{ Inbox, Unread, Outbox int }
		Routes   []struct {
			Target  string
			NextHop string `json:"next_hop"`
			Source  string
		}
	}
	if err := json.Unmarshal([]byte(c.vix("status", "--json").ok(t).out), &st); err != nil {
		t.Fatal(err)
	}
	if st.Started == "" || !timeForm.MatchString(st.Started) {
		t.Errorf("it started at %q", st.Started)
	}
	learned := false
	for _, r := range st.Routes {
		learned = learned || r.Target == a.peerID && r.NextHop == b.peerID && r.Source == "learned"
	}
	if st.Messages.Inbox != 2 || st.Messages.Unread != 0 || !learned {
		t.Errorf("status: %+v", st)
	}
	if out := c.vix("status").ok(t).out; !strings.Contains(out, "2 here (0 not read)") || !strings.Contains(out, ", learned, TTL 8") {
		t.Errorf("status for people:\n%s", out)
	}

	// What B carried were acknowledgements in the end, and of no texts of its own.
	if out := b.vix("status").ok(t).out; !strings.Contains(out, "0 on their way from here, 0 carried for others") {
		t.Errorf("status of the hop:\n%s", out)
	}

	// Not delivered: where it stands, and exit 1.
	c.stop()
	r := a.runsOut([]string{"send", c.peerID, "later", "--json"}, c.peerID, "is stored here and goes on being tried until", "copies are at B ("+b.peerID+")")
	if err := json.Unmarshal([]byte(r.out), &sent); err != nil || sent.Delivered {
		t.Errorf("to a node that is down: exit %d, %q", r.code, r.out)
	}
	a.runsOut([]string{"send", c.peerID, "too far", "--ttl", "1"}, "TTL of 1")

	// Wrong usage and wrong names.
	a.vix("send", "nobody", "x").fails(t, 1, "nobody")
	a.vix("send", "", "x").fails(t, 2, "no peer")
	a.vix("send", a.peerID, "x").fails(t, 1, "itself")
	a.vix("send", "B").fails(t, 2, "a peer and a text")
	a.vix("send", "B", "x", "--ttl", "0").fails(t, 2, "1 to 32")
	a.vix("send", "B", "x", "--lifetime", "8d").fails(t, 2)
	a.vix("send", "B", "x", "--lifetime", "200h").fails(t, 2, "at most 7 days")
	a.vix("send", "B", strings.Repeat("x", 16<<10+1)).fails(t, 1, "16385 bytes")
	a.vix("messages", "--from", "nonsense").fails(t, 2, "no cursor")
	b.vix("messages", "--from", cursor).fails(t, 1, "history")
	a.stop()
	a.vix("send", "B", "x").fails(t, 1, "no node is running")
	a.vix("messages").fails(t, 1, "no node is running")
}
