package node

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"vixp2p/replication"
)

// A data directory (one network for life, one running node at a time):
//
//	format        the version of this layout: "vix-node 1"
//	network       which network it belongs to, as JSON
//	identity.key  the Ed25519 key, PKCS #8 in PEM, 0600
//	log/          the logs (package replication/wal)
//	view/         the key-value view, rebuilt from the logs when needed
//
// The local API keeps its address and token beside them.
const (
	formatFile  = "format"
	networkFile = "network"
	logDir      = "log"
	viewDir     = "view"

	formatName    = "vix-node"
	formatVersion = 1
)

// dirNetwork is the content of the network file.
type dirNetwork struct {
	Open bool   `json:"open"`
	Name string `json:"name"` // of an open network
	ID   string `json:"id"`   // hex
}

// DefaultDataDir is where a node of that label keeps its data when nobody says
// otherwise: VIX_DATA_DIR if it is set, else vix-node/LABEL in the user's data
// folder. An empty label means "default".
func DefaultDataDir(label string) (string, error) {
	if dir := os.Getenv("VIX_DATA_DIR"); dir != "" {
		return dir, nil
	}
	if label == "" {
		label = "default"
	}
	if err := checkLabel(label); err != nil {
		return "", err
	}
	if label == "." || label == ".." || strings.ContainsAny(label, `/\:*?"<>|`) {
		return "", fmt.Errorf("the label %q cannot be the name of a directory: choose another, or name a data directory", label)
	}
	base, err := userDataDir()
	if err != nil {
		return "", fmt.Errorf("there is no default place for data (%w): name a data directory", err)
	}
	return filepath.Join(base, "vix-node", label), nil
}

// userDataDir is the folder in which the system wants programs' data.
func userDataDir() (string, error) {
	switch runtime.GOOS {
	case "windows":
		return os.UserCacheDir() // %LocalAppData%
	case "darwin", "ios":
		return os.UserConfigDir() // ~/Library/Application Support
	}
	if dir := os.Getenv("XDG_DATA_HOME"); filepath.IsAbs(dir) {
		return dir, nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", err
	}
	return filepath.Join(home, ".local", "share"), nil
}

// openDataDir creates or checks the directory, its format and its network.
func openDataDir(dir, networkName string) (replication.NetworkID, error) {
	id := replication.OpenNetwork(networkName)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return id, fmt.Errorf("cannot make the data directory: %w", err)
	}
	if err := checkFormat(dir); err != nil {
		return id, err
	}
	return id, checkNetwork(dir, dirNetwork{Open: true, Name: networkName, ID: id.String()})
}

func checkFormat(dir string) error {
	path := filepath.Join(dir, formatFile)
	data, err := readOrWrite(path, fmt.Appendf(nil, "%s %d\n", formatName, formatVersion))
	if err != nil {
		return err
	}
	name, version, ok := strings.Cut(strings.TrimSpace(string(data)), " ")
	n, err := strconv.ParseUint(version, 10, 32)
	switch {
	case !ok || name != formatName || err != nil || n == 0:
		return fmt.Errorf("%s is not the format file of a data directory: name another data directory, or remove the file if this one was %s's", path, formatName)
	case n > formatVersion:
		return fmt.Errorf("%s: %w", dir, &replication.VersionError{What: "data directory", Got: n, Want: formatVersion})
	}
	return nil
}

func checkNetwork(dir string, want dirNetwork) error {
	fresh, err := json.Marshal(want)
	if err != nil {
		return err
	}
	path := filepath.Join(dir, networkFile)
	data, err := readOrWrite(path, append(fresh, '\n'))
	if err != nil {
		return err
	}
	var have dirNetwork
	if err := json.Unmarshal(data, &have); err != nil || have.ID == "" {
		return fmt.Errorf("%s cannot be read: restore it from a copy, or remove it to let the next start write it again", path)
	}
	if have.ID != want.ID {
		return &OtherNetworkError{Dir: dir, Have: have.describe(), Want: want.describe()}
	}
	return nil
}

func (d dirNetwork) describe() string {
	if d.Open {
		return fmt.Sprintf("the open network %q", d.Name)
	}
	return "network " + d.ID
}

// OtherNetworkError: the data directory belongs to another network, and a data
// directory has one network for life.
type OtherNetworkError struct {
	Dir        string
	Have, Want string
}

func (e *OtherNetworkError) Error() string {
	return fmt.Sprintf("the data directory %s belongs to %s, not to %s: start it with its own network, or name another data directory", e.Dir, e.Have, e.Want)
}

// readOrWrite returns the file's content, after creating it with the given one
// if it was not there.
func readOrWrite(path string, fresh []byte) ([]byte, error) {
	data, err := os.ReadFile(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return data, err
	}
	if err := writeOnce(path, fresh); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("cannot write to the data directory: %w", err)
	}
	return os.ReadFile(path)
}
