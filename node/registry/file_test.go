package registry

import (
	"bytes"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestFileKeepsEntries(t *testing.T) {
	c := newClock()
	file := filepath.Join(t.TempDir(), "entries.json")
	s := start(t, ServerConfig{Now: c.now, File: file})
	accepted(t, s, "192.0.2.1", plain("<A>", 1))
	a := signed(t, 1, nil)
	accepted(t, s, "192.0.2.2", encoded(t, a))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm()&0o077 != 0 {
		t.Errorf("%v, %v", info, err)
	}
	c.pass(90 * time.Second) // longer than the TTL: nobody could announce anything
	s = start(t, ServerConfig{Now: c.now, File: file})
	if got := list(t, s, "", asker); len(got) != 2 {
		t.Errorf("after a restart: %+v", got)
	}
	refusedWith(t, s, "203.0.113.5", encoded(t, a), 409, CodeReplayed)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	// One whose signature does not fit is not taken from a file either.
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, bytes.Replace(data, []byte(`"tcp_port":9001`), []byte(`"tcp_port":9009`), 1), 0o600); err != nil {
		t.Fatal(err)
	}
	var log logText
	s = start(t, ServerConfig{Now: c.now, File: file, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	if got := names(list(t, s, "", asker)); got != "<A>@192.0.2.1:1 " {
		t.Errorf("%s", got)
	}
	if !strings.Contains(log.String(), "set aside") {
		t.Errorf("%s", log.String())
	}
}

// A file that cannot be read is told and set aside; it never keeps the registry
// from running.
func TestDamagedFile(t *testing.T) {
	for name, content := range map[string]string{
		"empty": "", "text": "hello", "cut": `{"format":1,"entries":[{"host":"192.0.2.1","ann`, "another": `{"x":1}`,
		"host": `{"format":1,"entries":[{"host":"nowhere","announcement":{"node_id":"A","tcp_port":1}}]}`,
		"none": `{"format":1,"entries":[{"host":"192.0.2.1"}]}`, "binary": "\x00\xff",
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "entries.json")
			if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
			var log logText
			s := start(t, ServerConfig{File: file, Logger: slog.New(slog.NewTextHandler(&log, nil))})
			accepted(t, s, "192.0.2.1", plain("A", 1))
			if strings.Count(log.String(), "set aside") != 1 {
				t.Errorf("the log says %s", log.String())
			}
			if got, err := os.ReadFile(damagedName(file)); err != nil || string(got) != content {
				t.Errorf("set aside: %q, %v", got, err)
			}
		})
	}
	dir := t.TempDir()
	for name, cfg := range map[string]ServerConfig{
		"later version": {File: filepath.Join(dir, "later")},
		"directory":     {File: dir},
		"no such":       {File: filepath.Join(dir, "none", "file")},
	} {
		if err := os.WriteFile(filepath.Join(dir, "later"), []byte(`{"format":2}`), 0o600); err != nil {
			t.Fatal(err)
		}
		cfg.Addr = "127.0.0.1:0"
		if s, err := Start(cfg); err == nil {
			s.Close()
			t.Errorf("%s: no error", name)
		}
	}
}

// A file that only something else can have written gives no entry that the
// registry would not have taken.
func FuzzParseFile(f *testing.F) {
	f.Add([]byte(`{"format":1,"entries":[{"host":"192.0.2.1","announcement":{"node_id":"A","tcp_port":1}}]}`))
	f.Add([]byte(`{"format":1,"entries":[{"host":"::1%x","announcement":null},{}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		list, _ := parseFile(data)
		for _, e := range list {
			if !e.host.IsValid() || e.a.Check() != nil || e.a.Verify() != nil {
				t.Fatalf("%+v", e)
			}
		}
	})
}

// Nodes that only renew what they said do not wear the disk out; the end saves
// everything.
func TestRenewalsAreNotSavedEachTime(t *testing.T) {
	c := newClock()
	tb := newTable(DefaultTTL, 10, 10)
	host := netip.MustParseAddr("192.0.2.1")
	put := func(change func(*Announcement)) bool {
		t.Helper()
		c.pass(time.Second)
		a := signed(t, 1, func(a *Announcement) { a.TimeMS = uint64(c.now().UnixMilli()); change(a) })
		if _, err := tb.put(a, host, c.now()); err != nil {
			t.Fatal(err)
		}
		_, changed := tb.export(c.now())
		return changed
	}
	for i, c := range []struct {
		change func(*Announcement)
		want   bool
	}{
		{func(*Announcement) {}, true},
		{func(*Announcement) {}, false},
		{func(a *Announcement) { a.TCPPort = 1 }, true},
		{func(a *Announcement) { a.TCPPort, a.Addrs = 1, nil }, true},
		{func(a *Announcement) { a.TCPPort, a.Addrs = 1, nil }, false},
	} {
		if got := put(c.change); got != c.want {
			t.Errorf("announcement %d: to be saved %t, want %t", i, got, c.want)
		}
	}
	c.pass(10 * time.Minute)
	tb.sweep(c.now())
	if list, changed := tb.export(c.now()); !changed || len(list) != 0 {
		t.Errorf("after expiry: %v, %t", list, changed)
	}
}
