package localapi

import (
	"net/url"
	"strconv"
	"time"
)

// DefaultSpace is the space of a request that names none.
const DefaultSpace = "default"

// query reads a request's parameters. Its first mistake, and parameters that
// nothing asked for, come out at end.
type query struct {
	values url.Values
	err    error
}

func readQuery(raw string) (*query, error) {
	v, err := url.ParseQuery(raw)
	if err != nil {
		return nil, Errorf(CodeUsage, "the query of the address cannot be read: %w", err)
	}
	return &query{values: v}, nil
}

func (q *query) text(name string) string {
	v := q.values[name]
	delete(q.values, name)
	switch len(v) {
	case 0:
		return ""
	case 1:
		return v[0]
	}
	q.fail(name, "is given more than once")
	return ""
}

func (q *query) bytes(name string) []byte { return []byte(q.text(name)) }

func (q *query) space() string {
	if s := q.text("space"); s != "" {
		return s
	}
	return DefaultSpace
}

func (q *query) flag(name string) bool {
	switch q.text(name) {
	case "", "0":
		return false
	case "1":
		return true
	}
	q.fail(name, "is 1 or 0")
	return false
}

func (q *query) number(name string) int {
	s := q.text(name)
	if s == "" {
		return 0
	}
	n, err := strconv.ParseUint(s, 10, 31)
	if err != nil {
		q.fail(name, "is a whole number from 0 on")
	}
	return int(n)
}

func (q *query) millis(name string) time.Duration {
	return time.Duration(q.number(name)) * time.Millisecond
}

// write reads what every writing route takes.
func (q *query) write() Write {
	return Write{Replicas: q.number("replicas"), Timeout: q.millis("timeout_ms")}
}

func (q *query) fail(name, what string) {
	if q.err == nil {
		q.err = Errorf(CodeUsage, "the parameter %q %s", name, what)
	}
}

func (q *query) end() error {
	if q.err != nil {
		return q.err
	}
	for name := range q.values {
		return Errorf(CodeUsage, "the parameter %q is not known here", name)
	}
	return nil
}
