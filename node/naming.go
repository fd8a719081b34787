package node

import (
	"errors"
	"strings"

	"vixp2p/replication"
	"vixp2p/trust"
)

// namingError is an error of trust that calls peers as text output does, by label and
// the end of the ID. Its text is made when it is asked for.
type namingError struct {
	error
	reason *trust.Error // in error
	name   func(replication.OriginKey) string
}

func (e *namingError) Unwrap() error { return e.error }

func (e *namingError) Error() string {
	return strings.Replace(e.error.Error(), e.reason.Error(), e.reason.Naming(e.name), 1)
}

// naming has an error of trust call peers by their labels; others stay as they are.
func (m *membership) naming(err error) error {
	return namingBy(err, m.peerTitle)
}

func namingBy(err error, name func(replication.OriginKey) string) error {
	if reason, ok := errors.AsType[*trust.Error](err); ok {
		return &namingError{err, reason, name}
	}
	return err
}

// peerTitle is a peer for people.
func (m *membership) peerTitle(key replication.OriginKey) string {
	if key == m.root {
		return "the root key"
	}
	id := endOfID(key)
	if member, ok := m.state.Load().Member(key); ok {
		if label := cleanText(member.Label, trust.MaxLabel); label != "" {
			return label + " (" + id + ")"
		}
	}
	return id
}

// endOfID is a peer for people where no label is known: the end of its ID.
func endOfID(key replication.OriginKey) string {
	id, err := peerIDOf(key)
	if err != nil {
		return key.String()
	}
	return "…" + shortID(id)
}
