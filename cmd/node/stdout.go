package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync"
	"syscall"
)

// output is the standard output. It remembers the first write that failed, so that
// no command ends with success whose output nobody got.
type output struct {
	io.Writer

	mu  sync.Mutex // guards err; run writes in a goroutine of its own
	err error
}

func (o *output) Write(b []byte) (int, error) {
	n, err := o.Writer.Write(b)
	if err != nil {
		o.mu.Lock()
		defer o.mu.Unlock()
		if o.err == nil {
			o.err = err
		}
		return n, o.err // of several alike, so that explain knows it
	}
	return n, nil
}

// errNobodyReads: the output's reader has gone (`| head`), and wants no message.
var errNobodyReads = errors.New("nobody reads the output")

// explain is how a command ended that ended with err: an error of its own is told
// first. What the output did to a command that serves is of no account.
func (o *output) explain(err error, serves bool) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.err == nil || err == nil && serves || err != nil && !errors.Is(err, o.err) {
		return err
	}
	if errors.Is(o.err, syscall.EPIPE) {
		return errNobodyReads
	}
	cause := o.err
	if path, ok := errors.AsType[*fs.PathError](cause); ok {
		cause = path.Err
	}
	return fmt.Errorf("cannot write the output: %w; what the command has done stays done", cause)
}

// ready prints the line that scripts wait for. A reader that has seen enough
// (`run | head -1`), or that is gone from then on, does not end the command.
func (p *program) ready(format string, args ...any) error {
	_, err := fmt.Fprintf(p.stdout, "ready "+format+"\n", args...)
	if err != nil && !errors.Is(err, syscall.EPIPE) {
		return err
	}
	p.serves.Store(true)
	return nil
}

// file is the file behind an output, if it is one.
func file(w io.Writer) (*os.File, bool) {
	if o, ok := w.(*output); ok {
		w = o.Writer
	}
	f, ok := w.(*os.File)
	return f, ok
}
