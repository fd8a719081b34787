package node

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

const (
	// peersFile holds the address book: a bookFile in JSON, mode 0600.
	peersFile = "peers.json"
	// damagedSuffix is what an address book that cannot be read is renamed to.
	damagedSuffix = ".damaged"

	bookVersion = 1
	// maxBookPeers and maxBookAddrs bound the book; beyond them the peer without a
	// session that was met least recently and the address that proved itself least
	// recently go.
	maxBookPeers, maxBookAddrs = 1000, 8
	// maxBookAddr bounds an address, in bytes, and maxBookBytes the file.
	maxBookAddr, maxBookBytes = 256, 4 << 20
	// bookPause is the least time between two writes of the file.
	bookPause = time.Second
)

// bookFile is the content of peersFile.
type bookFile struct {
	Version int         `json:"version"`
	Peers   []bookEntry `json:"peers"` // the one met last comes first
}

// bookEntry is a peer that completed Hello at some time.
type bookEntry struct {
	ID    peer.ID   `json:"peer_id"`
	Label string    `json:"label,omitempty"`
	Addrs []string  `json:"addrs"` // as parseTarget reads them, each endpoint once, the best first
	Last  time.Time `json:"last"`  // when it was connected last
}

// addressBook remembers, over restarts, the peers that once worked and where. It
// holds hints and no truth: whatever it says is dialled and proven like any other
// address, and without it nothing but time is lost.
type addressBook struct {
	path  string
	log   *slog.Logger
	dirty chan struct{} // capacity 1: there is something to write
	// connected tells of a peer with a session, whose entry stays whatever others
	// do. It is set before the first peer is met; nil: nobody has one.
	connected func(peer.ID) bool

	mu      sync.Mutex // guards below
	entries map[peer.ID]*bookEntry
	unsaved bool

	writing sync.Mutex // one write at a time
}

// openAddressBook reads the book of a data directory. One that cannot be read is
// set aside and begun anew: that is told, and never keeps a node from starting.
func openAddressBook(dir string, log *slog.Logger) *addressBook {
	b := &addressBook{
		path: filepath.Join(dir, peersFile), log: log,
		dirty: make(chan struct{}, 1), entries: map[peer.ID]*bookEntry{},
	}
	list, err := readBook(b.path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		log.Warn("the address book cannot be used: it is set aside, and peers are remembered anew as they are met", "file", b.path, "aside", b.path+damagedSuffix, "err", err)
		if err := os.Rename(b.path, b.path+damagedSuffix); err != nil {
			log.Warn("the address book cannot be set aside", "file", b.path, "err", err)
		}
	}
	for _, e := range list {
		b.entries[e.ID] = &e
	}
	return b
}

// readBook reads and checks the file; what is wrong with one entry is wrong with
// the file, which only a node writes.
func readBook(path string) ([]bookEntry, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxBookBytes+1))
	if err != nil {
		return nil, err
	}
	var book bookFile
	if len(data) > maxBookBytes {
		return nil, fmt.Errorf("it has more than %d bytes", maxBookBytes)
	}
	if err := json.Unmarshal(data, &book); err != nil {
		return nil, fmt.Errorf("it is no address book: %w", err)
	}
	switch {
	case book.Version != bookVersion:
		return nil, fmt.Errorf("it is of version %d, this program knows %d", book.Version, bookVersion)
	case len(book.Peers) > maxBookPeers:
		return nil, fmt.Errorf("it has %d peers, the limit is %d", len(book.Peers), maxBookPeers)
	}
	for _, e := range book.Peers {
		if e.ID == "" || len(e.Addrs) > maxBookAddrs || e.Label != "" && checkLabel(e.Label) != nil {
			return nil, fmt.Errorf("its entry of peer %q is not one that a node writes", e.ID)
		}
		for _, a := range e.Addrs {
			if _, err := parseTarget(a); err != nil || len(a) > maxBookAddr {
				return nil, fmt.Errorf("it has %q as an address of peer %s", a, e.ID)
			}
		}
	}
	return book.Peers, nil
}

// meet notes that a peer is connected. dialled is the endpoint that led to it,
// which becomes the best one; empty: it dialled. claims are the addresses that it
// names itself, the likeliest first: those that are new come before the old ones,
// for it may have moved. Where all others of a full book are connected too, a new
// peer is noted when its session ends (see left) and not before.
func (b *addressBook) meet(id peer.ID, label, dialled string, claims []string, now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	e := b.entries[id]
	if e == nil {
		if !b.makeRoomLocked() {
			return
		}
		e = &bookEntry{ID: id}
		b.entries[id] = e
	}
	var addrs []string
	known := map[string]bool{}
	add := func(list ...string) {
		for _, a := range list {
			t, err := parseTarget(a)
			if err == nil && len(a) <= maxBookAddr && !known[t.Key] && len(addrs) < maxBookAddrs {
				known[t.Key] = true
				addrs = append(addrs, a)
			}
		}
	}
	if dialled != "" {
		add(dialled)
	}
	add(slices.DeleteFunc(slices.Clone(claims), func(a string) bool { return slices.Contains(e.Addrs, a) })...)
	add(e.Addrs...)
	e.Label, e.Addrs, e.Last = label, addrs, now.UTC().Truncate(time.Second)
	b.changedLocked()
}

// left notes that the session with a peer has ended; false: it has no entry.
func (b *addressBook) left(id peer.ID, now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	e := b.entries[id]
	if e == nil {
		return false
	}
	e.Last = now.UTC().Truncate(time.Second)
	b.changedLocked()
	return true
}

// addrs are the addresses of a peer, the best first.
func (b *addressBook) addrs(id peer.ID) []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	if e := b.entries[id]; e != nil {
		return slices.Clone(e.Addrs)
	}
	return nil
}

// makeRoomLocked makes room for one more peer; false: all of them are connected.
// An entry has the time at which its session began, which may be days ago, so that
// its age alone would give up the members that are there all the time for strangers
// who come and go.
func (b *addressBook) makeRoomLocked() bool {
	if len(b.entries) < maxBookPeers {
		return true
	}
	for _, e := range slices.Backward(b.listLocked()) {
		if b.connected == nil || !b.connected(e.ID) {
			delete(b.entries, e.ID)
			return true
		}
	}
	return false
}

// forget removes a peer; false if it is not in the book.
func (b *addressBook) forget(id peer.ID) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.entries[id] == nil {
		return false
	}
	delete(b.entries, id)
	b.changedLocked()
	return true
}

func (b *addressBook) changedLocked() {
	b.unsaved = true
	select {
	case b.dirty <- struct{}{}:
	default:
	}
}

// list is the book, the peer that was met last first.
func (b *addressBook) list() []bookEntry {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.listLocked()
}

func (b *addressBook) listLocked() []bookEntry {
	list := make([]bookEntry, 0, len(b.entries))
	for _, e := range b.entries {
		c := *e
		c.Addrs = slices.Clone(e.Addrs)
		list = append(list, c)
	}
	slices.SortFunc(list, func(x, y bookEntry) int {
		return cmp.Or(y.Last.Compare(x.Last), cmp.Compare(x.ID, y.ID))
	})
	return list
}

// targets are the addresses of the book that are dialled: the best of every peer,
// then the second of every one, as many as the dialer takes.
func (b *addressBook) targets() []found {
	list := b.list()
	var out []found
	for nr := range maxBookAddrs {
		for _, e := range list {
			if nr < len(e.Addrs) && len(out) < maxTargets {
				out = append(out, rememberedAt(e.ID, e.Addrs[nr])...)
			}
		}
	}
	return out
}

// rememberedAt is one address of the book as a target; none if it is no address.
func rememberedAt(id peer.ID, addr string) []found {
	t, err := parseTarget(addr)
	if err != nil {
		return nil
	}
	return []found{{target: t.of(id), from: fromRemembered}}
}

// rememberedSource is the address book as the node starts; who is met later is
// told to the dialer then.
type rememberedSource struct {
	book  *addressBook // nil: nothing is dialled by itself
	delay time.Duration
}

func (s rememberedSource) run(ctx context.Context, offer func(found)) {
	if s.book == nil {
		return
	}
	select {
	case <-ctx.Done():
		return
	case <-time.After(s.delay):
	}
	for _, f := range s.book.targets() {
		offer(f)
	}
}

// writeLoop writes the book when it has changed, until ctx ends.
func (b *addressBook) writeLoop(ctx context.Context) {
	var last error
	for {
		select {
		case <-ctx.Done():
			return
		case <-b.dirty:
		}
		err := b.save()
		if err != nil && (last == nil || err.Error() != last.Error()) {
			b.log.Warn("peers are not remembered for the next start", "err", err)
		}
		last = err
		select {
		case <-ctx.Done():
			return
		case <-time.After(bookPause):
		}
	}
}

// save writes the book durably and all at once, if it has changed. Two saves at
// one time leave the newer content.
func (b *addressBook) save() error {
	b.writing.Lock()
	defer b.writing.Unlock()
	b.mu.Lock()
	list, unsaved := b.listLocked(), b.unsaved
	b.unsaved = false
	b.mu.Unlock()
	if !unsaved {
		return nil
	}
	data, err := json.MarshalIndent(bookFile{Version: bookVersion, Peers: list}, "", " ")
	if err == nil {
		err = replaceFile(b.path, append(data, '\n'))
	}
	if err != nil {
		b.mu.Lock()
		b.unsaved = true // with the next change, or at the end
		b.mu.Unlock()
		return fmt.Errorf("cannot write the address book: %w", err)
	}
	return nil
}

// replaceFile writes a file of mode 0600 durably and all at once: after a crash it
// has the old content or the new.
func replaceFile(path string, data []byte) error {
	tmp, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*") // mode 0600
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(tmp.Name()) }() // gone if all went well
	_, err = tmp.Write(data)
	if err == nil {
		err = tmp.Sync()
	}
	if cerr := tmp.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}
