package main

import (
	"fmt"
	"io"
	"strings"
	"sync"

	"golang.org/x/term"

	"vixp2p/node/localapi"
)

// liveLine is one line at the bottom of a terminal that is written again and
// again. Log lines that go through it appear above.
type liveLine struct {
	out   io.Writer
	logs  io.Writer // nil: logs do not go to the same terminal
	width func(io.Writer) int

	mu   sync.Mutex // guards line and keeps writes apart
	line string
}

// eraseLine is "go to the first column, erase to the end of the line" (ECMA-48).
const eraseLine = "\r\x1b[K"

func (l *liveLine) set(line string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.line = line
	_, _ = io.WriteString(l.out, eraseLine+line)
}

// clear takes the line away.
func (l *liveLine) clear() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.line != "" {
		l.line = ""
		_, _ = io.WriteString(l.out, eraseLine)
	}
}

// Write writes log lines above the line.
func (l *liveLine) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.line == "" {
		return l.logs.Write(b)
	}
	_, _ = io.WriteString(l.out, eraseLine)
	n, err := l.logs.Write(b)
	_, _ = io.WriteString(l.out, l.line)
	return n, err
}

func (l *liveLine) columns() int {
	if l.width == nil {
		return 0
	}
	return l.width(l.out)
}

// width of a terminal in columns; 80 where it is not known.
func (p *program) width(w io.Writer) int {
	if f, ok := file(w); ok {
		if n, _, err := term.GetSize(int(f.Fd())); err == nil && n > 0 {
			return n
		}
	}
	return 80
}

// renderLive is the live line: who, with whom, how much, and how far behind.
// It is at most width-1 columns, so that the terminal does not break it.
func renderLive(t *localapi.Totals, width int) string {
	parts := []string{
		fmt.Sprintf("[vix p2p] %s", shown(t.Label, 20)),
		fmt.Sprintf("peers %d/%d", t.PeersConnected, t.PeersTotal),
		fmt.Sprintf("ops %s", grouped(t.Ops)),
	}
	if t.Pending > 0 {
		parts = append(parts, "pending "+grouped(t.Pending))
	}
	switch {
	case t.Sync != nil:
		parts = append(parts, "catching up "+syncText(t.Sync))
	case t.PeersConnected > 0 && !t.Settled:
		parts = append(parts, "comparing")
	case t.PeersConnected > 0 && t.Ended:
		parts = append(parts, "a certificate has ended, see peers")
	case t.PeersConnected > 0 && t.Pending == 0:
		parts = append(parts, "in step")
	}
	if t.Durability == "relaxed" {
		parts = append(parts, "RELAXED")
	}
	if t.Damaged {
		parts = append(parts, "DAMAGED, see status")
	}
	return shown(strings.Join(parts, " | "), max(width-1, 20))
}
