package wal

import (
	"encoding/binary"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	r "vixp2p/replication"
)

const (
	witnessName = "witness"
	leaseName   = "lease"
)

// witness is the file that says which commit was the last to be acknowledged
// (design 4.7). It is written after each commit and before its acknowledgement,
// without fsync: the page cache keeps it exact for as long as the machine runs.
//
//	+---------+-------------------+--------+
//	| commits | hash of that head | CRC-32C|
//	| 8 bytes | 32 bytes          | 4 bytes|
//	+---------+-------------------+--------+
type witness struct {
	f *os.File
}

const witnessLen = 8 + 32 + crcLen

var witnessKey = []byte(witnessName)

// openWitness opens the file, or replaces it by a new one if fresh is set or it
// is missing. inode tells this file from another of its name.
func openWitness(o *Options, fresh bool) (w *witness, inode uint64, err error) {
	path := filepath.Join(o.Dir, witnessName)
	if fresh {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, 0, err
		}
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, 0, err
	}
	fi, err := f.Stat()
	if err != nil {
		_ = f.Close()
		return nil, 0, err
	}
	return &witness{f: f}, o.proof(fi).inode, nil
}

// put states that the head with that hash was committed. One small write cannot
// be torn by the end of the process.
func (w *witness) put(commits uint64, head r.Hash) error {
	b := make([]byte, 0, witnessLen)
	b = binary.BigEndian.AppendUint64(b, commits)
	b = append(b, head[:]...)
	_, err := w.f.WriteAt(seal(witnessKey, b), 0)
	return err
}

func (w *witness) sync() error  { return w.f.Sync() }
func (w *witness) close() error { return w.f.Close() }

// testimony is what the witness file said when the store was opened.
type testimony struct {
	present bool
	valid   bool // the slot is whole
	inode   uint64
	commits uint64
	head    r.Hash
}

func readWitness(o *Options) (testimony, error) {
	var t testimony
	f, err := os.Open(filepath.Join(o.Dir, witnessName))
	if errors.Is(err, fs.ErrNotExist) {
		return t, nil
	}
	if err != nil {
		return t, err
	}
	defer func() { _ = f.Close() }()
	fi, err := f.Stat()
	if err != nil {
		return t, err
	}
	t.present, t.inode = true, o.proof(fi).inode
	b := make([]byte, witnessLen)
	if _, err := io.ReadFull(f, b); err != nil || fi.Size() != witnessLen {
		return t, nil // not valid
	}
	if b, err = unseal(witnessKey, b); err != nil {
		return t, nil
	}
	t.valid = true
	t.commits = binary.BigEndian.Uint64(b)
	copy(t.head[:], b[8:])
	return t, nil
}

// leaseFile is what the lease looked like when the store was opened.
type leaseFile struct {
	present bool
	proof   fileProof
	nonce   [16]byte
}

func readLease(o *Options) (leaseFile, error) {
	var l leaseFile
	path := filepath.Join(o.Dir, leaseName)
	fi, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return l, nil
	}
	if err != nil {
		return l, err
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return l, err
	}
	l.present = len(b) == len(l.nonce)
	l.proof = o.proof(fi)
	copy(l.nonce[:], b)
	return l, nil
}

// renewLease replaces the lease by a new file with a new nonce, so that every
// backup taken before shows as older than this open.
func renewLease(o *Options) (leaseFile, error) {
	var nonce [16]byte
	if _, err := io.ReadFull(o.Rand, nonce[:]); err != nil {
		return leaseFile{}, err
	}
	path := filepath.Join(o.Dir, leaseName)
	if err := writeDurably(path, nonce[:]); err != nil {
		return leaseFile{}, err
	}
	return readLease(o)
}

// writeDurably replaces a file by rename, synced.
func writeDurably(path string, data []byte) error {
	tmp := path + ".new"
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(tmp, path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}
