package node

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
)

// identityFile holds the node's Ed25519 key: PKCS #8 in PEM, mode 0600.
const identityFile = "identity.key"

const identityPEM = "PRIVATE KEY"

// loadIdentity reads the directory's key, or makes one if it has no data yet. Two
// processes that do so at once end up with the same key: it appears under its name
// only whole, and never replaces another.
func (d *dataDir) loadIdentity() (ed25519.PrivateKey, error) {
	path := filepath.Join(d.path, identityFile)
	key, err := readIdentity(path)
	switch {
	case !errors.Is(err, fs.ErrNotExist):
		return key, err
	case d.store:
		return nil, errorString{fmt.Sprintf("the identity %s is missing, and the data beside it was written with its key: bring the file back from a copy, or name another data directory", path), ErrDamaged}
	}
	_, fresh, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("cannot make an identity: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(fresh)
	if err != nil {
		return nil, fmt.Errorf("cannot encode the identity: %w", err)
	}
	err = writeOnce(path, pem.EncodeToMemory(&pem.Block{Type: identityPEM, Bytes: der}))
	if err != nil && !errors.Is(err, fs.ErrExist) {
		if errors.Is(err, syscall.ENOSPC) {
			return nil, errorString{fmt.Sprintf("cannot write the identity to %s: the disk is full: make room, or name a data directory on another disk", path), ErrNoSpace}
		}
		return nil, fmt.Errorf("cannot write the identity: %w", err)
	}
	return readIdentity(path)
}

func readIdentity(path string) (ed25519.PrivateKey, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if runtime.GOOS != "windows" && info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("the identity %s can be read by others (mode %04o): run chmod 600 on it, and if others may have read it, start with a new data directory", path, info.Mode().Perm())
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	damaged := func(why any) error {
		return fmt.Errorf("the identity %s cannot be used (%v): restore the file from a copy, or start with a new data directory", path, why)
	}
	block, _ := pem.Decode(data)
	if block == nil || block.Type != identityPEM {
		return nil, damaged("it is not a private key in PEM form")
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, damaged(err)
	}
	key, ok := parsed.(ed25519.PrivateKey)
	if !ok {
		return nil, damaged("it is not an Ed25519 key")
	}
	return key, nil
}

// writeOnce creates a file of mode 0600 with the given content, durably and all
// at once: fs.ErrExist if it is there already, and never half a file.
func writeOnce(path string, data []byte) error {
	dir := filepath.Dir(path)
	tmp, err := os.CreateTemp(dir, "."+filepath.Base(path)+".*") // mode 0600
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(tmp.Name()) }() // a leftover does no harm
	_, err = tmp.Write(data)
	if err == nil {
		err = tmp.Sync()
	}
	if cerr := tmp.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	if err := os.Link(tmp.Name(), path); err != nil {
		return err
	}
	return syncDir(dir)
}

// syncDir makes the directory's entries durable. Windows cannot open a
// directory for that and keeps its entries in its own journal.
func syncDir(dir string) error {
	if runtime.GOOS == "windows" {
		return nil
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	err = d.Sync()
	if cerr := d.Close(); err == nil {
		err = cerr
	}
	return err
}
