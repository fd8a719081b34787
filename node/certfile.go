package node

import (
	"bytes"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"

	"vixp2p/replication"
	"vixp2p/trust"
)

// Files of a network of members in a data directory.
const (
	// certificateFile holds the certificate that this node shows, with its
	// issuer's, in PEM.
	certificateFile = "certificate.pem"
	// rootKeyFile holds the root key of the network, where it was made or brought
	// to: PKCS #8 in PEM, mode 0600.
	rootKeyFile = "root.key"
)

const (
	certificatePEM = "VIX CERTIFICATE"
	rootKeyPEM     = "VIX ROOT PRIVATE KEY"
)

// maxKeyFile bounds what is read of a file with a key or certificate, in bytes.
const maxKeyFile = 64 << 10

// readCertificate reads a certificate's file; nil if there is none.
func readCertificate(path string) (*trust.Chain, error) {
	data, err := readSmall(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(data)
	if block == nil || block.Type != certificatePEM {
		return nil, fmt.Errorf("the certificate %s cannot be read: restore the file from a copy, or remove it, and the node writes it again where its logs hold it; where they do not, join again with a new invite", path)
	}
	chain, err := trust.DecodeChain(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("the certificate %s cannot be read (%w): restore the file from a copy, or remove it, and the node writes it again where its logs hold it; where they do not, join again with a new invite", path, err)
	}
	return chain, nil
}

func writeCertificate(path string, c *trust.Chain) error {
	return replaceFile(path, pem.EncodeToMemory(&pem.Block{Type: certificatePEM, Bytes: c.Encode()}))
}

// readRootKey reads the root key of a network from a file: fs.ErrNotExist if there
// is none.
func readRootKey(path string, root replication.OriginKey) (ed25519.PrivateKey, error) {
	if err := CheckRootKeyFile(path); err != nil {
		return nil, err
	}
	data, err := readSmall(path)
	if err != nil {
		return nil, err
	}
	key, err := parseRootKey(data)
	if err != nil {
		return nil, fmt.Errorf("the root key %s cannot be used: %w", path, err)
	}
	if !bytes.Equal(key.Public().(ed25519.PublicKey), root[:]) {
		return nil, fmt.Errorf("the root key %s is that of another network: bring back the right one with root import", path)
	}
	return key, nil
}

// CheckRootKeyFile refuses a root key's file that others may read (on Unix): a secret
// that others may have read is none.
func CheckRootKeyFile(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if runtime.GOOS != "windows" && info.Mode().Perm()&0o077 != 0 {
		return fmt.Errorf("the root key %s can be read by others (mode %04o): run chmod 600 on it, and think of who may have read it, for whoever has it has the network, which only a new network ends", path, info.Mode().Perm())
	}
	return nil
}

// parseRootKey reads what encodeRootKey wrote. Its errors hold nothing of the text.
func parseRootKey(data []byte) (ed25519.PrivateKey, error) {
	block, _ := pem.Decode(data)
	if block == nil || block.Type != rootKeyPEM {
		return nil, errors.New("it is not a root key in PEM form, as root export writes it")
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	key, ok := parsed.(ed25519.PrivateKey)
	if err != nil || !ok {
		return nil, errors.New("it is not an Ed25519 key")
	}
	return key, nil
}

// encodeRootKey is a root key as a file. The header tells people which network it is of.
func encodeRootKey(key ed25519.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("cannot encode the root key: %w", err)
	}
	network := replication.NetworkOfRoot(key.Public().(ed25519.PublicKey))
	return pem.EncodeToMemory(&pem.Block{Type: rootKeyPEM, Headers: map[string]string{"Network": network.String()}, Bytes: der}), nil
}

// readSmall reads a file that should be small.
func readSmall(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.Size() > maxKeyFile {
		return nil, fmt.Errorf("%s has %d bytes, more than a key or certificate: name the right file", path, info.Size())
	}
	return os.ReadFile(path)
}

// root is the root key that the network file names.
func (d *dirNetwork) root() (replication.OriginKey, error) {
	var key replication.OriginKey
	raw, err := hex.DecodeString(d.Root)
	if err != nil || len(raw) != len(key) || replication.NetworkOfRoot(raw).String() != d.ID {
		return key, fmt.Errorf("the file %s of the data directory is damaged: its root key is not that of its network: restore it from a copy", networkFile)
	}
	copy(key[:], raw)
	return key, nil
}

// membersNetwork is the content of the network file for a network of members.
func membersNetwork(root replication.OriginKey, name string) dirNetwork {
	return dirNetwork{Name: name, ID: replication.NetworkOfRoot(root[:]).String(), Root: root.String()}
}

// rootKeyPath is where the root key is, if it is in the directory.
func (m *membership) rootKeyPath() string { return filepath.Join(filepath.Dir(m.path), rootKeyFile) }

// rootKey reads the root key: ErrNoRootKey if it is not on this machine.
func (m *membership) rootKey() (ed25519.PrivateKey, error) {
	key, err := readRootKey(m.rootKeyPath(), m.root)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrNoRootKey
	}
	return key, err
}

// ErrNoRootKey: what was asked for takes the network's root key.
var ErrNoRootKey = errors.New("this takes the network's root key, which is not on this machine: run it where the key is, or bring the key here with root import")

// errNoKeyToRemove is ErrNoRootKey where the key was to be removed.
var errNoKeyToRemove = noKeyToRemove{}

type noKeyToRemove struct{}

func (noKeyToRemove) Error() string        { return "there is no root key on this machine to remove" }
func (noKeyToRemove) Is(target error) bool { return target == ErrNoRootKey }
