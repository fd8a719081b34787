package localapi

import (
	"reflect"
	"testing"
	"time"
)

// TestMembersRoutes: every call about members means the same through the API.
func TestMembersRoutes(t *testing.T) {
	f, c, _ := start(t)
	ctx := t.Context()
	list, err := c.Members(ctx)
	want, _ := f.Members(ctx)
	same(t, "members", list, err, want)
	in := Invite{Role: "reader", Spaces: []string{"notes"}, Label: "till", Expires: time.Hour, Valid: time.Minute, Addrs: []string{"h:1"}}
	invited, err := c.Invite(ctx, in)
	wantInvited, _ := f.Invite(ctx, in)
	same(t, "invite", invited, err, wantInvited)
	if _, err := c.Invite(ctx, Invite{Role: "king"}); CodeOf(err) != CodeUsage {
		t.Errorf("invite of a role that is not known: %v", err)
	}
	revoked, err := c.Revoke(ctx, Revoke{Name: "B"})
	wantRevoked, _ := f.Revoke(ctx, Revoke{Name: "B"})
	same(t, "revoke", revoked, err, wantRevoked)
	if _, err := c.Revoke(ctx, Revoke{}); CodeOf(err) != CodeUsage {
		t.Errorf("revoke of nobody: %v", err)
	}
	space, err := c.CreateSpace(ctx, NewSpace{Name: "notes", Encrypted: true})
	same(t, "space create", space, err, DeclaredSpace{Name: "notes", Encrypted: true})
	spaces, err := c.ListSpaces(ctx)
	wantSpaces, _ := f.ListSpaces(ctx)
	same(t, "space list", spaces, err, wantSpaces)
	cert, err := c.Certificate(ctx, "B")
	same(t, "cert show", cert, err, Certificate{PeerID: "B", Text: "text"})
	cert, err = c.Certify(ctx, Certify{Peer: "B", Role: "writer"})
	same(t, "cert export", cert, err, Certificate{PeerID: "B", Text: "text", Roles: []string{"writer"}})
}

func same[T any](t *testing.T, what string, got T, err error, want T) {
	t.Helper()
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%s: %+v, %v, want %+v", what, got, err, want)
	}
}
