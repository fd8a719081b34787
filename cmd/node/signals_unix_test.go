//go:build unix

package main

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"vixp2p/node/localapi"
)

// A node whose process stands still is not told to be started, by those commands
// neither that could work on the directory.
func TestStoppedProcess(t *testing.T) {
	n := runNode(t, "")
	n.vix("put", "k", "v").ok(t)
	n.freeze()
	for _, args := range [][]string{{"status"}, {"get", "k"}} {
		t.Run(args[0], func(t *testing.T) {
			t.Parallel()
			vix(t, append(args, "--data-dir", n.dir)...).fails(t, 1, "the node of "+n.dir+" does not answer", "stopped")
		})
	}
}

// freeze stops the process until the end of the test. A signal that was sent is
// not yet one that has arrived: until the first thread of the process runs again
// and takes it, the others go on and can still answer. The kernel reports the stop
// to the parent when the last thread stands still.
func (p *proc) freeze() {
	p.t.Helper()
	p.t.Cleanup(func() { p.signal(syscall.SIGCONT) })
	p.signal(syscall.SIGSTOP)
	for {
		var status syscall.WaitStatus
		_, err := syscall.Wait4(p.cmd.Process.Pid, &status, syscall.WUNTRACED, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
		case err != nil || !status.Stopped():
			p.t.Fatalf("%v does not stop but has status %#x, %v", p.cmd.Args[1:], status, err)
		default:
			return
		}
	}
}

// A demo whose result nobody takes leaves nothing behind.
func TestDemoWithoutReaderOfTheResult(t *testing.T) {
	t.Parallel() // it is the whole demo
	tmp := t.TempDir()
	cmd := command(t, []string{"TMPDIR=" + tmp}, "demo", "--json")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var said strings.Builder
	cmd.Stderr = &said
	if err := errors.Join(cmd.Start(), out.Close()); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // its exit code tells
	if code := cmd.ProcessState.ExitCode(); code != exitFailed || !strings.HasSuffix(said.String(), errUnread.Error()+"\n") {
		t.Errorf("exit %d: %s", code, said.String())
	}
	if left, err := os.ReadDir(tmp); err != nil || len(left) != 0 {
		t.Errorf("it leaves %v, %v", left, err)
	}
}

// A demo that is ended early, by its reader or by an impatient person, leaves
// nothing behind.
func TestDemoTidiesUp(t *testing.T) {
	for name, end := range map[string]func(cmd *exec.Cmd, out io.Closer) error{
		"nobody reads": func(_ *exec.Cmd, out io.Closer) error { return out.Close() },
		"interrupted twice": func(cmd *exec.Cmd, _ io.Closer) error {
			for start := time.Now(); time.Since(start) < 2*oneStop; { // until it is a second one
				if err := cmd.Process.Signal(os.Interrupt); err != nil && !errors.Is(err, os.ErrProcessDone) {
					return err
				}
				time.Sleep(20 * time.Millisecond)
			}
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			tmp := t.TempDir()
			cmd := command(t, []string{"TMPDIR=" + tmp}, "demo")
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(out, make([]byte, 1)); err != nil {
				t.Fatal(err)
			}
			if err := end(cmd, out); err != nil {
				t.Fatal(err)
			}
			_ = cmd.Wait() // its exit code tells
			if code := cmd.ProcessState.ExitCode(); code != exitFailed {
				t.Errorf("exit %d", code)
			}
			if left, err := os.ReadDir(tmp); err != nil || len(left) != 0 {
				t.Errorf("it leaves %v, %v", left, err)
			}
		})
	}
}

// The first Ctrl-C ends a command cleanly; where that takes too long for the
// person, the second one ends it at once.
func TestSecondInterruptStopsAtOnce(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	// Nobody reads the output of run, and it is full: run cannot get on to where
	// it would see the first Ctrl-C.
	if err := w.SetWriteDeadline(time.Now().Add(100 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	for err == nil {
		_, err = io.WriteString(w, strings.Repeat(".", 4096))
	}
	for err = nil; err == nil; {
		_, err = io.WriteString(w, ".")
	}
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cmd := command(t, nil, "run", "--data-dir", dir, "--log-level", "off")
	var stderr strings.Builder
	cmd.Stdout, cmd.Stderr = w, &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = cmd.Wait() // its exit code tells
	}()
	deadline := time.Now().Add(patience)
	for { // until it serves
		if _, err := os.Stat(filepath.Join(dir, localapi.AddrFile)); err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the node does not serve")
		}
		time.Sleep(5 * time.Millisecond)
	}
	// Signals that arrive together count as one.
	for tick := time.NewTicker(20 * time.Millisecond); ; {
		if err := cmd.Process.Signal(os.Interrupt); err != nil && !errors.Is(err, os.ErrProcessDone) {
			t.Fatal(err)
		}
		select {
		case <-tick.C:
			continue
		case <-ended:
			tick.Stop()
		}
		break
	}
	if code := cmd.ProcessState.ExitCode(); code != exitFailed || !strings.HasPrefix(stderr.String(), "vix-node: stopped at once") {
		t.Errorf("exit %d: %q", code, stderr.String())
	}
	// Nothing is lost: the directory opens, without its node.
	vix(t, "put", "k", "v", "--data-dir", dir).ok(t)
}

// Signals that come in one breath are one, as when `timeout` tells the process and
// then its group: the node ends cleanly. Two kinds, because the system may merge two of
// one kind.
func TestTwoSignalsInOneBreath(t *testing.T) {
	n := runNode(t, "")
	n.signal(syscall.SIGTERM)
	_ = n.cmd.Process.Signal(os.Interrupt) // it may have ended
	if code := n.end(); code != 0 {
		t.Errorf("exit %d: %s", code, n.errText())
	}
}

// A terminal that is closed ends a node as cleanly as SIGTERM, however often that is
// told.
func TestHangup(t *testing.T) {
	n := runNode(t, "")
	n.signal(syscall.SIGHUP)
	_ = n.cmd.Process.Signal(syscall.SIGHUP) // it may have ended
	if code := n.end(); code != 0 {
		t.Errorf("exit %d: %s", code, n.errText())
	}
	if _, err := os.Stat(filepath.Join(n.dir, localapi.AddrFile)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the node has not tidied up: %v", err)
	}
}
