package localapi

import (
	"bufio"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"
)

// A node that was killed leaves its address behind, and any user of the machine
// can listen there since. So whoever answers proves that it knows the token
// before it gets the token or anything else: the client sends a random nonce, the
// server answers with an HMAC of it, which tells nothing about the token. The
// client asks on every connection that it makes, and uses that connection only.
// A second HMAC, of the directory's id too, proves that the node runs on the very
// directory that the client was asked for: `cp -a` copies the files of a running node.

// provePath is the one route that needs no token.
const provePath = "/v1/prove"

const (
	proofDomain        = "vix/api/1 "
	dirDomain          = "vix/api/1/directory "
	minNonce, maxNonce = 32, 128 // characters
	maxProofAnswer     = 4 << 10 // bytes that a client reads before it trusts
	nonceEntropy       = 256 / 8 // bytes
)

// proof is the answer of provePath.
type proof struct {
	Proof string `json:"proof"`
	Dir   string `json:"dir"` // of the data directory
}

// proofOf is HMAC-SHA-256 in hex, the key being the token as its file has it.
func proofOf(token, nonce string) string { return mac(token, proofDomain+nonce) }

// proofOfDir proves the token and the directory.
func proofOfDir(e endpoint, nonce string) string { return mac(e.token, dirDomain+nonce+" "+e.dir) }

func mac(token, text string) string {
	m := hmac.New(sha256.New, []byte(token))
	_, _ = io.WriteString(m, text) // never fails
	return hex.EncodeToString(m.Sum(nil))
}

func (s *Server) prove(w http.ResponseWriter, _ *http.Request, q *query) error {
	nonce := q.text("nonce")
	if err := q.end(); err != nil {
		return err
	}
	if len(nonce) < minNonce || len(nonce) > maxNonce {
		return Errorf(CodeUsage, "the parameter \"nonce\" is %d to %d characters", minNonce, maxNonce)
	}
	return writeObject(w, proof{proofOf(s.endpoint.token, nonce), proofOfDir(s.endpoint, nonce)})
}

var (
	// errStranger: who answers is not the node whose token the directory has.
	errStranger = errors.New("another program answers there")
	// errElsewhere: it is that node, and its directory is another one: this one is
	// a copy.
	errElsewhere = errors.New("the node of another directory answers there")
)

// dialer returns the client's way to make connections: each has proven itself.
func (e endpoint) dialer(timeout time.Duration) func(ctx context.Context, network, addr string) (net.Conn, error) {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		ctx, cancel := context.WithTimeout(ctx, timeout)
		defer cancel()
		conn, err := (&net.Dialer{}).DialContext(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		if err := e.challenge(ctx, conn); err != nil {
			_ = conn.Close()
			return nil, err
		}
		return conn, nil
	}
}

// challenge has the other side of a new connection prove itself until ctx ends.
func (e endpoint) challenge(ctx context.Context, conn net.Conn) error {
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	err := e.askProof(conn)
	if !stop() {
		return fmt.Errorf("no answer: %w", ctx.Err())
	}
	return err
}

func (e endpoint) askProof(conn net.Conn) error {
	var b [nonceEntropy]byte
	rand.Read(b[:]) // never fails (crypto/rand)
	nonce := hex.EncodeToString(b[:])
	u := url.URL{Scheme: "http", Host: e.addr, Path: provePath, RawQuery: "nonce=" + nonce}
	req, err := http.NewRequest(http.MethodGet, u.String(), nil)
	if err != nil {
		return err
	}
	if err := req.Write(conn); err != nil {
		return err
	}
	in := bufio.NewReader(io.LimitReader(conn, maxProofAnswer))
	res, err := http.ReadResponse(in, req)
	if err != nil {
		return errStranger
	}
	defer res.Body.Close()
	var got proof
	body, err := io.ReadAll(res.Body)
	if err != nil || json.Unmarshal(body, &got) != nil || in.Buffered() > 0 ||
		!hmac.Equal([]byte(got.Proof), []byte(proofOf(e.token, nonce))) {
		return errStranger
	}
	if !hmac.Equal([]byte(got.Dir), []byte(proofOfDir(e, nonce))) {
		return errElsewhere
	}
	return nil
}
