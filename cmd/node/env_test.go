package main

import (
	"strings"
	"testing"
)

// Which directory a command takes: --data-dir before --id, both before
// VIX_DATA_DIR, and that before VIX_ID.
func TestDirectoryOfACommand(t *testing.T) {
	home, other := t.TempDir(), t.TempDir()
	env := []string{"XDG_DATA_HOME=" + home, "HOME=" + home, "LocalAppData=" + home}
	withDir := append(env[:len(env):len(env)], "VIX_DATA_DIR="+other)
	put := func(env []string, value string, flags ...string) {
		t.Helper()
		if r := vixIn(t, env, "", append([]string{"put", "k", value}, flags...)...); r.code != 0 {
			t.Fatalf("%+v", r)
		}
	}
	holds := func(value string, flags ...string) {
		t.Helper()
		if r := vixIn(t, env, "", append([]string{"get", "k"}, flags...)...).ok(t); r.out != value {
			t.Errorf("%v: the value is %q, want %q", flags, r.out, value)
		}
	}
	put(withDir, "of the variable")
	holds("of the variable", "--data-dir", other)
	put(append(withDir, "VIX_ID=A"), "of the variable still")
	holds("of the variable still", "--data-dir", other)
	put(withDir, "of A", "--id", "A")
	holds("of A", "--id", "A")
	holds("of the variable still", "--data-dir", other)
	third := t.TempDir()
	put(withDir, "of the flag", "--id", "A", "--data-dir", third)
	holds("of the flag", "--data-dir", third)
	holds("of A", "--id", "A")

	vixIn(t, withDir, "", "status", "--id", "A").fails(t, 1, "--id A")
	vixIn(t, withDir, "", "wait", "--id", "A", "--timeout", "50ms").fails(t, 1, "--id A")
	n := background(t, withDir, "run", "--id", "A", "--listen", "0", "--quiet", "--log-level", "off")
	if l := n.line(); !strings.HasPrefix(l, "ready ") {
		t.Fatal(l)
	}
	if dir := vixIn(t, withDir, "", "status", "--id", "A", "--json").ok(t).object(t)["data_dir"]; !strings.HasPrefix(dir.(string), home) {
		t.Errorf("run --id A uses %v", dir)
	}
}
