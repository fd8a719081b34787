package node

import (
	"iter"
	"slices"
	"strings"

	"github.com/libp2p/go-libp2p/core/peer"
)

// minNameSuffix is how many characters of the end of a peer ID name a peer. All
// IDs of nodes begin alike; the program shows the last 8.
const minNameSuffix = 6

// findPeer returns the peer that a person means by its ID, by a label that only it
// has, or by the end of its ID, with dots before it or without. known are peers and
// their labels; one may come again. Labels are the peers' own choice, so that a
// label that looks like the end of another's ID makes a name ambiguous, and no more.
//
// Errors: *UnknownPeerError.
func findPeer(name string, known iter.Seq2[peer.ID, string]) (peer.ID, error) {
	if id, err := peer.Decode(name); err == nil {
		return id, nil
	}
	suffix := strings.TrimPrefix(strings.TrimPrefix(name, "..."), "…")
	var found []peer.ID
	for id, label := range known {
		if name != "" && label == name || len(suffix) >= minNameSuffix && strings.HasSuffix(id.String(), suffix) {
			found = append(found, id)
		}
	}
	slices.Sort(found)
	switch found = slices.Compact(found); len(found) {
	case 0:
		return "", &UnknownPeerError{Name: name}
	case 1:
		return found[0], nil
	}
	return "", &UnknownPeerError{Name: name, Candidates: found}
}

// UnknownPeerError: a name that is no peer, or means several.
type UnknownPeerError struct {
	Name       string
	Candidates []peer.ID
	Members    bool // it was looked for among the members of the network
}

func (e *UnknownPeerError) Error() string {
	if len(e.Candidates) == 0 && e.Members {
		return "no member is known by the name \"" + e.Name + "\": use a label or a peer ID that `members` lists, or the last 6 characters or more of an ID"
	}
	if len(e.Candidates) == 0 {
		return "no peer is known by the name \"" + e.Name + "\": use a label or a peer ID that `peers` lists, or the last 6 characters or more of an ID"
	}
	var ids []string
	for _, id := range e.Candidates {
		ids = append(ids, id.String())
	}
	return "\"" + e.Name + "\" means several peers: use one of the peer IDs " + strings.Join(ids, ", ")
}
