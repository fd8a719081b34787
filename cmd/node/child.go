package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"vixp2p/node/localapi"
)

const (
	childStart = 20 * time.Second // from exec to ready
	childStop  = 10 * time.Second // from SIGTERM to the end
	// childLife ends nodes that a killed demo leaves behind.
	childLife = 5 * time.Minute
)

// child is a node of the demo: a process of this same program.
type child struct {
	label   string
	dir     string
	logPath string
	connect []string // addresses that it keeps sessions with
	port    string   // that it listens on; "0" before the first start

	cmd    *exec.Cmd
	exited chan struct{} // closed when the process has ended and was waited for
	client *localapi.Client
	peerID string
}

func newChild(base, label string) *child {
	return &child{label: label, dir: filepath.Join(base, label), logPath: filepath.Join(base, label+".log"), port: "0"}
}

// addr is where other nodes reach it.
func (c *child) addr() string { return "127.0.0.1:" + c.port }

// start runs the program and returns when it serves. A second start keeps the
// port, so that others find the node again.
func (c *child) start(ctx context.Context) error {
	exe, err := os.Executable()
	if err != nil {
		return fmt.Errorf("cannot find this program's own file: %w", err)
	}
	logFile, err := os.OpenFile(c.logPath, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer logFile.Close() // the child has its own
	args := []string{"run", "--data-dir", c.dir, "--id", c.label, "--listen", "127.0.0.1:" + c.port,
		"--run", childLife.String(), "--quiet", "--log-level", "debug"}
	for _, a := range c.connect {
		args = append(args, "--connect", a)
	}
	cmd := exec.Command(exe, args...)
	cmd.Env = plainEnv(os.Environ())
	cmd.Stderr = logFile
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("cannot start node %s: %w", c.label, err)
	}
	c.cmd, c.exited = cmd, make(chan struct{})
	ready := make(chan string, 1)
	go func() {
		defer close(c.exited)
		r := bufio.NewReader(stdout)
		line, _ := r.ReadString('\n')
		ready <- line
		_, _ = io.Copy(io.Discard, r)
		_ = cmd.Wait() // how it ended, stop and kill know
	}()
	ctx, cancel := context.WithTimeout(ctx, childStart)
	defer cancel()
	select {
	case line := <-ready:
		if err := c.readReady(line); err != nil {
			return err
		}
	case <-ctx.Done():
		return fmt.Errorf("node %s was not ready in time: %w", c.label, context.Cause(ctx))
	}
	c.client, err = localapi.Dial(ctx, c.dir)
	return err
}

// readReady takes peer ID and port from the line that run prints.
func (c *child) readReady(line string) error {
	for _, field := range strings.Fields(line) {
		if id, ok := strings.CutPrefix(field, "peer_id="); ok {
			c.peerID = id
		}
		if list, ok := strings.CutPrefix(field, "listen="); ok {
			for _, a := range strings.Split(list, ",") {
				if port, ok := strings.CutPrefix(a, "/ip4/127.0.0.1/tcp/"); ok {
					c.port = port
				}
			}
		}
	}
	if c.peerID == "" || c.port == "0" {
		return fmt.Errorf("node %s did not start: its log is %s", c.label, c.logPath)
	}
	return nil
}

// kill is kill -9: the process gets no chance to finish anything.
func (c *child) kill() error {
	if err := c.cmd.Process.Kill(); err != nil {
		return err
	}
	c.gone()
	return nil
}

// stop ends the node cleanly.
func (c *child) stop() error {
	err := c.cmd.Process.Signal(syscall.SIGTERM)
	if err != nil && !errors.Is(err, os.ErrProcessDone) {
		return c.kill() // a system without signals
	}
	select {
	case <-c.exited:
		c.gone()
		return nil
	case <-time.After(childStop):
		return errors.Join(fmt.Errorf("node %s did not stop within %s", c.label, childStop), c.kill())
	}
}

func (c *child) gone() {
	<-c.exited
	c.cmd = nil
	if c.client != nil {
		c.client.Close()
		c.client = nil
	}
}

// running tells whether the process was started and not ended by us.
func (c *child) running() bool { return c.cmd != nil }

// plainEnv leaves out what would change the flags of a child.
func plainEnv(env []string) (out []string) {
	for _, e := range env {
		if !strings.HasPrefix(e, "VIX_") {
			out = append(out, e)
		}
	}
	return out
}
