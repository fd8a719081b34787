package main

import (
	"strings"
	"testing"
)

// The relay's address stays: its identity is in its directory.
func TestRelayCommand(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	id := ""
	for range 2 {
		r := vix(t, "relay", "--data-dir", dir, "--listen", "127.0.0.1:0", "--run", "0.2", "--json", "--log-level", "warn").ok(t)
		ready, stats, _ := strings.Cut(r.out, "\n")
		fields := strings.Fields(ready)
		if len(fields) != 3 || fields[0] != "ready" || !strings.HasPrefix(fields[1], "peer_id=12D3KooW") || !strings.Contains(fields[2], "/ip4/127.0.0.1/udp/") {
			t.Fatalf("the ready line is %q", ready)
		}
		if id != "" && fields[1] != id {
			t.Errorf("the relay was %s and is %s", id, fields[1])
		}
		id = fields[1]
		if want := `{"reservations":0,"circuits":0,"circuits_total":0,"bytes":0,"refused":0}` + "\n"; stats != want {
			t.Errorf("the counters are %q, want %q", stats, want)
		}
	}

	running := background(t, nil, "relay", "--data-dir", dir, "--listen", "127.0.0.1:0")
	running.line()
	vix(t, "relay", "--data-dir", dir, "--listen", "127.0.0.1:0").fails(t, 1, "another process")
	for _, args := range [][]string{{"put", "k", "v"}, {"status"}, {"wait"}, {"ls"}, {"run", "--listen", "0"}} {
		vix(t, append(args, "--data-dir", dir)...).fails(t, 1, dir+" is the directory of a relay", "name a node's directory")
	}
	n := runNode(t, "", "--discovery", "off")
	vix(t, "relay", "--data-dir", n.dir, "--listen", "127.0.0.1:0").fails(t, 1, n.dir+" is the directory of a node", "name another directory for the relay")
}

func TestRelayUsage(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		args []string
		word string
	}{
		{[]string{"relay", "--relay-data", "1"}, "64K on"},
		{[]string{"relay", "--relay-reservations", "0"}, "from 1 to"},
		{[]string{"relay", "--listen", "70000"}, "port"},
		{[]string{"relay", "--tcp", "off", "--quic", "off"}, "leave one on"},
		{[]string{"relay", "x"}, "no argument"},
		{[]string{"run", "--id", "A", "--relay", "192.0.2.1:4001"}, "--open"},
		{[]string{"run", "--id", "A", "--open", "--relay", "nonsense"}, "host:port"},
		{[]string{"run", "--id", "A", "--port-mapping", "on"}, "nothing to map"},
		{[]string{"run", "--id", "A", "--max-rate", "1000"}, "at least 32768"},
		{[]string{"run", "--id", "A", "--max-rate", "fast"}, "number of bytes"},
	} {
		vix(t, append(c.args, "--data-dir", t.TempDir())...).fails(t, 2, c.word)
	}
}

func TestAmount(t *testing.T) {
	for _, c := range []struct {
		in    string
		value int64 // -1: refused
		shown string
	}{
		{"0", -1, ""}, {"1023", -1, ""}, {"1024", 1024, "1K"}, {"1025", 1025, "1025"}, {"64k", 64 << 10, "64K"},
		{"1536K", 1536 << 10, "1536K"}, {"3M", 3 << 20, "3M"}, {"2G", 2 << 30, "2G"}, {"8589934592G", -1, ""},
		{"-1", -1, ""}, {"1.5M", -1, ""}, {"", -1, ""}, {"K", -1, ""}, {"1KK", -1, ""},
	} {
		v := amount{min: 1024}
		err := v.Set(c.in)
		if (err != nil) != (c.value < 0) || err == nil && (v.value != c.value || v.String() != c.shown) {
			t.Errorf("%q is %d, shown as %s (%v), want %d, %s", c.in, v.value, &v, err, c.value, c.shown)
		}
	}
}
