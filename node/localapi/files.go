package localapi

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// The two files of a running node in its data directory. Both are written to a
// temporary name, synced and renamed, the token before the address, so that
// whoever finds an address finds its token. A killed node leaves them behind:
// their port then refuses, or answers something else, and so they are stale.
const (
	AddrFile  = "api.addr"
	TokenFile = "api.token"
)

// tokenBytes is the entropy of a token; the file holds it in hex.
const tokenBytes = 32

// endpoint is where a node answers and what it wants to hear. dir is the
// directoryID of its data directory, which no file holds: a copy of the directory
// has the files too, and is no directory of that node.
type endpoint struct{ addr, token, dir string }

func newToken() string {
	b := make([]byte, tokenBytes)
	rand.Read(b) // never fails (crypto/rand)
	return hex.EncodeToString(b)
}

func writeEndpoint(dir string, e endpoint) error {
	if err := writeFile(dir, TokenFile, e.token); err != nil {
		return err
	}
	return writeFile(dir, AddrFile, e.addr)
}

// writeFile replaces a file of the directory at once, readable by its owner
// only.
func writeFile(dir, name, content string) (err error) {
	f, err := os.CreateTemp(dir, name+".*.tmp") // mode 0600
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = f.Close()
			_ = os.Remove(f.Name())
		}
	}()
	if _, err = f.WriteString(content + "\n"); err != nil {
		return err
	}
	if err = f.Sync(); err != nil {
		return err
	}
	if err = f.Close(); err != nil {
		return err
	}
	return os.Rename(f.Name(), filepath.Join(dir, name))
}

// removeEndpoint takes the files away, the address first, unless another node
// has written its own since.
func removeEndpoint(dir string, e endpoint) error {
	have, err := readEndpoint(dir)
	if err != nil || have != e {
		return nil
	}
	return errors.Join(
		os.Remove(filepath.Join(dir, AddrFile)),
		os.Remove(filepath.Join(dir, TokenFile)))
}

func readEndpoint(dir string) (endpoint, error) {
	var e endpoint
	addr, addrErr := os.ReadFile(filepath.Join(dir, AddrFile))
	token, tokenErr := os.ReadFile(filepath.Join(dir, TokenFile))
	if (addrErr == nil) != (tokenErr == nil) && noFiles(errors.Join(addrErr, tokenErr)) {
		return e, &FilesError{dir} // one without the other
	}
	err := errors.Join(addrErr, tokenErr)
	if err != nil {
		return e, err
	}
	if e.dir, err = directoryID(dir); err != nil {
		return e, err
	}
	e.addr, e.token = strings.TrimSpace(string(addr)), strings.TrimSpace(string(token))
	if checkLoopback(e.addr) != nil {
		return e, &FilesError{dir}
	}
	return e, nil
}

// FilesError: the files of the local API in a data directory are not what a node
// wrote there: one is missing, holds something else, or whoever answers at the
// address does not know the token. If the directory is in use a node runs that
// commands cannot reach; else the files are left over. It matches ErrNotRunning.
type FilesError struct{ Dir string }

func (e *FilesError) Error() string {
	return fmt.Sprintf("a node runs on %s, but its files %s and %s there are missing or damaged, so that no command can reach it: end its process and start it again", e.Dir, AddrFile, TokenFile)
}

// Is matches ErrNotRunning.
func (e *FilesError) Is(t error) bool { return t == ErrNotRunning }

// directoryPath is the absolute path of a directory without symbolic links.
func directoryPath(dir string) (string, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	real, err := filepath.EvalSymlinks(abs)
	return "path " + real, err
}

// checkLoopback refuses an address that another machine could reach.
func checkLoopback(addr string) error {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return Errorf(CodeUsage, "the address of the local API %q is not host:port: use for example 127.0.0.1:0", addr)
	}
	if host == "localhost" {
		return nil
	}
	if ip, err := netip.ParseAddr(host); err != nil || !ip.Unmap().IsLoopback() {
		return Errorf(CodeUsage, "the local API listens on loopback only, not on %s: use 127.0.0.1:PORT or [::1]:PORT", host)
	}
	return nil
}

// noFiles tells that a directory has no files of a running node, or is none.
func noFiles(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR)
}
