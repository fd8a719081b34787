package localapi

import (
	"context"
	"net/http"
	"net/url"
	"time"
)

// Members is the part of a Backend about a network of members; of an open network
// each call answers CodeNotAllowed.
type Members interface {
	// Members are who is certified, and the invites that nobody has used.
	Members(ctx context.Context) (MemberList, error)
	// Invite makes a ticket.
	Invite(ctx context.Context, in Invite) (Invited, error)
	// Revoke puts out a member, or takes an invite back.
	Revoke(ctx context.Context, in Revoke) (Revoked, error)
	// CreateSpace declares a space, ListSpaces are those of the network.
	CreateSpace(ctx context.Context, in NewSpace) (DeclaredSpace, error)
	ListSpaces(ctx context.Context) ([]DeclaredSpace, error)
	// Certificate is that of a member, "" of this node; Certify issues one.
	Certificate(ctx context.Context, name string) (Certificate, error)
	Certify(ctx context.Context, in Certify) (Certificate, error)
}

// Member is a peer that some certificate certifies.
type Member struct {
	PeerID string   `json:"peer_id"`
	Label  string   `json:"label"`
	Roles  []string `json:"roles"` // "writer", or "writer:SPACE" of one space alone
	State  string   `json:"state"` // "standing", "expired", "not yet valid", "revoked"; "no certificate": some of its writes are set aside
	// Expires is of its last certificate: null is never. RoleEnds are of the roles that
	// end before that.
	Expires    *Time           `json:"expires"`
	RoleEnds   map[string]Time `json:"role_ends,omitempty"`
	Generation uint64          `json:"generation"`
	Self       bool            `json:"self,omitempty"`
	SetAside   []SetAside      `json:"set_aside,omitempty"` // by space
}

// SetAside are writes of a peer in one space that a cut took out of view.
type SetAside struct {
	Space string `json:"space"`
	Ops   uint64 `json:"ops"`
	Logs  int    `json:"logs"`
	Since Time   `json:"since"`      // when the first of them were set aside
	Until Time   `json:"kept_until"` // when these are removed
}

// OpenInvite is an invite that nobody has used.
type OpenInvite struct {
	Invite  string   `json:"invite"` // its public key, hex
	Issuer  string   `json:"issuer"` // peer ID
	Label   string   `json:"label"`
	Roles   []string `json:"roles"`
	State   string   `json:"state"` // "open", "expired", "revoked"
	Expires *Time    `json:"expires"`
}

// MemberList is the answer of Members.
type MemberList struct {
	Members []Member     `json:"members"`
	Invites []OpenInvite `json:"invites"`
	Untaken []Untaken    `json:"untaken,omitempty"` // as of Membership
}

// Untaken are writes of this node, of one log, that members do not take because it was
// revoked.
type Untaken struct {
	Space string `json:"space"`
	Log   string `json:"log"`
	From  uint64 `json:"from"` // seq of the first
	Ops   uint64 `json:"ops"`
	// Cut: they lie beyond the cut of the revocation. Else this node has not heard where
	// that is, and no member has stated to it that it holds them.
	Cut bool `json:"cut"`
}

// Invite says whom an invite admits. Durations are in nanoseconds on the wire.
type Invite struct {
	Role    string        `json:"role,omitempty"`
	Spaces  []string      `json:"spaces,omitempty"`
	Label   string        `json:"label,omitempty"`
	Expires time.Duration `json:"expires_ns,omitempty"`
	Valid   time.Duration `json:"valid_ns,omitempty"`
	Addrs   []string      `json:"addrs,omitempty"`
}

// Invited is the answer of Invite. The ticket is a secret until it is used.
type Invited struct {
	Ticket  string   `json:"ticket"`
	Invite  string   `json:"invite"`
	Roles   []string `json:"roles"`
	Expires *Time    `json:"expires"`
	Note    string   `json:"note,omitempty"` // as of Written
}

// Revoke names a member or an invite. Gather is how long to wait for what connected
// members hold; 0: the node's default.
type Revoke struct {
	Name   string        `json:"name"`
	Gather time.Duration `json:"gather_ns,omitempty"`
}

// Cut is the last write of a log that counts.
type Cut struct {
	Space string `json:"space"`
	Log   string `json:"log"`
	Seq   uint64 `json:"seq"`
}

// Revoked is the answer of Revoke.
type Revoked struct {
	PeerID string `json:"peer_id,omitempty"`
	Invite string `json:"invite,omitempty"`
	Cuts   []Cut  `json:"cuts"`
	// Behind is why connected members may hold more than what was kept; Unreached are
	// the members without a session, who may too.
	Behind    string   `json:"behind,omitempty"`
	Unreached []string `json:"unreached"`
	Note      string   `json:"note,omitempty"` // as of Written
}

// NewSpace is a space to declare.
type NewSpace struct {
	Name      string `json:"name"`
	Encrypted bool   `json:"encrypted,omitempty"`
}

// DeclaredSpace is a space of the network.
type DeclaredSpace struct {
	Name      string `json:"name"`
	ID        string `json:"id"`
	Encrypted bool   `json:"encrypted"`
	Carried   bool   `json:"carried"`        // this node replicates it
	Note      string `json:"note,omitempty"` // as of Written, where it was just declared
}

// Certify says what to certify.
type Certify struct {
	Peer   string        `json:"peer"`
	Role   string        `json:"role,omitempty"`
	Spaces []string      `json:"spaces,omitempty"`
	Label  string        `json:"label,omitempty"`
	Valid  time.Duration `json:"valid_ns,omitempty"`
}

// Certificate is a certificate as a text for cert import.
type Certificate struct {
	PeerID  string   `json:"peer_id"`
	Text    string   `json:"certificate"`
	Roles   []string `json:"roles"`
	Expires *Time    `json:"expires"`
	Note    string   `json:"note,omitempty"` // as of Written, where it was just made
}

// Membership is what a node of a network of members tells of itself.
type Membership struct {
	NetworkName string   `json:"network_name"`
	Roles       []string `json:"roles"`
	State       string   `json:"state"` // as of a Member; "refused as revoked" by members, where this node has not heard why; "no certificate" without one
	Generation  uint64   `json:"generation"`
	Expires     *Time    `json:"expires"`
	RootKey     bool     `json:"root_key"` // it is in the data directory
	Members     int      `json:"members"`  // standing ones
	// TrustDigest: equal at two nodes exactly if they decide alike.
	TrustDigest string    `json:"trust_digest"`
	Untaken     []Untaken `json:"untaken,omitempty"`
}

// asked serves a route with a small JSON body.
func asked[In, Out any](s *Server, fn func(context.Context, In) (Out, error)) handler {
	return func(w http.ResponseWriter, r *http.Request, q *query) error {
		var in In
		if err := s.object(w, r, q, &in); err != nil {
			return err
		}
		out, err := fn(r.Context(), in)
		if err != nil {
			return err
		}
		return writeObject(w, out)
	}
}

// told serves a route without a body; name is its one parameter, "" for none.
func told[Out any](name string, fn func(context.Context, string) (Out, error)) handler {
	return func(w http.ResponseWriter, r *http.Request, q *query) error {
		arg := ""
		if name != "" {
			arg = q.text(name)
		}
		if err := q.end(); err != nil {
			return err
		}
		out, err := fn(r.Context(), arg)
		if err != nil {
			return err
		}
		return writeObject(w, out)
	}
}

type spacesJSON struct {
	Spaces []DeclaredSpace `json:"spaces"`
}

// memberRoutes are the routes of Members.
func (s *Server) memberRoutes() map[string]handler {
	b := s.cfg.Backend
	return map[string]handler{
		"GET /v1/members": told("", func(ctx context.Context, _ string) (MemberList, error) { return b.Members(ctx) }),
		"POST /v1/invite": asked(s, b.Invite),
		"POST /v1/revoke": asked(s, func(ctx context.Context, in Revoke) (Revoked, error) {
			if in.Name == "" {
				return Revoked{}, Errorf(CodeUsage, "there is no \"name\" to revoke: send {\"name\":\"ID, label or invite\"}")
			}
			return b.Revoke(ctx, in)
		}),
		"POST /v1/spaces": asked(s, b.CreateSpace),
		"GET /v1/spaces": told("", func(ctx context.Context, _ string) (spacesJSON, error) {
			list, err := b.ListSpaces(ctx)
			return spacesJSON{list}, err
		}),
		"GET /v1/certificate":  told("name", b.Certificate),
		"POST /v1/certificate": asked(s, b.Certify),
	}
}

func (c *Client) Members(ctx context.Context) (out MemberList, err error) {
	err = c.call(ctx, http.MethodGet, "members", nil, nil, &out)
	return out, err
}

func (c *Client) Invite(ctx context.Context, in Invite) (out Invited, err error) {
	err = c.call(ctx, http.MethodPost, "invite", nil, in, &out)
	return out, err
}

func (c *Client) Revoke(ctx context.Context, in Revoke) (out Revoked, err error) {
	err = c.call(ctx, http.MethodPost, "revoke", nil, in, &out)
	return out, err
}

func (c *Client) CreateSpace(ctx context.Context, in NewSpace) (out DeclaredSpace, err error) {
	err = c.call(ctx, http.MethodPost, "spaces", nil, in, &out)
	return out, err
}

func (c *Client) ListSpaces(ctx context.Context) ([]DeclaredSpace, error) {
	var out spacesJSON
	err := c.call(ctx, http.MethodGet, "spaces", nil, nil, &out)
	return out.Spaces, err
}

func (c *Client) Certificate(ctx context.Context, name string) (out Certificate, err error) {
	err = c.call(ctx, http.MethodGet, "certificate", url.Values{"name": {name}}, nil, &out)
	return out, err
}

func (c *Client) Certify(ctx context.Context, in Certify) (out Certificate, err error) {
	err = c.call(ctx, http.MethodPost, "certificate", nil, in, &out)
	return out, err
}
