package localapi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// ErrNotRunning: no node answers for the data directory. Its files may be left
// from one that was killed, and another program may have its port since; or they
// came with a copy of another directory, and are of the node of that one.
var ErrNotRunning = errors.New("no node is running")

// SilentError: where the node of a data directory should answer somebody accepts
// connections and says nothing. It matches ErrNotRunning, since that may be
// another program: the lock of the directory knows.
type SilentError struct{ Dir, Addr string }

func (e *SilentError) Error() string {
	return fmt.Sprintf("the node of %s does not answer at %s within %s: see whether its process is stopped or the machine is overloaded, or end it and start it again", e.Dir, e.Addr, dialTimeout)
}

// Is matches ErrNotRunning.
func (e *SilentError) Is(t error) bool { return t == ErrNotRunning }

// DeafError: nothing listens where the files of a data directory say that its node
// answers. The files may be left from one that was killed; if a process has the
// directory, a command that works on it or a node on another loopback: the lock of the
// directory knows. It matches ErrNotRunning.
type DeafError struct{ Dir, Addr string }

func (e *DeafError) Error() string {
	return fmt.Sprintf("a process has %s open, and nothing answers at %s, which its %s names: if that is a node in a container, a network namespace or another machine that shares this directory, run the command there; if it is a command at work, wait for it", e.Dir, e.Addr, AddrFile)
}

// Is matches ErrNotRunning.
func (e *DeafError) Is(t error) bool { return t == ErrNotRunning }

// dialTimeout bounds the question whether a node is there; on loopback the
// answer takes less than a millisecond, but for a very busy machine.
const dialTimeout = 5 * time.Second

// writeRoute is the one by which a Client writes.
const writeRoute = "batch"

// Client is the running node of a data directory.
type Client struct {
	dir      string
	endpoint endpoint
	http     *http.Client
	pong     Pong
	stall    time.Duration // after which a node ends an answer that is not read
}

var _ Backend = (*Client)(nil)

// Dial finds the running node of a data directory and makes sure that it is that
// node: ErrNotRunning if there is none, *DeafError if there is none where it should be,
// *SilentError if that cannot be told, *FilesError if what the directory says about it cannot be right. The
// client needs no closing; Close frees its idle connections.
func Dial(ctx context.Context, dir string) (*Client, error) { return dial(ctx, dir, dialTimeout) }

func dial(ctx context.Context, dir string, timeout time.Duration) (*Client, error) {
	e, err := readEndpoint(dir)
	switch {
	case noFiles(err):
		return nil, ErrNotRunning
	case errors.Is(err, fs.ErrPermission):
		return nil, Errorf(CodeNotAllowed, "the files of the local API in %s are another user's: run the command as the user who runs the node", dir)
	case err != nil:
		return nil, err
	}
	c := &Client{dir: dir, endpoint: e, stall: stallTimeout, http: &http.Client{
		Transport: &http.Transport{
			Proxy:               nil, // loopback, whatever the environment says
			DialContext:         e.dialer(timeout),
			DisableCompression:  true,
			MaxIdleConnsPerHost: 4,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
	pingCtx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	err = c.call(pingCtx, http.MethodGet, "ping", nil, nil, &c.pong)
	if err == nil {
		return c, nil
	}
	c.Close()
	var broken *Error
	switch {
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case isTimeout(err):
		return nil, &SilentError{Dir: dir, Addr: e.addr}
	case errors.Is(err, errStranger):
		return nil, &FilesError{dir}
	case errors.As(err, &broken) && broken.Code != CodeClosed:
		return nil, err // the node says why not
	}
	return nil, &DeafError{Dir: dir, Addr: e.addr}
}

func isTimeout(err error) bool {
	var ne net.Error
	return errors.Is(err, context.DeadlineExceeded) || errors.As(err, &ne) && ne.Timeout()
}

// Close frees idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// PeerID of the node.
func (c *Client) PeerID() string { return c.pong.PeerID }

func (c *Client) Status(ctx context.Context) (st Status, err error) {
	err = c.call(ctx, http.MethodGet, "status", nil, nil, &st)
	return st, err
}

func (c *Client) Connect(ctx context.Context, addr string) (out Connected, err error) {
	err = c.call(ctx, http.MethodPost, "connect", nil, map[string]string{"addr": addr}, &out)
	return out, err
}

func (c *Client) Disconnect(ctx context.Context, peer string) (out Disconnected, err error) {
	err = c.call(ctx, http.MethodPost, "disconnect", nil, map[string]string{"peer": peer}, &out)
	return out, err
}

func (c *Client) Forget(ctx context.Context, peer string) (out Forgotten, err error) {
	err = c.call(ctx, http.MethodPost, "forget", nil, map[string]string{"peer": peer}, &out)
	return out, err
}

func (c *Client) Wait(ctx context.Context, w Wait) error {
	q := url.Values{}
	setNumber(q, "peers", w.Peers)
	setFlag(q, "synced", w.Synced)
	if deadline, ok := ctx.Deadline(); ok {
		// The node answers at the deadline what is still missing; give the
		// answer time to arrive.
		setMillis(q, "timeout_ms", max(time.Until(deadline), time.Millisecond))
		longer, cancel := context.WithDeadline(context.WithoutCancel(ctx), deadline.Add(dialTimeout))
		defer cancel()
		caller := ctx
		defer context.AfterFunc(caller, func() {
			if errors.Is(caller.Err(), context.Canceled) {
				cancel()
			}
		})()
		ctx = longer
	}
	return c.call(ctx, http.MethodGet, "wait", q, nil, nil)
}

func (c *Client) Get(ctx context.Context, space string, key []byte) (e Entry, err error) {
	q := url.Values{"space": {space}, "key": {string(key)}}
	err = c.call(ctx, http.MethodGet, "kv", q, nil, &e)
	return e, err
}

func (c *Client) List(ctx context.Context, space string, l List, emit func(Entry) error) error {
	q := url.Values{"space": {space}, "prefix": {string(l.Prefix)}}
	setFlag(q, "conflicts", l.Conflicts)
	return receive(ctx, c, http.MethodGet, "keys", q, nil, emit)
}

func (c *Client) Write(ctx context.Context, space string, w Write) (out Written, err error) {
	q := url.Values{"space": {space}}
	setNumber(q, "replicas", w.Replicas)
	setMillis(q, "timeout_ms", w.Timeout)
	body, err := encodeOps(w.Ops)
	if err != nil {
		return out, err
	}
	durable := w.Durable
	if w.Replicas == 0 {
		durable = nil // the answer says it
	}
	setFlag(q, "early", durable != nil)
	return receiveStages(ctx, c, writeRoute, q, body, durable)
}

// receiveStages is a POST whose answer is one object; with early, which hears of
// it, another one as soon as what was sent is durable.
func receiveStages[T any](ctx context.Context, c *Client, route string, q url.Values, body any, early func(T)) (out T, err error) {
	if early == nil {
		err = c.call(ctx, http.MethodPost, route, q, body, &out)
		return out, err
	}
	lines := 0
	err = receive(ctx, c, http.MethodPost, route, q, body, func(v T) error {
		if out = v; lines == 0 {
			early(v)
		}
		lines++
		return nil
	})
	if err == nil && lines < 2 {
		err = c.broken(ctx, route, io.ErrUnexpectedEOF)
	}
	if lines > 0 && CodeOf(err) == CodeClosed {
		err = &Error{Code: CodeClosed, Cause: err, Message: fmt.Sprintf("the node of %s stopped while this command waited: what it brought is durable there, and goes on to others when the node is started again", c.dir)}
	}
	return out, err
}

func (c *Client) Watch(ctx context.Context, space string, w Watch, emit func(Event) error) error {
	q := url.Values{"space": {space}, "prefix": {string(w.Prefix)}, "from": {w.From}}
	setNumber(q, "count", w.Count)
	return receive(ctx, c, http.MethodGet, "watch", q, nil, emit)
}

func (c *Client) Tail(ctx context.Context, space string, t Tail, emit func(Record) error) error {
	q := url.Values{"space": {space}, "from": {t.From}}
	setFlag(q, "follow", t.Follow)
	setFlag(q, "set_aside", t.SetAside)
	setNumber(q, "count", t.Count)
	return receive(ctx, c, http.MethodGet, "log", q, nil, emit)
}

func (c *Client) Verify(ctx context.Context, rebuild bool, emit func(Finding) error) error {
	q := url.Values{}
	setFlag(q, "rebuild", rebuild)
	return receive(ctx, c, http.MethodPost, "verify", q, nil, emit)
}

func setNumber(q url.Values, name string, n int) {
	if n > 0 {
		q.Set(name, strconv.Itoa(n))
	}
}

func setFlag(q url.Values, name string, on bool) {
	if on {
		q.Set(name, "1")
	}
}

func setMillis(q url.Values, name string, d time.Duration) {
	if d > 0 {
		q.Set(name, strconv.FormatInt(max(d.Milliseconds(), 1), 10))
	}
}

// send makes a request; the answer's status is 200 if err is nil. A body that is
// not []byte is sent as a JSON object.
func (c *Client) send(ctx context.Context, method, route string, q url.Values, body any) (*http.Response, error) {
	var rd io.Reader
	switch b := body.(type) {
	case nil:
	case []byte:
		rd = bytes.NewReader(b)
	default:
		var buf bytes.Buffer
		if err := WriteJSON(&buf, b); err != nil {
			return nil, err
		}
		rd = &buf
	}
	u := url.URL{Scheme: "http", Host: c.endpoint.addr, Path: "/v1/" + route, RawQuery: q.Encode()}
	req, err := http.NewRequestWithContext(ctx, method, u.String(), rd)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+c.endpoint.token)
	res, err := c.http.Do(req)
	if err != nil {
		return nil, c.broken(ctx, route, err)
	}
	if res.StatusCode == http.StatusOK {
		return res, nil
	}
	defer res.Body.Close()
	var e Error
	if err := json.NewDecoder(io.LimitReader(res.Body, maxObjectBody)).Decode(&e); err != nil || e.Message == "" {
		return nil, Errorf(CodeInternal, "the node answered %s", res.Status)
	}
	return nil, &e
}

// broken explains a request without an answer.
func (c *Client) broken(ctx context.Context, route string, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	var ue *url.Error
	if errors.As(err, &ue) {
		err = ue.Err // without the address, which tells a person nothing
	}
	msg := fmt.Sprintf("the node of %s stopped answering (%v): start it again and repeat the command", c.dir, err)
	if route == writeRoute {
		msg += "; whether a write of this command happened is not known"
	}
	return &Error{Code: CodeClosed, Message: msg, Cause: err}
}

// call is a request with an answer of one object, or of none.
func (c *Client) call(ctx context.Context, method, route string, q url.Values, body, out any) error {
	res, err := c.send(ctx, method, route, q, body)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if out != nil {
		if err := json.NewDecoder(res.Body).Decode(out); err != nil {
			return c.broken(ctx, route, err)
		}
	}
	_, _ = io.Copy(io.Discard, io.LimitReader(res.Body, 1<<10)) // to the end: the connection is used again
	return nil
}

// receive is a request with an answer of many lines; the last may be an error.
func receive[T any](ctx context.Context, c *Client, method, route string, q url.Values, body any, emit func(T) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	res, err := c.send(ctx, method, route, q, body)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	dec := json.NewDecoder(res.Body)
	var paused time.Duration // the longest time in emit
	for {
		var line json.RawMessage
		if err := dec.Decode(&line); err == io.EOF {
			return nil
		} else if err != nil && paused >= c.stall/2 && ctx.Err() == nil { // the node's wait began earlier
			return Errorf(CodeTimeout, "the node ended this answer, because nothing read on for %s: repeat the command, and read on sooner or write its output to a file", c.stall)
		} else if err != nil {
			return c.broken(ctx, route, err)
		}
		if bytes.HasPrefix(line, []byte(`{"error":`)) {
			var e Error
			if err := json.Unmarshal(line, &e); err != nil {
				return c.broken(ctx, route, err)
			}
			return &e
		}
		var v T
		if err := json.Unmarshal(line, &v); err != nil {
			return c.broken(ctx, route, err)
		}
		begun := time.Now()
		if err := emit(v); err != nil {
			return err
		}
		paused = max(paused, time.Since(begun))
	}
}
