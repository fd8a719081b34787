package node

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/libp2p/go-libp2p/core/peer"

	"vixp2p/replication"
)

// labelFile holds the label that the node of a data directory was given last, so
// that it keeps it when it is named by its directory alone.
const labelFile = "label"

// labelOf is the label of a node: the one that was given, else the one that the
// directory remembers, else the end of the peer ID.
func labelOf(dir, given string, id peer.ID, log *slog.Logger) string {
	if given != "" {
		return given
	}
	if label := rememberedLabel(dir, log); label != "" {
		return label
	}
	return shortID(id)
}

// memberLabel is what a certificate calls a node: the first label that there is, else
// the end of the peer ID, under which the node runs too where nobody names it.
func memberLabel(key replication.OriginKey, labels ...string) string {
	if label := cmp.Or(labels...); label != "" {
		return label
	}
	id, err := peerIDOf(key)
	if err != nil {
		return "" // no key of a node
	}
	return shortID(id)
}

// rememberedLabel is the label that the directory remembers; empty: none.
func rememberedLabel(dir string, log *slog.Logger) string {
	data, err := os.ReadFile(filepath.Join(dir, labelFile))
	label := strings.TrimSuffix(string(data), "\n")
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err == nil && label != "" && checkLabel(label) == nil:
		return label
	default:
		log.Warn("the label of this node cannot be read: give it again with --id", "file", filepath.Join(dir, labelFile), "err", err)
	}
	return ""
}

// saveLabel has the directory, which is locked, remember the label that a node was
// given. One that is opened without a network, for a command, does not rename it.
func saveLabel(dir, given string, offline bool) error {
	path := filepath.Join(dir, labelFile)
	have, err := os.ReadFile(path)
	if given == "" || err == nil && (offline || string(have) == given+"\n") {
		return nil
	}
	if err := replaceFile(path, []byte(given+"\n")); err != nil {
		return fmt.Errorf("cannot write the label to the data directory: %w", err)
	}
	return nil
}
