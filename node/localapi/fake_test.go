package localapi

import (
	"bytes"
	"context"
	"sort"
	"strings"
	"sync"
	"time"
)

// fake is a Backend in memory: one log, no siblings.
type fake struct {
	mu      sync.Mutex
	changed chan struct{} // closed and replaced at each write
	keys    map[string]Entry
	records []Record
	commits [][]Op
	waited  []Wait
	verify  []Finding
	rebuilt bool
	sent    []Send
	writes  func(Write) error // nil: all succeed
}

var at = Time{time.Date(2026, 1, 2, 3, 4, 5, 6789000, time.UTC)}

func newFake() *fake {
	return &fake{keys: map[string]Entry{}, changed: make(chan struct{})}
}

func (f *fake) Status(context.Context) (Status, error) {
	return Status{PeerID: "12D3KooWFake", Label: "A", Listen: []string{}, Peers: []Peer{{PeerID: "p1", State: StateConnected}, {PeerID: "p2"}},
		Spaces: map[string]Space{DefaultSpace: {Keys: uint64(len(f.keys))}}}, nil
}

func (f *fake) Connect(_ context.Context, addr string) (Connected, error) {
	if strings.HasSuffix(addr, ":1") {
		return Connected{}, Errorf(CodeUnreachable, "nobody answers at %s", addr)
	}
	return Connected{PeerID: "p9", Addr: addr}, nil
}

func (f *fake) Disconnect(_ context.Context, peer string) (Disconnected, error) {
	if peer != "p1" {
		return Disconnected{}, Errorf(CodeNotFound, "no peer %s", peer)
	}
	return Disconnected{PeerID: peer}, nil
}

func (f *fake) Forget(_ context.Context, peer string) (Forgotten, error) {
	if peer != "p1" {
		return Forgotten{}, Errorf(CodeNotFound, "no peer %s", peer)
	}
	return Forgotten{PeerID: peer}, nil
}

func (f *fake) Wait(ctx context.Context, w Wait) error {
	f.mu.Lock()
	f.waited = append(f.waited, w)
	f.mu.Unlock()
	if w.Peers > 2 {
		<-ctx.Done()
		return Errorf(CodeTimeout, "2 of %d peers are connected", w.Peers)
	}
	return nil
}

func (f *fake) Get(_ context.Context, _ string, key []byte) (Entry, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	e, ok := f.keys[string(key)]
	if !ok {
		return e, Errorf(CodeNotFound, "there is no key %q", key)
	}
	return e, nil
}

func (f *fake) List(_ context.Context, _ string, q List, emit func(Entry) error) error {
	f.mu.Lock()
	var names []string
	for k := range f.keys {
		if strings.HasPrefix(k, string(q.Prefix)) {
			names = append(names, k)
		}
	}
	f.mu.Unlock()
	sort.Strings(names)
	for _, k := range names {
		f.mu.Lock()
		e := f.keys[k]
		f.mu.Unlock()
		if err := emit(e); err != nil {
			return err
		}
	}
	return nil
}

func (f *fake) Write(_ context.Context, _ string, w Write) (Written, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.writes != nil {
		if err := f.writes(w); err != nil {
			return Written{}, err
		}
	}
	f.commits = append(f.commits, w.Ops)
	for _, op := range w.Ops {
		v := Version{Origin: "me", Log: "ab", Seq: uint64(len(f.records) + 1), Time: at}
		r := Record{Cursor: "c", Version: v, Kind: KindOf([]byte(op.Op)), Key: KeyOf(op.Key), Payload: PayloadOf(op.Value)}
		switch op.Op {
		case OpPut:
			f.keys[string(op.Key)] = Entry{Key: KeyOf(op.Key), Value: ValueOf(op.Value), Version: v,
				Siblings: []Sibling{{ValueOf(op.Value), v}}}
		case OpDelete:
			delete(f.keys, string(op.Key))
		case OpAppend:
			r.Kind, r.Payload = KindOf([]byte(op.Kind)), PayloadOf(op.Payload)
		}
		f.records = append(f.records, r)
	}
	close(f.changed)
	f.changed = make(chan struct{})
	out := Written{Log: "ab", Seq: uint64(len(f.records)), Replicas: min(w.Replicas, 1)}
	if w.Durable != nil {
		w.Durable(Written{Log: out.Log, Seq: out.Seq})
	}
	if w.Replicas > 1 {
		return out, &Error{Code: CodeReplicas, Message: "durable here, and at 1 of 2 members", Written: &out}
	}
	return out, nil
}

func (f *fake) Watch(ctx context.Context, space string, q Watch, emit func(Event) error) error {
	return f.Tail(ctx, space, Tail{Follow: true, Count: q.Count}, func(r Record) error {
		if !bytes.HasPrefix(r.Key.Bytes(), q.Prefix) {
			return nil
		}
		return emit(Event{Cursor: r.Cursor, Event: r.Kind.String(), EventEntry: &EventEntry{Key: r.Key, Version: &r.Version}})
	})
}

// asideTime is a time that JSON keeps, with milliseconds.
var asideTime = Time{time.Date(2026, 1, 2, 3, 4, 5, 6000000, time.UTC)}

// asideRecord is what the fake has set aside.
var asideRecord = Record{
	Version: Version{Origin: "p2", Log: "cd", Seq: 7, Time: asideTime}, Kind: KindOf([]byte(KindPut)),
	Key: KeyOf([]byte("k")), Payload: PayloadOf([]byte("v")), Since: &asideTime, Until: &asideTime,
}

func (f *fake) Tail(ctx context.Context, _ string, q Tail, emit func(Record) error) error {
	if q.From == "other" {
		return Errorf(CodeReset, "another history")
	}
	if q.SetAside {
		return emit(asideRecord)
	}
	for i := 0; q.Count == 0 || i < q.Count; {
		f.mu.Lock()
		changed := f.changed
		rest := f.records[i:]
		f.mu.Unlock()
		for _, r := range rest {
			if q.Count > 0 && i == q.Count {
				return nil
			}
			i++
			if err := emit(r); err != nil {
				return err
			}
		}
		if len(rest) > 0 {
			continue
		}
		if !q.Follow {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

func (f *fake) Verify(_ context.Context, rebuild bool, emit func(Finding) error) error {
	f.rebuilt = f.rebuilt || rebuild
	for _, x := range f.verify {
		if err := emit(x); err != nil {
			return err
		}
	}
	return nil
}

func (f *fake) Send(_ context.Context, m Send) (Sent, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.sent = append(f.sent, m)
	out := Sent{ID: "aa", To: m.Peer, Expires: at, Delivered: m.Peer == "p1"}
	if m.Stored != nil {
		m.Stored(Sent{ID: out.ID, To: out.To, Expires: at})
	}
	if !out.Delivered {
		return out, &Error{Code: CodeUndelivered, Message: "no route to " + m.Peer, Sent: &out}
	}
	return out, nil
}

func (f *fake) Messages(_ context.Context, in Inbox, emit func(Message) error) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i, m := range f.sent {
		if err := emit(Message{ID: "aa", From: "p1", Text: TextOf(m.Text), Time: at, Cursor: "c"}); err != nil {
			return err
		}
		if i+1 == in.Count {
			break
		}
	}
	return nil
}

func (f *fake) Members(context.Context) (MemberList, error) {
	aside := []SetAside{{Space: DefaultSpace, Ops: 2, Logs: 1, Since: asideTime, Until: asideTime}}
	return MemberList{Members: []Member{{PeerID: "p1", Label: "A", Roles: []string{"admin"}, State: "standing", SetAside: aside}}, Invites: []OpenInvite{}}, nil
}

func (f *fake) Invite(_ context.Context, in Invite) (Invited, error) {
	if in.Role == "king" {
		return Invited{}, Errorf(CodeUsage, "role %q is not known", in.Role)
	}
	return Invited{Ticket: "vix1-" + in.Role, Invite: "00", Roles: []string{in.Role}}, nil
}

func (f *fake) Revoke(_ context.Context, in Revoke) (Revoked, error) {
	return Revoked{PeerID: in.Name, Cuts: []Cut{{Space: DefaultSpace, Log: "ab", Seq: 3}}, Unreached: []string{}}, nil
}

func (f *fake) CreateSpace(_ context.Context, in NewSpace) (DeclaredSpace, error) {
	return DeclaredSpace{Name: in.Name, Encrypted: in.Encrypted}, nil
}

func (f *fake) ListSpaces(context.Context) ([]DeclaredSpace, error) {
	return []DeclaredSpace{{Name: DefaultSpace, Carried: true}}, nil
}

func (f *fake) Certificate(_ context.Context, name string) (Certificate, error) {
	return Certificate{PeerID: name, Text: "text"}, nil
}

func (f *fake) Certify(_ context.Context, in Certify) (Certificate, error) {
	return Certificate{PeerID: in.Peer, Text: "text", Roles: []string{in.Role}}, nil
}
