package main

import (
	"fmt"
	"io"
	"log/slog"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"vixp2p/node"
	"vixp2p/node/localapi"
)

// print writes one JSON object as a line.
func (p *program) print(v any) error { return localapi.WriteJSON(p.stdout, v) }

// newLogger writes log lines with the levels' own names.
func newLogger(w io.Writer, level slog.Level, format string) *slog.Logger {
	if level >= levelOff {
		return slog.New(slog.DiscardHandler)
	}
	opts := &slog.HandlerOptions{Level: level, ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
		if len(groups) == 0 && a.Key == slog.LevelKey {
			switch l, _ := a.Value.Any().(slog.Level); {
			case l <= levelTrace:
				a.Value = slog.StringValue("TRACE")
			case l >= levelCritical:
				a.Value = slog.StringValue("CRITICAL")
			}
		}
		return a
	}}
	if format == "json" {
		return slog.New(slog.NewJSONHandler(w, opts))
	}
	return slog.New(slog.NewTextHandler(w, opts))
}

// note says on standard error what a command that has done its work has to add.
func (p *program) note(text string) {
	if text != "" {
		fmt.Fprintf(p.stderr, "vix-node: note: %s\n", text)
	}
}

// shown is text fit for a line of a table or a terminal: control characters are
// escaped, and more than most runes are cut.
func shown(s string, most int) string {
	if strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) || !utf8.ValidString(s) {
		s = strings.Trim(fmt.Sprintf("%q", s), `"`)
	}
	if r := []rune(s); most > 0 && len(r) > most {
		return string(r[:most-1]) + "…"
	}
	return s
}

// keyText is a key on a line of its own: quoted, with escapes, unless it is plain
// text that cannot be mistaken for a quoted key.
func keyText(k localapi.Key) string {
	s := string(k.Bytes())
	if strings.HasPrefix(s, `"`) || !utf8.ValidString(s) || strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return strconv.Quote(s)
	}
	return s
}

// short is the end of a peer ID or the start of a hex id: enough for people.
func short(id string) string {
	const n = 8
	switch {
	case len(id) <= n:
		return id
	case strings.HasPrefix(id, "12D3KooW"):
		return "…" + id[len(id)-n:]
	}
	return id[:n]
}

// grouped writes a number with commas.
func grouped(n uint64) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// many counts things: "1 record", "2,000 records".
func many(n uint64, one, more string) string {
	if n == 1 {
		return "1 " + one
	}
	return grouped(n) + " " + more
}

// size writes bytes in powers of 1,024, as flags take them.
func size(n uint64) string { return node.SizeText(n) }

// ago writes how long ago a moment was.
func ago(t *localapi.Time, now time.Time) string {
	if t == nil {
		return "never"
	}
	return brief(now.Sub(t.Time)) + " ago"
}

// brief writes a time with one or two units.
func brief(d time.Duration) string {
	switch {
	case d < time.Second:
		return fmt.Sprintf("%d ms", max(d.Milliseconds(), 0))
	case d < 10*time.Second:
		return fmt.Sprintf("%.1f s", d.Seconds())
	case d < 2*time.Minute:
		return fmt.Sprintf("%.0f s", d.Seconds())
	case d < 2*time.Hour:
		return fmt.Sprintf("%.0f min", d.Minutes())
	}
	return fmt.Sprintf("%.0f h", d.Hours())
}
