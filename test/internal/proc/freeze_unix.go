//go:build unix

package proc

import "syscall"

// Freeze stops the process as the suspend of a machine does: it keeps its sockets
// and says nothing. Commands for it wait.
func (n *Node) Freeze() { n.signal(syscall.SIGSTOP) }

// Thaw ends Freeze.
func (n *Node) Thaw() { n.signal(syscall.SIGCONT) }

func (n *Node) signal(s syscall.Signal) {
	n.t.Helper()
	if err := n.cmd.Process.Signal(s); err != nil {
		n.t.Fatal(err)
	}
}
