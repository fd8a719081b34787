package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/spf13/cobra"

	"vixp2p/node"
	"vixp2p/node/localapi"
)

// need is what a command can do without a running node.
type need int

const (
	needNode  need = iota // nothing
	needData              // read a data directory that exists
	needStore             // write, to a new data directory if there is none
)

const (
	// lockPatience is how long a command waits for another one that has the
	// directory open, or for a node that is just starting on it.
	lockPatience = 5 * time.Second
	// filesPatience is how long the files of a node may be incomplete, because it
	// is just starting or ending.
	filesPatience = time.Second
	pollEvery     = 50 * time.Millisecond
)

// backend finds the running node of the data directory, or opens the directory
// itself. close must be called.
func (p *program) backend(ctx context.Context, n need) (b localapi.Backend, close func() error, err error) {
	dir, err := p.dir()
	if err != nil {
		return nil, nil, err
	}
	for start := time.Now(); ; {
		c, err := localapi.Dial(ctx, dir)
		if err == nil {
			return c, func() error { c.Close(); return nil }, nil
		}
		if !errors.Is(err, localapi.ErrNotRunning) {
			return nil, nil, err
		}
		silent, isSilent := errors.AsType[*localapi.SilentError](err)
		if n == needNode {
			switch {
			case isSilent:
				return nil, nil, silent
			case !node.DataDirInUse(dir):
				return nil, nil, localapi.Errorf(localapi.CodeNoNode, "no node is running on %s: start it with `vix-node run %s`", dir, p.nodeFlag())
			}
		} else {
			opened, openErr := p.openDir(ctx, dir, n)
			switch {
			case openErr == nil:
				return node.Backend(opened), opened.Close, nil
			case !errors.Is(openErr, node.ErrLocked):
				return nil, nil, openErr
			case isSilent:
				return nil, nil, silent // somebody has the directory: it is the node
			}
		}
		if waited := time.Since(start); waited > lockPatience || waited > filesPatience && isFilesError(err) {
			return nil, nil, unreachable(dir, err)
		}
		if err := sleep(ctx, pollEvery); err != nil {
			return nil, nil, err
		}
	}
}

func isFilesError(err error) bool {
	_, ok := errors.AsType[*localapi.FilesError](err)
	return ok
}

// unreachable says why nobody answers for a directory that is in use. err is why
// Dial found no node.
func unreachable(dir string, err error) error {
	if isFilesError(err) {
		return err
	}
	if deaf, ok := errors.AsType[*localapi.DeafError](err); ok {
		return localapi.Errorf(localapi.CodeLocked, "%w", deaf)
	}
	return localapi.Errorf(localapi.CodeLocked, "a process has %s open, and there is no %s to reach it by: wait if it is a node that starts or a command at work, else end it and start it again, without --api off", dir, localapi.AddrFile)
}

// nodeFlag is how the command line named the node.
func (p *program) nodeFlag() string {
	if p.flags.dataDir != "" {
		return "--data-dir " + p.flags.dataDir
	}
	return "--id " + p.flags.id
}

// openDir opens a data directory without a network.
func (p *program) openDir(ctx context.Context, dir string, n need) (*node.Node, error) {
	network, exists, err := node.DataDirNetwork(dir)
	if err != nil {
		return nil, err
	}
	if !exists && n != needStore {
		return nil, localapi.Errorf(localapi.CodeNotFound, "there is no node data in %s: found or join a network of members there (init, join, cert import), or start a node of an open network with `vix-node run %s`, or name another directory", dir, p.nodeFlag())
	}
	opened, err := node.Open(ctx, node.Config{
		DataDir: dir, Label: p.flags.id, NetworkName: network, Offline: true,
		Logger: newLogger(p.stderr, slog.LevelWarn, "text"),
	})
	if err == nil && !exists {
		fmt.Fprintf(p.stderr, "vix-node: made a new data directory, %s, of the open network %q\n", dir, node.DefaultNetworkName)
	}
	return opened, err
}

// sleep waits, or returns why ctx ended.
func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// timeLimit is --timeout, or the command's own default; 0: none.
func (p *program) timeLimit(def time.Duration) time.Duration {
	if p.flags.timeoutSet {
		return p.flags.timeout.value
	}
	return def
}

// within bounds a context by a time that a person or a default gave; 0: none.
func within(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	if d == 0 {
		return context.WithCancel(ctx)
	}
	return context.WithTimeoutCause(ctx, d, localapi.ErrTimeUp)
}

// with runs fn on the node or directory of the command line within a time, 0 for
// none, and puts errors into their final form.
func (p *program) with(cmd *cobra.Command, n need, limit time.Duration, fn func(ctx context.Context, b localapi.Backend) error) error {
	ctx, cancel := within(cmd.Context(), limit)
	defer cancel()
	b, closeBackend, err := p.backend(ctx, n)
	if err == nil {
		err = errors.Join(fn(ctx, b), closeBackend())
	}
	return p.explain(ctx, err)
}

// explain says why a command ended early in words of the command line, unless
// the error does so itself.
func (p *program) explain(ctx context.Context, err error) error {
	switch {
	case err == nil || ctx.Err() == nil || !bareEnding(err):
		return err
	case errors.Is(context.Cause(ctx), errInterrupted):
		return errInterrupted
	}
	return localapi.Errorf(localapi.CodeTimeout, "the time is up before this was done: give it more with --timeout")
}

// isEnding tells an error that only says that the context ended.
func isEnding(err error) bool {
	c := localapi.CodeOf(err)
	return c == localapi.CodeCancelled || c == localapi.CodeTimeout || errors.Is(err, errInterrupted)
}

// bareEnding tells an error without a sentence of its own.
func bareEnding(err error) bool {
	s := err.Error()
	return s == context.DeadlineExceeded.Error() || s == context.Canceled.Error() || s == localapi.ErrTimeUp.Error()
}
