package node

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"testing"

	"vixp2p/node/localapi"
	"vixp2p/replication"
)

// A node is asked through its local API as a command would.
func TestLocalAPIShowsConflicts(t *testing.T) {
	a, b := open(t, Config{Label: "A", API: "127.0.0.1:0", Version: "test"}), open(t, Config{Label: "B"})
	put(t, a, "k", "from A")
	put(t, b, "k", "from B")
	put(t, b, "quiet", "x")
	ctx := deadline(t)
	if _, _, err := a.Connect(ctx, addr(t, b, tcp4)); err != nil {
		t.Fatal(err)
	}
	c, err := localapi.Dial(ctx, a.DataDir())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.Wait(ctx, localapi.Wait{Peers: 1, Synced: true}); err != nil {
		t.Fatal(err)
	}
	e, err := c.Get(ctx, "default", []byte("k"))
	if err != nil || e.Conflicts != 1 || len(e.Siblings) != 2 || e.Siblings[0].Value.String() != e.Value.String() {
		t.Fatalf("get: %+v, %v", e, err)
	}
	origins := map[string]string{e.Siblings[0].Origin: e.Siblings[0].Value.String(), e.Siblings[1].Origin: e.Siblings[1].Value.String()}
	if origins[a.ID()] != "from A" || origins[b.ID()] != "from B" {
		t.Errorf("the values' origins are %v", origins)
	}
	var listed []string
	list := func(q localapi.List) []string {
		t.Helper()
		listed = nil
		if err := c.List(ctx, "default", q, func(e localapi.Entry) error {
			listed = append(listed, fmt.Sprintf("%s %d %d", e.Key, e.Conflicts, len(e.Siblings)))
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		return listed
	}
	if got := fmt.Sprint(list(localapi.List{})); got != "[k 1 0 quiet 0 0]" {
		t.Errorf("keys: %s", got)
	}
	if got := fmt.Sprint(list(localapi.List{Conflicts: true})); got != "[k 1 2]" {
		t.Errorf("conflicts: %s", got)
	}
	var events []string
	if err := c.Watch(ctx, "default", localapi.Watch{Prefix: []byte("k"), From: string(Start), Count: 1}, func(ev localapi.Event) error {
		events = append(events, fmt.Sprintf("%s %s", ev.Event, ev.Key))
		return nil
	}); err != nil || fmt.Sprint(events) != "[conflict k]" {
		t.Errorf("events %v, %v", events, err)
	}
	// The next write resolves it.
	if _, err := c.Write(ctx, "default", localapi.Write{Ops: []localapi.Op{{Op: localapi.OpPut, Key: []byte("k"), Value: []byte("both")}}, Replicas: 1}); err != nil {
		t.Fatal(err)
	}
	if got := list(localapi.List{Conflicts: true}); len(got) != 0 {
		t.Errorf("conflicts after a write: %v", got)
	}
	st, err := c.Status(ctx)
	if err != nil || st.Version != "test" || len(st.Peers) != 1 || st.Peers[0].Label != "B" || st.Peers[0].State != localapi.StateConnected || st.Peers[0].LastAck == nil {
		t.Errorf("status: %+v, %v", st, err)
	}
	// A batch that is refused leaves nothing of it.
	_, err = c.Write(ctx, "default", localapi.Write{Ops: []localapi.Op{
		{Op: localapi.OpPut, Key: []byte("half"), Value: []byte("v")}, {Op: localapi.OpPut, Key: make([]byte, 5000), Value: []byte("v")}}})
	if localapi.CodeOf(err) != localapi.CodeTooLarge {
		t.Errorf("a key too long: %v", err)
	}
	if _, err := c.Get(ctx, "default", []byte("half")); localapi.CodeOf(err) != localapi.CodeNotFound {
		t.Errorf("half a batch: %v", err)
	}
}

func TestErrorsHaveTheirCodes(t *testing.T) {
	for _, c := range []struct {
		err  error
		code localapi.Code
	}{
		{fmt.Errorf("key: %w", ErrNotFound), localapi.CodeNotFound},
		{&UnknownPeerError{Name: "x"}, localapi.CodeNotFound},
		{&DialError{Endpoint: "tcp://h:1", Cause: context.DeadlineExceeded}, localapi.CodeUnreachable},
		{&RefusedError{Cause: errors.New("other network")}, localapi.CodeUnreachable},
		{ErrOffline, localapi.CodeNoNode},
		{ErrConflict, localapi.CodeConflict},
		{ErrTooLarge, localapi.CodeTooLarge},
		{ErrNoSpace, localapi.CodeNoSpace},
		{ErrCursorReset, localapi.CodeReset},
		{ErrLocked, localapi.CodeLocked},
		{ErrDamaged, localapi.CodeDamaged},
		{ErrInvalid, localapi.CodeUsage},
		{errNodeClosed, localapi.CodeClosed},
		{context.Canceled, localapi.CodeCancelled},
		{localapi.ErrTimeUp, localapi.CodeTimeout},
		{errors.New("something else"), localapi.CodeInternal},
		{localapi.Errorf(localapi.CodeBusy, "kept"), localapi.CodeBusy},
	} {
		got := apiError(c.err)
		if localapi.CodeOf(got) != c.code || got.Error() != c.err.Error() || !errors.Is(got, c.err) {
			t.Errorf("%v became %q, %v", c.err, localapi.CodeOf(got), got)
		}
	}
	if apiError(nil) != nil {
		t.Error("no error became one")
	}
}

// What a tail tells of a kind that is no text is its bytes, as of a key.
func TestLocalAPIShowsForeignKinds(t *testing.T) {
	n := open(t, Config{Label: "A", API: "127.0.0.1:0", Offline: true})
	ctx := deadline(t)
	for _, kind := range []string{"note", "n\xffte"} {
		// Not by way of the node, which refuses what cannot be shown.
		op := replication.Op{Kind: replication.KindApp, Name: kind, Payload: []byte("x")}
		batch := replication.Batch{Space: replication.SpaceOf(n.network, replication.DefaultSpace), Ops: []replication.Op{op}}
		if _, err := n.engines.get().store.Append(ctx, batch); err != nil {
			t.Fatal(err)
		}
	}
	c, err := localapi.Dial(ctx, n.DataDir())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var kinds []string
	if err := c.Tail(ctx, "default", localapi.Tail{}, func(r localapi.Record) error {
		line, err := json.Marshal(r)
		if err != nil || bytes.Contains(line, []byte(`\ufffd`)) || bytes.Contains(line, []byte("\ufffd")) {
			t.Errorf("%s, %v", line, err)
		}
		kinds = append(kinds, string(r.Kind.Bytes()), r.Kind.String())
		return nil
	}); err != nil || fmt.Sprintf("%q", kinds) != `["note" "note" "n\xffte" "bv90ZQ=="]` {
		t.Errorf("kinds %q, %v", kinds, err)
	}
}
