package trust

import (
	"errors"
	"fmt"
	"slices"

	"vixp2p/replication"
)

// Sentinels. Match them with errors.Is; the errors that carry them say what was
// wrong and what to do. Bytes that break a format are replication.ErrInvalid, an
// origin without the role for what it does is replication.ErrNotAllowed.
var (
	// ErrNoCertificate: none was shown, or one that proves nothing here.
	ErrNoCertificate = errors.New("no certificate")
	// ErrOtherNetwork: a certificate or ticket of another network.
	ErrOtherNetwork = errors.New("another network")
	// ErrNotThisPeer: the certificate of somebody else.
	ErrNotThisPeer = errors.New("certificate of another peer")
	// ErrExpired: a certificate or invite whose time is over, or has not begun.
	ErrExpired = errors.New("out of its validity")
	// ErrRevoked: a peer, certificate, issuer or invite that was revoked.
	ErrRevoked = replication.ErrRevoked

	// ErrInviteUnknown: the invite is in none of the issuer's control logs.
	ErrInviteUnknown = errors.New("unknown invite")
	// ErrInviteUsed: the invite was used by another peer.
	ErrInviteUsed = errors.New("invite already used")

	// ErrNotTicket: a text that is no ticket.
	ErrNotTicket = errors.New("not a ticket")
	// ErrTicketDamaged: a ticket that is cut short or mistyped.
	ErrTicketDamaged = errors.New("damaged ticket")

	// ErrNotStatement: an operation that is no statement of this version; it is
	// skipped.
	ErrNotStatement = errors.New("not a statement")
)

// Error is what this package answers where a rule of trust says no.
type Error struct {
	Kind   error // a sentinel
	format string
	args   []any
}

func (e *Error) Error() string        { return e.Naming(short[replication.OriginKey]) }
func (e *Error) Is(target error) bool { return target == e.Kind }

// Naming is the error's text with peers as name calls them; Error calls them by the
// first digits of their keys.
func (e *Error) Naming(name func(replication.OriginKey) string) string {
	args := slices.Clone(e.args)
	for i, arg := range args {
		switch arg := arg.(type) {
		case replication.OriginKey:
			args[i] = name(arg)
		case peerGen:
			args[i] = arg.naming(name)
		}
	}
	return fmt.Sprintf(e.format, args...)
}

// refuse makes an Error; a peer among args is an OriginKey or a peerGen.
func refuse(kind error, format string, args ...any) error {
	return &Error{Kind: kind, format: format, args: args}
}

// short is how a key or id is named where nothing better is known.
func short[T fmt.Stringer](id T) string { return id.String()[:8] }
