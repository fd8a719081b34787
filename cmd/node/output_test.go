package main

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"vixp2p/node/localapi"
)

func TestFindingsAreCounted(t *testing.T) {
	p := &program{stdout: io.Discard}
	const advice = " wrong: run the node with peers connected, which fetches damaged data again, and verify once more"
	for n, want := range map[int]string{1: "1 thing is" + advice, 2: "2 things are" + advice, 1000: "1,000 things are" + advice} {
		if err := p.printFindings(make([]localapi.Finding, n)); err == nil || err.Error() != want {
			t.Errorf("%d: %v", n, err)
		}
	}
	if err := p.printFindings(nil); err != nil {
		t.Error(err)
	}
}

// full is an output that fails each time with an error of its own, as a file does.
type full struct{ cause error }

func (f full) Write([]byte) (int, error) {
	return 0, &fs.PathError{Op: "write", Path: "/dev/stdout", Err: f.cause}
}

// A command that goes on printing to a reader that has gone ends without a word.
func TestReaderGoesInTheMiddle(t *testing.T) {
	for cause, want := range map[error]string{
		syscall.EPIPE:  errNobodyReads.Error(),
		syscall.ENOSPC: "cannot write the output: no space left on device; what the command has done stays done",
	} {
		o := &output{Writer: full{cause}}
		_, _ = o.Write([]byte("a line"))
		_, err := o.Write([]byte("another"))
		if got := o.explain(errors.Join(err), false); got == nil || got.Error() != want {
			t.Errorf("%v ends with %v", cause, got)
		}
	}
}

// On a terminal the prompt does not stand behind a value; elsewhere its bytes are all.
func TestGetOnATerminal(t *testing.T) {
	dir := t.TempDir()
	if r := vix(t, "put", "k", "v", "--data-dir", dir); r.code != 0 {
		t.Fatal(r.err)
	}
	for terminal, want := range map[bool]string{true: "v\n", false: "v"} {
		var out strings.Builder
		p := &program{stdin: strings.NewReader(""), stdout: &out, stderr: io.Discard, getenv: func(string) string { return "" }, terminal: func(io.Writer) bool { return terminal }}
		if code := p.main([]string{"get", "k", "--data-dir", dir}); code != 0 || out.String() != want {
			t.Errorf("terminal %t: exit %d, %q", terminal, code, out.String())
		}
	}
}

// A ticket or certificate that an editor began with a byte order mark is as good.
func TestByteOrderMark(t *testing.T) {
	file := filepath.Join(t.TempDir(), "t")
	if err := os.WriteFile(file, []byte("\ufefftext"), 0o600); err != nil {
		t.Fatal(err)
	}
	p := &program{stdin: strings.NewReader("\ufefftext")}
	for _, name := range []string{"-", file} {
		if text, err := p.smallFile("ticket", name); text != "text" || err != nil {
			t.Errorf("%s: %q, %v", name, text, err)
		}
	}
}

// What is out of view of a member is told with whose it is and how long it is kept, and
// with how to read it where there is something to read.
func TestSetAsideText(t *testing.T) {
	since := localapi.Time{Time: time.Date(2026, 11, 29, 0, 0, 0, 0, time.UTC)}
	m := localapi.Member{PeerID: "12D3KooWSf9zkp1crKJo3YahUUaYtYkabxYDSBJ184CwtQLyomxG", Label: "laptop"}
	w := localapi.SetAside{Space: "notes", Ops: 2, Logs: 1, Since: since, Until: localapi.Time{Time: since.AddDate(0, 0, 30)}}
	text := setAsideText("--id A", &m, w)
	for _, word := range []string{"2 operations of laptop (…tQLyomxG) in space notes, in 1 log", "since 2026-11-29T", "kept until 2026-12-29T", "`vix-node tail --id A --set-aside --space notes`"} {
		if !strings.Contains(text, word) {
			t.Errorf("no %q in %q", word, text)
		}
	}
	w.Space = "vix/control"
	if text := setAsideText("--id A", &m, w); strings.Contains(text, "tail") {
		t.Error(text)
	}
}

// What a revoked node keeps to itself is told with where it begins, and how it is known.
func TestUntakenText(t *testing.T) {
	u := localapi.Untaken{Space: "notes", Log: strings.Repeat("ab", 32), From: 12, Ops: 1, Cut: true}
	for cut, want := range map[bool]string{true: "beyond the cut of its revocation", false: "is not known here"} {
		u.Cut = cut
		if text := untakenText(u); !strings.Contains(text, want) || !strings.Contains(text, "1 operation of this node in space notes, from 12 of log ") {
			t.Error(text)
		}
	}
}
