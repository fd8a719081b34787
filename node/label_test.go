package node

import (
	"os"
	"path/filepath"
	"testing"
)

// TestLabelIsRemembered: a node that is named by its directory alone has the label
// that it was given last; a command that opens the directory does not rename it.
func TestLabelIsRemembered(t *testing.T) {
	dir := t.TempDir()
	for _, step := range []struct {
		given   string
		offline bool
		want    string // "": the end of the peer ID
	}{
		{"", false, ""},
		{"", true, ""},
		{"A", true, "A"},
		{"", false, "A"},
		{"B", false, "B"},
		{"C", true, "C"}, // for itself
		{"", true, "B"},
		{"", false, "B"},
	} {
		n := open(t, Config{DataDir: dir, Label: step.given, Offline: step.offline})
		want := step.want
		if want == "" {
			want = shortID(n.id)
		}
		if n.Label() != want {
			t.Errorf("given %q the node is %q, not %q", step.given, n.Label(), want)
		}
		if err := n.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, labelFile), []byte("two\nlines\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if n := open(t, Config{DataDir: dir, Offline: true}); n.Label() != shortID(n.id) {
		t.Errorf("a label that cannot be one is taken: %q", n.Label())
	}
}
