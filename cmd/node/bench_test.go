package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// A row is a JSON object with its limit and ratio, and nothing stays on the disk.
func TestBenchPrintsRowsAndTidies(t *testing.T) {
	dir := t.TempDir()
	r := vix(t, "bench", "--quick", "--only", "append-1", "--json", "--dir", dir).ok(t)
	o := r.object(t)
	for _, field := range []string{"value", "low", "high", "turns", "limit_value", "ratio", "ratio_low", "ratio_high"} {
		if v, ok := o[field].(float64); !ok || v <= 0 {
			t.Errorf("%s is %v in %s", field, o[field], r.out)
		}
	}
	_, decided := o["reached"].(bool)
	if o["name"] != "append-1" || o["unit"] != "ops/s" || o["limit"] == "" || o["target"] != "ratio 0.7" || !decided || !strings.HasPrefix(o["disk"].(string), dir+" (") {
		t.Errorf("the row is %s", r.out)
	}
	checkEmpty(t, dir)
}

// A measurement of several rows prints those alone that were asked for.
func TestBenchOfSomeRows(t *testing.T) {
	dir := t.TempDir()
	r := vix(t, "bench", "--quick", "--only", "live-p99,sha256", "--dir", dir).ok(t)
	for _, name := range []string{"live-p99", "sha256"} {
		if strings.Count(r.out, "\n"+name+" ") != 2 { // in the table, and in the list of what they are
			t.Errorf("the row %s is missing in\n%s", name, r.out)
		}
	}
	if strings.Contains(r.out, "live-p50") || strings.Contains(r.out, "verify") {
		t.Errorf("other rows than asked for:\n%s", r.out)
	}
	checkEmpty(t, dir)
	vix(t, "bench", "--only", "speed").fails(t, exitUsage, `no row "speed"`, "append-1")
}

// A run is compared with the rows of others, by the ratio.
func TestBenchCompares(t *testing.T) {
	dir := t.TempDir()
	before := filepath.Join(dir, "before.json")
	args := []string{"bench", "--quick", "--only", "append-1,sha256", "--json", "--dir", dir, "--compare", before}
	vix(t, args...).fails(t, exitFailed, "before.json")
	rows := `{"name":"append-1","unit":"ops/s","value":1,"limit":"append + fsync of the same bytes to a file","ratio":0.0001}
{"name":"sha256","unit":"MB/s","value":1e9}
`
	if err := os.WriteFile(before, []byte(rows), 0o600); err != nil {
		t.Fatal(err)
	}
	r := vix(t, args...).ok(t)
	for i, line := range strings.Split(strings.TrimSpace(r.out), "\n") {
		var row struct{ Before, Change float64 }
		if err := json.Unmarshal([]byte(line), &row); err != nil {
			t.Fatal(err)
		}
		hash := i == 0 // limits come first
		if row.Before == 0 || hash != (row.Change < 1) {
			t.Errorf("compared with %s the row is %s", rows, line)
		}
	}
	if err := os.WriteFile(before, []byte("raw 5\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	vix(t, args...).fails(t, exitFailed, "before.json", "line 1 is no row")
}

// An interrupt ends it, and what it wrote is removed.
func TestInterruptedBenchTidies(t *testing.T) {
	dir := t.TempDir()
	p := background(t, nil, "bench", "--only", "catchup-single", "--dir", dir)
	awaitFile(t, dir)
	p.signal(os.Interrupt)
	if code := p.end(); code != exitFailed || p.errText() != "vix-node: interrupted\n" {
		t.Errorf("exit %d, %q", code, p.errText())
	}
	checkEmpty(t, dir)
}

func checkEmpty(t *testing.T, dir string) {
	t.Helper()
	left, err := os.ReadDir(dir)
	if err != nil || len(left) > 0 {
		t.Errorf("bench left %v, %v", left, err)
	}
}

// awaitFile waits until something is written in a directory.
func awaitFile(t *testing.T, dir string) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; {
		list, err := os.ReadDir(dir)
		if err != nil || time.Now().After(deadline) {
			t.Fatalf("nothing is written in %s: %v", dir, err)
		}
		if len(list) > 0 {
			return
		}
		time.Sleep(time.Millisecond)
	}
}
