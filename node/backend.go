package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"vixp2p/node/localapi"
	"vixp2p/protocols"
	"vixp2p/replication"
	"vixp2p/replication/replicator"
	"vixp2p/trust"
)

// Backend lets a node answer the local API, in this process or, with ServeAPI,
// in others.
func Backend(n *Node) localapi.Backend { return backend{n} }

// ServeAPI makes the node reachable for commands: it listens on addr, a loopback
// host:port (default 127.0.0.1:0, any free port), and keeps the address and a
// token in the data directory until the server is closed, which must happen
// before the node is. version is what ping shows.
func ServeAPI(n *Node, addr, version string) (*localapi.Server, error) {
	return localapi.Start(localapi.Config{
		Dir: n.DataDir(), Addr: addr, Backend: Backend(n),
		PeerID: n.ID(), Version: version, Logger: n.log,
	})
}

// Check says what is wrong with a configuration, without touching anything.
func (c Config) Check() error {
	_, err := c.withDefaults()
	return err
}

// backend is a node as a localapi.Backend: names and types of the JSON contract.
type backend struct{ n *Node }

func (b backend) Connect(ctx context.Context, addr string) (localapi.Connected, error) {
	if _, err := parseTarget(addr); err != nil {
		return localapi.Connected{}, localapi.Errorf(localapi.CodeUsage, "%w", err)
	}
	id, endpoint, was, err := b.n.connect(ctx, addr)
	return localapi.Connected{PeerID: id, Addr: endpoint, Note: was}, apiError(err)
}

func (b backend) Disconnect(ctx context.Context, peer string) (localapi.Disconnected, error) {
	id, err := b.n.Disconnect(ctx, peer)
	return localapi.Disconnected{PeerID: id}, apiError(err)
}

func (b backend) Forget(ctx context.Context, peer string) (localapi.Forgotten, error) {
	id, err := b.n.Forget(ctx, peer)
	return localapi.Forgotten{PeerID: id}, apiError(err)
}

func (b backend) Wait(ctx context.Context, w localapi.Wait) error {
	err := b.n.Wait(ctx, WaitOptions{Peers: w.Peers, Synced: w.Synced})
	var behind *replicator.NotSyncedError
	if errors.As(err, &behind) && ctx.Err() != nil {
		told := *behind
		told.Cause = context.Cause(ctx)
		err = &told
	}
	return apiError(err)
}

func (b backend) Verify(ctx context.Context, rebuild bool, emit func(localapi.Finding) error) error {
	if rebuild {
		if err := b.n.RebuildView(ctx); err != nil {
			return apiError(err)
		}
	}
	// Told afterwards: a reader that stands still must not hold up the store, of
	// which a repair may be due.
	var found []Finding
	if err := b.n.Verify(ctx, func(f Finding) { found = append(found, f) }); err != nil {
		return apiError(err)
	}
	for _, f := range found {
		if err := emit(localapi.Finding{Log: f.Log, Seq: f.Seq, File: f.File, Problem: f.Problem}); err != nil {
			return err
		}
	}
	return nil
}

// space checks the name, which is part of a request.
func (b backend) space(name string) (*Space, error) {
	s := b.n.Space(name)
	if s.err != nil {
		return nil, localapi.Errorf(localapi.CodeUsage, "%w", s.err)
	}
	return s, nil
}

func (b backend) Get(ctx context.Context, space string, key []byte) (localapi.Entry, error) {
	s, err := b.space(space)
	if err != nil {
		return localapi.Entry{}, err
	}
	list, err := s.Conflicts(ctx, string(key))
	if errors.Is(err, ErrNotFound) {
		return localapi.Entry{}, localapi.Errorf(localapi.CodeNotFound, "there is no key %q in space %q", key, s.Name())
	}
	if err != nil {
		return localapi.Entry{}, apiError(err)
	}
	return withSiblings(list), nil
}

func (b backend) List(ctx context.Context, space string, q localapi.List, emit func(localapi.Entry) error) error {
	s, err := b.space(space)
	if err != nil {
		return err
	}
	for e, err := range s.List(ctx, string(q.Prefix)) {
		if err != nil {
			return apiError(err)
		}
		out := apiEntry(&e)
		if q.Conflicts {
			if e.Conflicts == 0 {
				continue
			}
			// Read a moment later: by now it may be resolved, or gone.
			list, err := s.Conflicts(ctx, e.Key)
			if len(list) == 1 || errors.Is(err, ErrNotFound) {
				continue
			}
			if err != nil {
				return apiError(err)
			}
			out = withSiblings(list)
		}
		if err := emit(out); err != nil {
			return err
		}
	}
	return nil
}

func (b backend) Write(ctx context.Context, space string, w localapi.Write) (localapi.Written, error) {
	s, err := b.space(space)
	if err != nil {
		return localapi.Written{}, err
	}
	done, err := s.Batch(ctx, func(batch *Batch) error {
		for i := range w.Ops {
			switch op := &w.Ops[i]; op.Op {
			case localapi.OpPut:
				batch.Put(string(op.Key), op.Value)
			case localapi.OpDelete:
				batch.Delete(string(op.Key))
			case localapi.OpAppend:
				batch.Append(op.Kind, op.Payload)
			default:
				return localapi.Errorf(localapi.CodeUsage, "there is no operation %q", op.Op)
			}
		}
		return nil
	})
	if err != nil {
		return localapi.Written{}, apiError(err)
	}
	out := localapi.Written{Log: done.Log, Seq: done.Seq}
	out.Note = b.n.strandedNote(s.id)
	if w.Replicas > 0 {
		if w.Durable != nil {
			w.Durable(out)
		}
		if w.Timeout > 0 {
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(ctx, w.Timeout)
			defer cancel()
		}
		err = done.WaitReplicated(ctx, w.Replicas)
		out.Replicas = done.Replicas()
	}
	if err != nil {
		return out, &localapi.Error{Code: localapi.CodeReplicas, Message: b.replicaMessage(w.Replicas, out, err), Written: &out, Cause: err}
	}
	return out, nil
}

// strandedNote says why members do not take what this node writes in a space now;
// empty if they do, as far as this node knows.
func (n *Node) strandedNote(space replication.SpaceID) string {
	switch {
	case n.isRefused():
		return "written here, but members refuse this node as revoked, and it will not reach them: ask an admin"
	case n.members != nil && !n.members.carriedNow(space):
		return "written here, but this node's certificate for the space has ended, and members do not take it: it reaches them once an admin has renewed it (cert export)"
	}
	return ""
}

// replicaMessage says that the write is durable here, and why not elsewhere.
func (b backend) replicaMessage(want int, out localapi.Written, err error) string {
	have := out.Replicas
	var short *ReplicaError
	switch {
	case errors.Is(err, ErrOffline):
		return fmt.Sprintf("the write is durable here and nowhere else (asked for: %s), because no node is running: start it, and the write goes on to them", otherMembers(want))
	case errors.As(err, &short) && out.Note != "": // the note says why, and whether it goes on
		return fmt.Sprintf("the write is durable here and at %s, where %d were asked for: members do not take it now", otherMembers(have), want)
	case errors.As(err, &short):
		return fmt.Sprintf("the write is durable here and at %s, where %d were asked for; only members with a session here are counted (%d now): it goes on to more when they can be reached (`status` shows why not yet)", otherMembers(have), want, short.Connected)
	}
	return fmt.Sprintf("the write is durable here, but waiting for %d members failed: %v", want, err)
}

func otherMembers(n int) string {
	if n == 1 {
		return "1 other member"
	}
	return fmt.Sprintf("%d other members", n)
}

func (b backend) Watch(ctx context.Context, space string, q localapi.Watch, emit func(localapi.Event) error) error {
	s, err := b.space(space)
	if err != nil {
		return err
	}
	n := 0
	for ev, err := range s.Watch(ctx, string(q.Prefix), Cursor(q.From)) {
		if err != nil {
			return apiError(err)
		}
		if err := emit(apiEvent(&ev)); err != nil {
			return err
		}
		if n++; n == q.Count {
			return nil
		}
	}
	return context.Cause(ctx)
}

func (b backend) Tail(ctx context.Context, space string, q localapi.Tail, emit func(localapi.Record) error) error {
	s, err := b.space(space)
	if err != nil {
		return err
	}
	n := 0
	if q.SetAside {
		for op, err := range s.SetAside(ctx) {
			if err != nil {
				return apiError(err)
			}
			out := apiRecord(&op.Operation)
			out.Since, out.Until = apiTime(op.Since), apiTime(op.Until)
			if err := emit(out); err != nil {
				return err
			}
			if n++; n == q.Count {
				return nil
			}
		}
		return context.Cause(ctx)
	}
	for op, err := range s.Tail(ctx, Cursor(q.From), q.Follow) {
		if err != nil {
			return apiError(err)
		}
		if err := emit(apiRecord(&op)); err != nil {
			return err
		}
		if n++; n == q.Count {
			return nil
		}
	}
	return context.Cause(ctx)
}

func apiRecord(op *Operation) localapi.Record {
	return localapi.Record{
		Cursor:  string(op.Cursor),
		Version: localapi.Version{Origin: op.Origin, Log: op.Log, Seq: op.Seq, Time: localapi.Time{Time: op.Time}},
		Kind:    localapi.KindOf([]byte(op.Kind)), Key: localapi.KeyOf([]byte(op.Key)), Payload: localapi.PayloadOf(op.Payload),
	}
}

func apiEntry(e *Entry) localapi.Entry {
	return localapi.Entry{
		Key: localapi.KeyOf([]byte(e.Key)), Value: localapi.ValueOf(e.Value),
		Version: apiVersion(e), Conflicts: e.Conflicts,
	}
}

func apiVersion(e *Entry) localapi.Version {
	return localapi.Version{Origin: e.Origin, Log: e.Log, Seq: e.Seq, Time: localapi.Time{Time: e.Time}}
}

// withSiblings is a key's winner with all values, of which list has at least one.
func withSiblings(list []Entry) localapi.Entry {
	out := apiEntry(&list[0])
	out.Conflicts = len(list) - 1
	for i := range list {
		out.Siblings = append(out.Siblings, localapi.Sibling{Value: localapi.ValueOf(list[i].Value), Version: apiVersion(&list[i])})
	}
	return out
}

func apiEvent(ev *Event) localapi.Event {
	out := localapi.Event{Cursor: string(ev.Cursor), Event: string(ev.Kind), Cause: string(ev.Cause)}
	switch ev.Kind {
	case EventReset:
	case EventDelete:
		out.EventEntry = &localapi.EventEntry{Key: localapi.KeyOf([]byte(ev.Key))}
	default:
		v := apiVersion(&ev.Entry)
		out.EventEntry = &localapi.EventEntry{
			Key: localapi.KeyOf([]byte(ev.Key)), Value: localapi.ValueOf(ev.Value), Version: &v, Conflicts: ev.Conflicts,
		}
	}
	return out
}

// apiCodes gives the node's errors their codes; the first that matches counts.
var apiCodes = []struct {
	is   error
	code localapi.Code
}{
	{ErrNotFound, localapi.CodeNotFound},
	{ErrNotConnected, localapi.CodeNotFound},
	{ErrOffline, localapi.CodeNoNode},
	{ErrSelf, localapi.CodeUnreachable},
	{ErrReplicas, localapi.CodeReplicas},
	{ErrNotAdmin, localapi.CodeNotAllowed},
	{ErrNoRootKey, localapi.CodeNotAllowed},
	{ErrNoMembers, localapi.CodeNotAllowed},
	{trust.ErrNotTicket, localapi.CodeUsage},
	{trust.ErrTicketDamaged, localapi.CodeUsage},
	{trust.ErrExpired, localapi.CodeTicket},
	{protocols.ErrInviteUnknown, localapi.CodeTicket},
	{protocols.ErrInviteUsed, localapi.CodeTicket},
	{protocols.ErrInviteExpired, localapi.CodeTicket},
	{protocols.ErrInviteRevoked, localapi.CodeTicket},
	{replication.ErrNotAllowed, localapi.CodeNotAllowed},
	{replication.ErrRevoked, localapi.CodeNotAllowed},
	{ErrConflict, localapi.CodeConflict},
	{ErrTooLarge, localapi.CodeTooLarge},
	{ErrNoSpace, localapi.CodeNoSpace},
	{ErrNoKey, localapi.CodeNotAllowed},
	{ErrNotReader, localapi.CodeNotAllowed},
	{ErrCursorReset, localapi.CodeReset},
	{ErrLocked, localapi.CodeLocked},
	{ErrDamaged, localapi.CodeDamaged},
	{ErrNeedsOpen, localapi.CodeUsage},
	{replication.ErrTooNew, localapi.CodeTooNew},
	{ErrInvalid, localapi.CodeUsage},
	{context.DeadlineExceeded, localapi.CodeTimeout},
	{context.Canceled, localapi.CodeCancelled},
	{ErrClosed, localapi.CodeClosed},
}

// apiError gives an error of the node the form of the local API. Its text stays,
// but for the words of a sentinel at its end that repeat it.
func apiError(err error) error {
	var (
		already *localapi.Error
		unknown *UnknownPeerError
		dial    *DialError
		refused *RefusedError
		backoff *BackoffError
		join    *JoinError
		network *OtherNetworkError
	)
	switch {
	case err == nil, errors.As(err, &already):
		return err
	case errors.As(err, &unknown):
		return localapi.Errorf(localapi.CodeNotFound, "%w", err)
	case errors.As(err, &network):
		return localapi.Errorf(localapi.CodeOtherNetwork, "%w", err)
	case errors.As(err, &refused), errors.As(err, &backoff), errors.As(err, &dial), errors.As(err, &join):
		return localapi.Errorf(localapi.CodeUnreachable, "%w", err)
	}
	i := slices.IndexFunc(apiCodes, func(c struct {
		is   error
		code localapi.Code
	}) bool {
		return errors.Is(err, c.is)
	})
	if i < 0 {
		return localapi.Errorf(localapi.CodeInternal, "%w", err)
	}
	msg := err.Error()
	for _, is := range []error{ErrInvalid, ErrConflict, ErrTooLarge, replication.ErrNotAllowed, replication.ErrRevoked} {
		if errors.Is(err, is) { // its own words at the end say again what the sentence does
			msg = strings.TrimSuffix(msg, ": "+is.Error())
		}
	}
	return &localapi.Error{Code: apiCodes[i].code, Message: msg, Cause: err}
}

// apiTime is nil for the zero time.
func apiTime(t time.Time) *localapi.Time {
	if t.IsZero() {
		return nil
	}
	return &localapi.Time{Time: t}
}
