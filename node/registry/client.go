package registry

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Limits of a client, as in the original where it has them.
const (
	ConnectTimeout = 3 * time.Second
	RequestTimeout = 5 * time.Second // the whole of it, redirects and body included
	maxRedirects   = 3
	maxReplyHeader = 16 << 10
	// keepAlive is shorter than what a server of ours allows, so that no request
	// meets a connection that is just being closed.
	keepAlive = 2 * time.Second
	// clockSlack: a registry's clock counts as different from ours from here on.
	// The Date header has whole seconds.
	clockSlack = 2 * time.Second
)

// Trouble is a kind of failure. One kind is worth one line of a log.
type Trouble string

// Kinds of trouble with a registry.
const (
	Unreachable Trouble = "unreachable" // nobody answers at its address
	TimedOut    Trouble = "timed out"   // the answer is not complete in time
	Redirected  Trouble = "redirects"   // to where a client does not follow
	Garbage     Trouble = "garbage"     // the answer is not that of a registry
	Refused     Trouble = "refused"     // it answered with an error
)

// Error is a failed request. Its text is one sentence fit to be shown, whatever
// the registry sent.
type Error struct {
	Trouble Trouble
	Status  int    // of HTTP; 0 without an answer
	Code    string // one of the codes of errors; empty if the answer has none
	Message string
	Cause   error // may be nil

	date time.Time // the registry's clock; zero: not told
}

func (e *Error) Error() string { return e.Message }
func (e *Error) Unwrap() error { return e.Cause }

// ParseURL reads a registry's base URL, such as http://127.0.0.1:8080/p2p/v1.
func ParseURL(s string) (*url.URL, error) {
	u, err := url.Parse(strings.TrimSpace(s))
	bad := func(why string) (*url.URL, error) {
		return nil, fmt.Errorf("the registry %q %s: use a URL such as http://127.0.0.1:8080/p2p/v1", shorten(s), why)
	}
	switch {
	case err != nil && !strings.Contains(s, "://"):
		return bad("is not an HTTP URL")
	case err != nil:
		return bad("is not a URL")
	case u.Scheme != "http" && u.Scheme != "https":
		return bad("is not an HTTP URL")
	case u.Hostname() == "":
		return bad("names no host")
	case u.RawQuery != "" || u.Fragment != "":
		return bad("has a query or a fragment, which a base cannot have")
	}
	if p := u.Port(); p != "" {
		if n, err := strconv.ParseUint(p, 10, 16); err != nil || n == 0 {
			return bad("has a port that is none")
		}
	}
	u.Path = strings.TrimRight(u.Path, "/")
	return u, nil
}

// Client asks one registry. It trusts nothing that it hears: answers are bounded
// in size and time, and redirects are followed only within the host that was
// named. It uses no proxy: a registry takes a node's host from its connection.
// Its methods are safe for concurrent use.
type Client struct {
	base    *url.URL
	http    *http.Client
	now     func() time.Time
	timeout time.Duration // RequestTimeout; tests are less patient

	mu    sync.Mutex // guards below
	local bool
	// ahead is by how much the registry's clock is ahead of ours, as far as it
	// refused us for that; 0 before.
	ahead time.Duration
	last  uint64 // the time of the last announcement: the next one's is later
}

// NewClient makes a client for a base URL. now is the clock of announcements; nil
// is time.Now.
func NewClient(base string, now func() time.Time) (*Client, error) {
	u, err := ParseURL(base)
	if err != nil {
		return nil, err
	}
	if now == nil {
		now = time.Now
	}
	c := &Client{base: u, now: now, timeout: RequestTimeout}
	if ip, err := netip.ParseAddr(u.Hostname()); err == nil {
		c.local = ip.IsLoopback()
	} else {
		c.local = u.Hostname() == "localhost"
	}
	c.http = &http.Client{
		CheckRedirect: checkRedirect,
		Transport: &http.Transport{
			DialContext:            (&net.Dialer{Timeout: ConnectTimeout}).DialContext,
			TLSHandshakeTimeout:    ConnectTimeout,
			TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12},
			MaxResponseHeaderBytes: maxReplyHeader,
			DisableCompression:     true, // what is small on the wire must be small here
			MaxConnsPerHost:        2,
			IdleConnTimeout:        keepAlive,
		},
	}
	return c, nil
}

// URL is the base, without a password.
func (c *Client) URL() string { return c.base.Redacted() }

// Local tells whether the registry runs on this machine, as far as is known: by
// its name, then by the last connection.
func (c *Client) Local() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.local
}

// Close gives up connections that wait for a next request.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// errRedirect wraps why a redirect is not followed.
var errRedirect = errors.New("redirect")

func checkRedirect(r *http.Request, via []*http.Request) error {
	first := via[0].URL
	to := shorten(r.URL.Redacted())
	switch {
	case len(via) > maxRedirects:
		return fmt.Errorf("%w: it redirects more than %d times", errRedirect, maxRedirects)
	case r.URL.Scheme != "http" && r.URL.Scheme != "https":
		return fmt.Errorf("%w: it redirects to %s, which is not HTTP", errRedirect, to)
	case via[len(via)-1].URL.Scheme == "https" && r.URL.Scheme == "http":
		return fmt.Errorf("%w: it redirects from https to %s, which is not protected", errRedirect, to)
	case !strings.EqualFold(r.URL.Hostname(), first.Hostname()):
		return fmt.Errorf("%w: it redirects to another host, %s: if that is the registry, name it instead", errRedirect, to)
	case r.Method != via[0].Method:
		return fmt.Errorf("%w: it redirects an announcement to %s in a way that would lose it: name that registry instead", errRedirect, to)
	}
	return nil
}

// Peers asks for up to limit peers, 0: as many as the registry likes to tell, and
// with a network (NetworkTag) for those of it. Entries that make no sense are left
// out. Errors: *Error, and that of ctx.
func (c *Client) Peers(ctx context.Context, limit int, network string) ([]Peer, error) {
	q := url.Values{}
	if limit > 0 {
		q.Set("limit", strconv.Itoa(limit))
	}
	if network != "" {
		q.Set("network", network)
	}
	body, err := c.do(ctx, http.MethodGet, peersPath, q, nil)
	if err != nil {
		return nil, err
	}
	peers, ok := readPeers(body)
	if !ok {
		return nil, &Error{Trouble: Garbage, Status: http.StatusOK, Message: c.says("answers what is not a list of peers: is the URL right?")}
	}
	return peers, nil
}

// readPeers reads an answer, at most MaxLimit sensible entries of it; false if it
// is not one.
func readPeers(body []byte) (peers []Peer, ok bool) {
	var answer struct {
		Peers []json.RawMessage `json:"peers"`
	}
	if err := json.Unmarshal(body, &answer); err != nil || answer.Peers == nil {
		return nil, false
	}
	for _, raw := range answer.Peers {
		var p Peer
		if json.Unmarshal(raw, &p) == nil && p.sensible() && len(peers) < MaxLimit {
			peers = append(peers, p)
		}
	}
	return peers, true
}

// sensible tells whether there is something to dial, written as it must be.
func (p *Peer) sensible() bool {
	if checkText(p.NodeID, 0, maxNodeID) != nil || len(p.Addrs) > maxAddrs || p.Network != "" && !isNetworkTag(p.Network) {
		return false
	}
	if p.PeerID != "" {
		if _, ok := asPeer(p.PeerID); !ok {
			return false
		}
	}
	if p.Host != "" {
		// A zone is an interface of another machine, and may hold any bytes.
		if at, err := netip.ParseAddr(p.Host); err != nil || at.Zone() != "" {
			return false
		}
	}
	for _, s := range p.Addrs {
		if checkText(s, 1, maxAddr) != nil {
			return false
		}
	}
	return p.Host != "" && p.TCPPort != 0 || len(p.Addrs) > 0
}

// Announce signs the announcement with the node's key, for now by the registry's
// clock, and sends it; a itself stays as it is. Addresses that do not fit are left
// out, the last ones first. Errors: *Error, ErrInvalid, and that of ctx.
func (c *Client) Announce(ctx context.Context, key ed25519.PrivateKey, a Announcement) error {
	err := c.announce(ctx, key, a)
	var refused *Error
	if !errors.As(err, &refused) || refused.Code != CodeStale || refused.date.IsZero() {
		return err
	}
	// Clocks differ: that is no reason to be left out.
	ahead := refused.date.Sub(c.now())
	c.mu.Lock()
	known := (ahead - c.ahead).Abs() < clockSlack
	if !known {
		c.ahead, c.last = ahead, 0
	}
	c.mu.Unlock()
	if known {
		return err
	}
	return c.announce(ctx, key, a)
}

func (c *Client) announce(ctx context.Context, key ed25519.PrivateKey, a Announcement) error {
	c.mu.Lock()
	a.TimeMS = max(uint64(max(c.now().Add(c.ahead).UnixMilli(), 1)), c.last+1)
	c.last = a.TimeMS
	c.mu.Unlock()
	a.Nonce = NewNonce()
	id, err := idOf(key)
	if err != nil {
		return err
	}
	a.PeerID = id.String()
	if a.NodeID == "" {
		a.NodeID = a.PeerID
	}
	a.Fit()
	if err := a.Sign(key); err != nil {
		return err
	}
	data, err := a.Encode()
	if err != nil {
		return err
	}
	body, err := c.do(ctx, http.MethodPost, announcePath, nil, data)
	if err != nil {
		return err
	}
	var answer okJSON
	if json.Unmarshal(body, &answer) != nil || !answer.OK {
		return &Error{Trouble: Garbage, Status: http.StatusOK, Message: c.says("answers an announcement with something else than ok: is the URL right?")}
	}
	return nil
}

// do makes one request and returns the body of a good answer.
func (c *Client) do(ctx context.Context, method, path string, q url.Values, data []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: c.gotConn})
	u := *c.base
	u.Path, u.RawQuery = u.Path+path, q.Encode()
	req, err := http.NewRequestWithContext(ctx, method, u.String(), bytes.NewReader(data))
	if err != nil {
		return nil, &Error{Trouble: Unreachable, Message: c.says("cannot be asked"), Cause: err}
	}
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", "vix-node")
	if data != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.failed(ctx, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, MaxAnswer+1))
	if err != nil {
		return nil, c.failed(ctx, err)
	}
	if len(body) > MaxAnswer {
		return nil, &Error{Trouble: Garbage, Status: resp.StatusCode, Message: c.says(fmt.Sprintf("answers more than %d bytes: is the URL right?", MaxAnswer))}
	}
	if resp.StatusCode != http.StatusOK {
		return nil, c.refused(resp, body)
	}
	return body, nil
}

func (c *Client) gotConn(info httptrace.GotConnInfo) {
	at, err := netip.ParseAddrPort(info.Conn.RemoteAddr().String())
	if err != nil {
		return
	}
	c.mu.Lock()
	c.local = at.Addr().Unmap().IsLoopback()
	c.mu.Unlock()
}

func (c *Client) says(what string) string { return "the registry " + c.URL() + " " + what }

// failed turns what the HTTP client says into a sentence. The end of ctx that the
// caller brought about stays what it is.
func (c *Client) failed(ctx context.Context, err error) error {
	var timeout net.Error
	switch {
	case errors.Is(ctx.Err(), context.Canceled):
		return context.Cause(ctx)
	case errors.Is(err, errRedirect):
		var wrapped *url.Error
		errors.As(err, &wrapped)
		text := strings.TrimPrefix(wrapped.Err.Error(), errRedirect.Error()+": it ")
		return &Error{Trouble: Redirected, Message: c.says(text), Cause: err}
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return &Error{Trouble: TimedOut, Message: c.says("does not answer in time"), Cause: err}
	}
	var wrapped *url.Error
	if errors.As(err, &wrapped) {
		err = wrapped.Err // without the URL, which is in the sentence
	}
	var op *net.OpError
	var dns *net.DNSError
	if errors.As(err, &op) && op.Op == "dial" || errors.As(err, &dns) {
		return &Error{Trouble: Unreachable, Message: c.says("cannot be reached: " + shortenTo(err.Error(), 200)), Cause: err}
	}
	return &Error{Trouble: Garbage, Message: c.says("gives no answer that makes sense: " + shortenTo(err.Error(), 200)), Cause: err}
}

// refused turns an answer that is no success into a sentence.
func (c *Client) refused(resp *http.Response, body []byte) error {
	e := &Error{Trouble: Refused, Status: resp.StatusCode}
	e.date, _ = http.ParseTime(resp.Header.Get("Date"))
	var answer errorJSON
	if json.Unmarshal(body, &answer) == nil && answer.Message != "" {
		e.Code = shorten(answer.Error)
		e.Message = c.says(fmt.Sprintf("refuses: %s (%d)", shortenTo(answer.Message, 200), resp.StatusCode))
	} else {
		e.Message = c.says(fmt.Sprintf("answers with status %d %s: is the URL right?", resp.StatusCode, http.StatusText(resp.StatusCode)))
	}
	return e
}
