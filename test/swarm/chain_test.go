// Package swarm tests several real nodes with real data.
package swarm

import (
	"bufio"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"vixp2p/test/internal/proc"
)

func TestMain(m *testing.M) { proc.Main(m) }

// sample is a part of Debian bookworm's package index; full is all of it, where
// it lies beside the repository.
const (
	sample = "../testdata/debian-packages-sample.jsonl.gz"
	full   = "../../../shared/data/debian-packages.jsonl.gz"
)

// keysOf reads the keys of a data file in order.
func keysOf(t *testing.T, path string) []string {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	var keys []string
	sc := bufio.NewScanner(z)
	sc.Buffer(nil, 1<<20)
	for sc.Scan() {
		var rec struct{ Key string }
		if err := json.Unmarshal(sc.Bytes(), &rec); err != nil {
			t.Fatal(err)
		}
		keys = append(keys, rec.Key)
	}
	if err := sc.Err(); err != nil {
		t.Fatal(err)
	}
	return keys
}

func dataFile(t *testing.T) string {
	t.Helper()
	if _, err := os.Stat(full); err == nil && !testing.Short() {
		return full
	}
	t.Logf("using the sample: the full package index is not beside the repository, or -short is set")
	return sample
}

// edits is a load file that sets each key to a value that names the editor.
func edits(keys []string, who string) io.Reader {
	var b strings.Builder
	for i, k := range keys {
		fmt.Fprintf(&b, "{\"key\":%q,\"value\":%q}\n", k, fmt.Sprintf("%s edit %d", who, i))
	}
	return strings.NewReader(b.String())
}

// TestChainWithRealData loads a package index into A alone; B and C start later
// in a chain A-B-C; then A and C edit the same keys while B is down.
func TestChainWithRealData(t *testing.T) {
	t.Parallel()
	file, err := filepath.Abs(dataFile(t))
	if err != nil {
		t.Fatal(err)
	}
	keys := keysOf(t, file)

	a := proc.New(t, "A").Start()
	var done struct{ Records uint64 }
	lines := strings.Split(strings.TrimSpace(a.OK("load", file, "--json")), "\n")
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &done); err != nil {
		t.Fatal(err)
	}
	if done.Records != uint64(len(keys)) {
		t.Fatalf("load says %d records, the file has %d", done.Records, len(keys))
	}

	b := proc.New(t, "B", "--connect", a.Addr()).Start()
	c := proc.New(t, "C", "--connect", b.Addr()).Start()
	all := proc.Converged(t, a, b, c)
	for i, s := range all {
		if got := s.Spaces["default"].Keys; got != uint64(len(keys)) {
			t.Errorf("node %d has %d keys, not %d", i, got, len(keys))
		}
	}
	for _, i := range []int{0, len(keys) / 2, len(keys) - 1} {
		if va, vc := a.OK("get", keys[i]), c.OK("get", keys[i]); va != vc || va == "" {
			t.Errorf("%s: %q on A, %q on C", keys[i], va, vc)
		}
	}

	b.Stop()
	edited := keys[:min(1000, len(keys)/2)]
	for _, n := range []*proc.Node{a, c} {
		if r := n.RunInput(edits(edited, n.Label), "load", "-"); r.Code != 0 {
			t.Fatalf("load edits into %s: %s", n.Label, r.Stderr)
		}
	}
	b.Start()
	all = proc.Converged(t, a, b, c)
	for i, s := range all {
		if got := s.Spaces["default"].Conflicts; got != uint64(len(edited)) {
			t.Errorf("node %d shows %d conflicts, not %d", i, got, len(edited))
		}
	}
	want := a.OK("ls", "--conflicts", "--json")
	if n := strings.Count(want, "\n"); n != len(edited) {
		t.Errorf("A lists %d conflicts, not %d", n, len(edited))
	}
	for _, n := range []*proc.Node{b, c} {
		if got := n.OK("ls", "--conflicts", "--json"); got != want {
			t.Errorf("%s lists other conflicts than A", n.Label)
		}
	}
	if got, want := b.OK("get", edited[0], "--conflicts"), a.OK("get", edited[0], "--conflicts"); got != want {
		t.Errorf("siblings differ:\n%s%s", want, got)
	}

	// The next write resolves.
	b.OK("put", edited[0], "agreed")
	all = proc.Converged(t, a, b, c)
	for i, s := range all {
		if got := s.Spaces["default"].Conflicts; got != uint64(len(edited)-1) {
			t.Errorf("node %d shows %d conflicts after one was resolved, not %d", i, got, len(edited)-1)
		}
	}
	for _, n := range []*proc.Node{a, b, c} {
		if r := n.Run("verify", "--json"); r.Code != 0 {
			t.Errorf("verify on %s: exit %d\n%s", n.Label, r.Code, r.Stdout)
		}
	}
}
