// Command vix-node is the offline-first peer-to-peer node as a program:
//
//	vix-node run --id A --listen 9001
//	vix-node run --id B --listen 9002 --connect 127.0.0.1:9001
//	vix-node put --id A greeting hello
//	vix-node get --id B greeting
//
// Commands talk to the running node of a data directory over its local API
// (package node/localapi); with none running, those that can open the directory
// itself. Exit codes: 0 done, 1 failed or not found, 2 wrong usage.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/term"

	"vixp2p/node/localapi"
)

// Exit codes (design 10).
const (
	exitDone   = 0
	exitFailed = 1
	exitUsage  = 2
)

func main() {
	p := &program{
		stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr,
		getenv: os.Getenv,
		terminal: func(w io.Writer) bool {
			f, ok := file(w)
			return ok && term.IsTerminal(int(f.Fd()))
		},
	}
	os.Exit(p.main(os.Args[1:]))
}

// program is what commands have from outside, so that tests can give it.
type program struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	getenv         func(string) string
	// terminal tells whether a person sees what is written there.
	terminal func(io.Writer) bool

	flags globalFlags

	// serves tells that the command runs until it is ended, and has said that it is
	// ready: an output that cannot be written is no reason to end it any more.
	serves atomic.Bool
	// tidies tells that the command takes away what it made before it ends, soon
	// after the first interrupt.
	tidies atomic.Bool
}

// tidyPatience is how long a second interrupt waits for that.
const tidyPatience = 15 * time.Second

// oneStop is how long after the first signal another one says the same: `timeout`, and
// wrappers that pass a terminal's Ctrl-C on, signal twice in one breath.
const oneStop = 250 * time.Millisecond

// main runs one command line and returns its exit code. The first interrupt,
// SIGTERM or SIGHUP ends the command cleanly, another interrupt or SIGTERM at once.
func (p *program) main(args []string) int {
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	hangup := make(chan os.Signal, 1)
	if !signal.Ignored(syscall.SIGHUP) { // as nohup does
		signal.Notify(hangup, syscall.SIGHUP)
		defer signal.Stop(hangup)
	}
	defer signal.Stop(signals)
	done := make(chan struct{})
	defer close(done)
	go func() {
		select {
		case <-signals:
			cancel(errInterrupted)
		case <-hangup: // the terminal is gone, which may be told twice
			cancel(errInterrupted)
		case <-done:
			return
		}
		for first := time.Now(); ; {
			select {
			case <-signals:
			case <-done:
				return
			}
			if time.Since(first) >= oneStop {
				break
			}
		}
		if p.tidies.Load() {
			select {
			case <-done:
				return
			case <-time.After(tidyPatience):
			}
		}
		fmt.Fprintln(p.stderr, "vix-node: stopped at once; the next start checks what was under way")
		os.Exit(exitFailed)
	}()
	// A command whose output nobody reads any more ends by itself, with its directory
	// closed, and is not killed.
	signal.Ignore(syscall.SIGPIPE)
	out := &output{Writer: p.stdout}
	p.stdout = out
	root := p.root()
	root.SetArgs(args)
	cmd, err := root.ExecuteContextC(ctx)
	err = out.explain(err, p.serves.Load())
	switch {
	case err == nil:
		return exitDone
	case errors.Is(err, errNobodyReads):
		return exitFailed
	}
	fmt.Fprintf(p.stderr, "vix-node: %v\n", err)
	if exitCode(err) == exitUsage {
		fmt.Fprintf(p.stderr, "Run '%s --help' for how to use it.\n", cmd.CommandPath())
		return exitUsage
	}
	return exitFailed
}

// errInterrupted is the cause of a context that a signal ended.
var errInterrupted = errors.New("interrupted")

// usageError is a command line that cannot be right.
type usageError struct{ err error }

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

func usagef(format string, args ...any) error {
	return &usageError{fmt.Errorf(format, args...)}
}

// isAboutState tells that a command line is fine, but for the directory or file that
// it names.
func isAboutState(err error) bool {
	c := localapi.CodeOf(err)
	return c == localapi.CodeConflict || c == localapi.CodeOtherNetwork
}

func exitCode(err error) int {
	var usage *usageError
	if errors.As(err, &usage) || localapi.CodeOf(err) == localapi.CodeUsage {
		return exitUsage
	}
	return exitFailed
}
