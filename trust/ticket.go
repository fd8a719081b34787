package trust

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base32"
	"strings"
	"unicode"

	"google.golang.org/protobuf/encoding/protowire"

	"vixp2p/replication"
	"vixp2p/replication/canonical"
)

// A ticket is one string that can be copied, typed or shown as a QR code:
//
//	vix1-  base32 of: canonical message | 4 bytes of HashParts("vix/ticket/1", message)
//
// in the alphabet of RFC 4648 without padding, in lower case; upper case is read
// as well, and white space anywhere is left out.
const (
	ticketFamily   = "vix"
	ticketPrefix   = "vix1-"
	ticketDomain   = "vix/ticket/1"
	ticketSumBytes = 4

	// MaxTicketAddrs and MaxTicketAddr bound the addresses of a ticket, and
	// MaxTicket its string, in bytes.
	MaxTicketAddrs = 16
	MaxTicketAddr  = 256
	MaxTicket      = 8 << 10
)

var ticketEncoding = base32.StdEncoding.WithPadding(base32.NoPadding)

// Ticket is what a joiner gets by other means: whom to ask, and the secret of an
// invite. It is a secret until it is used; its String leaves that out.
type Ticket struct {
	Network replication.NetworkID
	Issuer  replication.OriginKey // the node to ask
	Addrs   []string              // its addresses, as the network layer writes them
	Seed    [ed25519.SeedSize]byte
	Expires int64 // as the invite says, in Unix seconds; a hint. 0: no end
}

// Field numbers of a ticket (v1).
const (
	tNetwork protowire.Number = 1
	tIssuer  protowire.Number = 2
	tAddr    protowire.Number = 3
	tSeed    protowire.Number = 4
	tExpires protowire.Number = 5
)

// Key is the private key of the invite.
func (t *Ticket) Key() ed25519.PrivateKey { return ed25519.NewKeyFromSeed(t.Seed[:]) }

// Public is the public key of the invite.
func (t *Ticket) Public() replication.OriginKey {
	return replication.OriginKey(t.Key().Public().(ed25519.PublicKey))
}

// String says which ticket it is, without its secret.
func (t Ticket) String() string {
	return "ticket of network " + short(t.Network) + " for invite " + short(t.Public())
}

// GoString and MarshalText are String, so that neither fmt, nor a logger, nor JSON
// shows the secret.
func (t Ticket) GoString() string             { return t.String() }
func (t Ticket) MarshalText() ([]byte, error) { return []byte(t.String()), nil }

// Text is the ticket as it is handed over, secret and all.
func (t *Ticket) Text() (string, error) {
	if err := t.check(); err != nil {
		return "", err
	}
	b := appendID(nil, tNetwork, t.Network[:])
	b = appendID(b, tIssuer, t.Issuer[:])
	for _, a := range t.Addrs {
		b = canonical.AppendBytes(b, tAddr, []byte(a))
	}
	b = appendID(b, tSeed, t.Seed[:])
	b = canonical.AppendVarint(b, tExpires, uint64(t.Expires))
	return ticketPrefix + strings.ToLower(ticketEncoding.EncodeToString(append(b, ticketSum(b)...))), nil
}

func ticketSum(b []byte) []byte {
	sum := replication.HashParts(ticketDomain, b)
	return sum[:ticketSumBytes]
}

// ParseTicket reads a ticket. The error's kind is ErrNotTicket, ErrTicketDamaged
// or replication.ErrTooNew; none holds a part of the text, which may be secret.
func ParseTicket(s string) (*Ticket, error) {
	if len(s) > 4*MaxTicket {
		return nil, refuse(ErrNotTicket, "this is no ticket: it is far too long")
	}
	s = strings.Map(func(r rune) rune {
		if unicode.IsSpace(r) {
			return -1
		}
		return r
	}, s)
	prefix, rest, found := strings.Cut(strings.ToLower(s), "-")
	version := strings.TrimPrefix(prefix, ticketFamily)
	switch {
	case !found || version == prefix || version == "" || strings.Trim(version, "0123456789") != "":
		return nil, refuse(ErrNotTicket, "this is no ticket: one begins with %q", ticketPrefix)
	case prefix+"-" != ticketPrefix:
		return nil, refuse(replication.ErrTooNew, "the ticket is of version %.8s, made by a newer program: upgrade this one", version)
	}
	raw, err := ticketEncoding.DecodeString(strings.ToUpper(rest))
	n := len(raw) - ticketSumBytes
	if err != nil || n < 0 || !bytes.Equal(ticketSum(raw[:n]), raw[n:]) {
		return nil, refuse(ErrTicketDamaged, "the ticket is cut short or mistyped: copy it again, as a whole")
	}
	if ticketEncoding.EncodeToString(raw) != strings.ToUpper(rest) {
		return nil, refuse(ErrTicketDamaged, "the ticket is mistyped at its end: copy it again, as a whole")
	}
	t, err := decodeTicket(raw[:n])
	if err != nil {
		return nil, refuse(ErrNotTicket, "the ticket breaks a rule of its format (%v): ask for a new one", err)
	}
	return t, nil
}

func decodeTicket(b []byte) (*Ticket, error) {
	t := &Ticket{}
	err := decodeFields("ticket", b, canonical.SetOf(tAddr), canonical.SetOf(tNetwork, tIssuer, tSeed), func(f canonical.Field) (err error) {
		switch f.Num {
		case tNetwork:
			err = fixedID(f, t.Network[:])
		case tIssuer:
			err = fixedID(f, t.Issuer[:])
		case tAddr:
			var a string
			a, err = text(f, MaxTicketAddr)
			t.Addrs = append(t.Addrs, a)
		case tSeed:
			err = fixedID(f, t.Seed[:])
		case tExpires:
			t.Expires, err = seconds(f)
		default:
			err = errUnknownField
		}
		return err
	})
	if err == nil {
		err = t.check()
	}
	return t, err
}

func (t *Ticket) check() error {
	if isZero(t.Network[:]) || isZero(t.Issuer[:]) || isZero(t.Seed[:]) {
		return canonical.Invalidf("a ticket needs a network, an issuer and a seed")
	}
	if len(t.Addrs) > MaxTicketAddrs {
		return canonical.Invalidf("a ticket with %d addresses, more than %d", len(t.Addrs), MaxTicketAddrs)
	}
	for _, a := range t.Addrs {
		if a == "" {
			return canonical.Invalidf("an empty address")
		}
		if err := checkText("address", a, MaxTicketAddr); err != nil {
			return err
		}
	}
	return checkSeconds("end of the ticket", t.Expires)
}
