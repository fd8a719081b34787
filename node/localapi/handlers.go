package localapi

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"maps"
	"net/http"
)

// handler answers one request, or says why not before it has written anything.
type handler func(w http.ResponseWriter, r *http.Request, q *query) error

// table is the routes of the package comment.
func (s *Server) table() map[string]handler {
	routes := map[string]handler{
		"GET " + provePath:    s.prove,
		"GET " + pingPath:     s.ping,
		"GET /v1/status":      s.status,
		"GET /v1/peers":       s.peers,
		"POST /v1/connect":    s.connect,
		"POST /v1/disconnect": s.disconnect,
		"POST /v1/forget":     s.forget,
		"GET /v1/wait":        s.wait,
		"GET /v1/kv":          s.get,
		"PUT /v1/kv":          s.put,
		"DELETE /v1/kv":       s.delete,
		"GET /v1/keys":        s.list,
		"GET /v1/watch":       s.watch,
		"GET /v1/log":         s.tail,
		"POST /v1/log":        s.append,
		"POST /v1/batch":      s.batch,
		"POST /v1/verify":     s.verify,
		"POST /v1/send":       s.send,
		"GET /v1/messages":    s.messages,
	}
	maps.Copy(routes, s.memberRoutes())
	return routes
}

func (s *Server) routes() http.Handler {
	mux := http.NewServeMux()
	for pattern, h := range s.table() {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			q, err := readQuery(r.URL.RawQuery)
			if err == nil {
				err = h(w, r, q)
			}
			if err != nil {
				writeError(w, s.ending(r.Context(), err))
			}
		})
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		writeError(w, Errorf(CodeNotFound, "there is no %s %s in this API", r.Method, r.URL.Path))
	})
	return mux
}

// ending explains a cancellation that came from Close.
func (s *Server) ending(ctx context.Context, err error) error {
	if CodeOf(err) == CodeCancelled && ctx.Err() != nil {
		return Errorf(CodeClosed, "the node is stopping: start it again and repeat the request")
	}
	return err
}

func writeError(w http.ResponseWriter, err error) {
	e := asError(err)
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(e.status())
	_ = WriteJSON(w, e)
}

func writeObject(w http.ResponseWriter, v any) error {
	w.Header().Set("Content-Type", "application/json")
	_ = WriteJSON(w, v) // a client that is gone needs no answer
	return nil
}

func (s *Server) ping(w http.ResponseWriter, r *http.Request, q *query) error {
	if err := q.end(); err != nil {
		return err
	}
	return writeObject(w, Pong{OK: true, Pong: true, PeerID: s.cfg.PeerID, Version: s.cfg.Version})
}

func (s *Server) status(w http.ResponseWriter, r *http.Request, q *query) error {
	if err := q.end(); err != nil {
		return err
	}
	st, err := s.cfg.Backend.Status(r.Context())
	if err != nil {
		return err
	}
	st.Version, st.DataDir = s.cfg.Version, s.cfg.Dir
	return writeObject(w, st)
}

func (s *Server) peers(w http.ResponseWriter, r *http.Request, q *query) error {
	if err := q.end(); err != nil {
		return err
	}
	st, err := s.cfg.Backend.Status(r.Context())
	if err != nil {
		return err
	}
	return stream(s, w, r, func(emit func(Peer) error) error {
		for _, p := range st.Peers {
			if err := emit(p); err != nil {
				return err
			}
		}
		return nil
	})
}

func (s *Server) connect(w http.ResponseWriter, r *http.Request, q *query) error {
	var in struct {
		Addr string `json:"addr"`
	}
	if err := s.object(w, r, q, &in); err != nil {
		return err
	}
	if in.Addr == "" {
		return Errorf(CodeUsage, "there is no \"addr\" to connect to: send {\"addr\":\"host:port\"}")
	}
	out, err := s.cfg.Backend.Connect(r.Context(), in.Addr)
	if err != nil {
		return err
	}
	return writeObject(w, out)
}

func (s *Server) disconnect(w http.ResponseWriter, r *http.Request, q *query) error {
	peer, err := s.peerOf(w, r, q, "disconnect")
	if err != nil {
		return err
	}
	out, err := s.cfg.Backend.Disconnect(r.Context(), peer)
	if err != nil {
		return err
	}
	return writeObject(w, out)
}

func (s *Server) forget(w http.ResponseWriter, r *http.Request, q *query) error {
	peer, err := s.peerOf(w, r, q, "forget")
	if err != nil {
		return err
	}
	out, err := s.cfg.Backend.Forget(r.Context(), peer)
	if err != nil {
		return err
	}
	return writeObject(w, out)
}

// peerOf reads the body {"peer"} of what is done with a peer.
func (s *Server) peerOf(w http.ResponseWriter, r *http.Request, q *query, what string) (string, error) {
	var in struct {
		Peer string `json:"peer"`
	}
	if err := s.object(w, r, q, &in); err != nil {
		return "", err
	}
	if in.Peer == "" {
		return "", Errorf(CodeUsage, "there is no \"peer\" to %s: send {\"peer\":\"ID or label\"}", what)
	}
	return in.Peer, nil
}

// object reads a small JSON body of a route without query parameters.
func (s *Server) object(w http.ResponseWriter, r *http.Request, q *query, v any) error {
	if err := q.end(); err != nil {
		return err
	}
	return decodeObject(http.MaxBytesReader(w, r.Body, maxObjectBody), v)
}

func (s *Server) wait(w http.ResponseWriter, r *http.Request, q *query) error {
	cond := Wait{Peers: q.number("peers"), Synced: q.flag("synced")}
	timeout := q.millis("timeout_ms")
	if err := q.end(); err != nil {
		return err
	}
	ctx := r.Context()
	if timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, timeout, ErrTimeUp)
		defer cancel()
	}
	if err := s.cfg.Backend.Wait(ctx, cond); err != nil {
		return err
	}
	return writeObject(w, struct {
		OK bool `json:"ok"`
	}{true})
}

func (s *Server) get(w http.ResponseWriter, r *http.Request, q *query) error {
	space, key, raw := q.space(), q.bytes("key"), q.flag("raw")
	if err := q.end(); err != nil {
		return err
	}
	e, err := s.cfg.Backend.Get(r.Context(), space, key)
	if err != nil {
		return err
	}
	if !raw {
		return writeObject(w, e)
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	_, _ = w.Write(e.Value.Bytes())
	return nil
}

func (s *Server) list(w http.ResponseWriter, r *http.Request, q *query) error {
	space := q.space()
	l := List{Prefix: q.bytes("prefix"), Conflicts: q.flag("conflicts")}
	if err := q.end(); err != nil {
		return err
	}
	return stream(s, w, r, func(emit func(Entry) error) error {
		return s.cfg.Backend.List(r.Context(), space, l, emit)
	})
}

func (s *Server) watch(w http.ResponseWriter, r *http.Request, q *query) error {
	space := q.space()
	wt := Watch{Prefix: q.bytes("prefix"), From: q.text("from"), Count: q.number("count")}
	if err := q.end(); err != nil {
		return err
	}
	return stream(s, w, r, func(emit func(Event) error) error {
		return s.cfg.Backend.Watch(r.Context(), space, wt, emit)
	})
}

func (s *Server) tail(w http.ResponseWriter, r *http.Request, q *query) error {
	space := q.space()
	t := Tail{From: q.text("from"), Follow: q.flag("follow"), Count: q.number("count"), SetAside: q.flag("set_aside")}
	if err := q.end(); err != nil {
		return err
	}
	if t.SetAside && (t.From != "" || t.Follow) {
		return Errorf(CodeUsage, "what is set aside has no order of arrival: leave from and follow out with set_aside")
	}
	return stream(s, w, r, func(emit func(Record) error) error {
		return s.cfg.Backend.Tail(r.Context(), space, t, emit)
	})
}

func (s *Server) put(w http.ResponseWriter, r *http.Request, q *query) error {
	op := Op{Op: OpPut, Key: q.bytes("key")}
	return s.writeRaw(w, r, q, op, func(b []byte) Op { op.Value = b; return op })
}

func (s *Server) append(w http.ResponseWriter, r *http.Request, q *query) error {
	op := Op{Op: OpAppend, Kind: q.text("kind")}
	return s.writeRaw(w, r, q, op, func(b []byte) Op { op.Payload = b; return op })
}

// writeRaw writes one operation whose content is the request's body.
func (s *Server) writeRaw(w http.ResponseWriter, r *http.Request, q *query, op Op, with func([]byte) Op) error {
	space, wr, early := q.space(), q.write(), q.flag("early")
	if err := q.end(); err != nil {
		return err
	}
	if err := op.Check(); err != nil {
		return err
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, MaxValue))
	if err != nil {
		return bodyError("the body", err)
	}
	wr.Ops = []Op{with(body)}
	return s.write(w, r, space, wr, early)
}

func (s *Server) delete(w http.ResponseWriter, r *http.Request, q *query) error {
	space, wr, early := q.space(), q.write(), q.flag("early")
	wr.Ops = []Op{{Op: OpDelete, Key: q.bytes("key")}}
	if err := q.end(); err != nil {
		return err
	}
	return s.write(w, r, space, wr, early)
}

func (s *Server) batch(w http.ResponseWriter, r *http.Request, q *query) error {
	space, wr, early := q.space(), q.write(), q.flag("early")
	if err := q.end(); err != nil {
		return err
	}
	var err error
	if wr.Ops, err = decodeOps(http.MaxBytesReader(w, r.Body, maxBatchBody)); err != nil {
		return err
	}
	return s.write(w, r, space, wr, early)
}

func (s *Server) write(w http.ResponseWriter, r *http.Request, space string, wr Write, early bool) error {
	for i := range wr.Ops {
		if err := wr.Ops[i].Check(); err != nil {
			return err
		}
	}
	return inStages(s, w, r, early && wr.Replicas > 0, func(durable func(Written)) (Written, error) {
		wr.Durable = durable
		return s.cfg.Backend.Write(r.Context(), space, wr)
	})
}

// inStages answers with what run returns; early, also with what run tells before
// as soon as it does, each a line.
func inStages[T any](s *Server, w http.ResponseWriter, r *http.Request, early bool, run func(tell func(T)) (T, error)) error {
	if early {
		return stream(s, w, r, func(emit func(T) error) error {
			out, err := run(func(v T) { _ = emit(v) }) // a client that is gone hears nothing
			if err != nil {
				return err
			}
			return emit(out)
		})
	}
	out, err := run(nil)
	if err != nil {
		return err
	}
	return writeObject(w, out)
}

func (s *Server) verify(w http.ResponseWriter, r *http.Request, q *query) error {
	rebuild := q.flag("rebuild")
	if err := q.end(); err != nil {
		return err
	}
	return stream(s, w, r, func(emit func(Finding) error) error {
		return s.cfg.Backend.Verify(r.Context(), rebuild, emit)
	})
}

// stream answers with a line for each value, flushed soon. An error before the
// first line is an ordinary error answer, a later one the last line.
func stream[T any](s *Server, w http.ResponseWriter, r *http.Request, run func(emit func(T) error) error) error {
	lines := newLineWriter(w)
	defer lines.close()
	err := run(func(v T) error {
		var b bytes.Buffer
		if err := WriteJSON(&b, v); err != nil {
			return err
		}
		return lines.write(b.Bytes())
	})
	if err != nil && !lines.begun() {
		return err
	}
	if err != nil {
		if b, merr := json.Marshal(asError(s.ending(r.Context(), err))); merr == nil {
			_ = lines.write(append(b, '\n'))
		}
	}
	lines.finish()
	return nil
}
