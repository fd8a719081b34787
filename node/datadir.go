package node

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"vixp2p/node/localapi"
	"vixp2p/replication"
	"vixp2p/replication/wal"
)

// A data directory (one network for life, one running node at a time):
//
//	format        whose directory it is, for life, and the version of this layout:
//	              "vix-node 1", or "vix-relay 1", which has identity.key and no more
//	network       which network it belongs to, as JSON
//	identity.key  the Ed25519 key, PKCS #8 in PEM, 0600
//	label         the label that the node was given last (label.go)
//	certificate.pem, root.key  of a network of members (certfile.go)
//	refused       that members refuse its certificate as revoked (refusal.go)
//	log/          the logs (package replication/wal)
//	peers.json    peers that were met, and where (addrbook.go)
//	view/         the key-value view, rebuilt from the logs when needed
//	mail/         routed messages (package node/mailbox)
//
// The local API keeps its address and token beside them.
const (
	formatFile  = "format"
	networkFile = "network"
	logDir      = "log"
	viewDir     = "view"

	formatVersion = 1
)

// role is whose a data directory is, as the format file names it.
type role string

const (
	nodeRole  role = "vix-node"
	relayRole role = "vix-relay"
)

// dirNetwork is the content of the network file.
type dirNetwork struct {
	Open bool   `json:"open"`
	Name string `json:"name"`           // of an open network its identity, else for people alone
	ID   string `json:"id"`             // hex
	Root string `json:"root,omitempty"` // hex; the root key of a network of members
}

// DefaultDataDir is where a node of that label keeps its data when nobody says
// otherwise: VIX_DATA_DIR if it is set, else vix-node/LABEL in the user's data
// folder. An empty label means "default".
func DefaultDataDir(label string) (string, error) {
	if dir := os.Getenv("VIX_DATA_DIR"); dir != "" {
		return dir, nil
	}
	return LabelDataDir(label)
}

// LabelDataDir is vix-node/LABEL in the user's data folder, whatever the
// environment variable VIX_DATA_DIR says. An empty label means "default".
func LabelDataDir(label string) (string, error) {
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

// mkdirProblem says what to do where a data directory cannot be made.
func mkdirProblem(dir string, err error) error {
	cause := err
	if at, ok := errors.AsType[*fs.PathError](err); ok {
		cause = at.Err
	}
	switch {
	case errors.Is(err, syscall.ENOSPC):
		return errorString{fmt.Sprintf("cannot make the data directory %s: the disk is full: make room, or name a data directory on another disk", dir), ErrNoSpace}
	case errors.Is(err, syscall.ENOTDIR):
		return errorString{fmt.Sprintf("cannot make the data directory %s: a part of this path is no directory: name another data directory", dir), err}
	}
	return errorString{fmt.Sprintf("cannot make the data directory %s (%v): name another one, below a directory that this user may write", dir, cause), err}
}

// dataDir is a data directory that was looked at: nothing in it is written before
// the store, if there is one, was found to be of this network and key.
type dataDir struct {
	path    string
	role    role
	network dirNetwork // of a node's
	store   bool       // there are logs
	// The files that settle has to write.
	noFormat, noNetwork bool
}

// openDataDir makes the directory of a node or checks its content, its format and
// its network, as far as that can be told without opening the store.
func openDataDir(dir string, network dirNetwork) (*dataDir, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, mkdirProblem(dir, err)
	}
	d := &dataDir{path: dir, role: nodeRole, network: network}
	var err error
	if d.store, err = hasStore(dir); err != nil {
		return nil, err
	}
	if d.noFormat, err = checkFormat(dir, nodeRole); err != nil {
		return nil, err
	}
	have, found, err := readNetwork(dir)
	switch {
	case err != nil:
		return nil, err
	case found && have.ID != d.network.ID:
		return nil, &OtherNetworkError{Dir: dir, Have: have.describe(), Want: d.network.describe()}
	case found:
		d.network = have
	}
	d.noNetwork = !found
	if !d.store && d.noFormat && d.noNetwork {
		err = refuseForeign(dir)
	}
	return d, err
}

// openRelayDir makes the directory of a relay or checks its content.
func openRelayDir(dir string) (*dataDir, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, mkdirProblem(dir, err)
	}
	d := &dataDir{path: dir, role: relayRole}
	var err error
	if d.noFormat, err = checkFormat(dir, relayRole); err != nil || !d.noFormat {
		return d, err
	}
	store, err := hasStore(dir)
	if err != nil {
		return nil, err
	}
	if _, network, err := readNetwork(dir); err != nil || network || store {
		return nil, cmp.Or[error](err, &RoleError{Dir: dir})
	}
	return d, refuseForeign(dir)
}

// RoleError: a data directory is a node's or a relay's for life, so that neither
// takes the other's identity.
type RoleError struct {
	Dir   string
	Relay bool // it is a relay's, and a node's was asked for
}

func (e *RoleError) Error() string {
	if e.Relay {
		return fmt.Sprintf("%s is the directory of a relay, which holds no data and answers no commands: name a node's directory, or a new one", e.Dir)
	}
	return fmt.Sprintf("%s is the directory of a node, whose identity is no relay's: name another directory for the relay, or run the node with --relay-service", e.Dir)
}

// CheckNodeDir returns a *RoleError if a data directory is a relay's, and nil if it
// may be a node's.
func CheckNodeDir(dir string) error {
	_, err := checkFormat(dir, nodeRole)
	if wrong, ok := errors.AsType[*RoleError](err); ok {
		return wrong
	}
	return nil
}

// settle writes what the directory lacks. It is called with the directory locked,
// and that of a node with the store open, which is known to be of this network.
func (d *dataDir) settle() error {
	var errs []error
	if d.noFormat {
		errs = append(errs, writeOnce(filepath.Join(d.path, formatFile), fmt.Appendf(nil, "%s %d\n", d.role, formatVersion)))
	}
	if d.noNetwork {
		text, err := json.Marshal(d.network)
		errs = append(errs, err, writeOnce(filepath.Join(d.path, networkFile), append(text, '\n')))
	}
	for _, err := range errs {
		if err != nil && !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("cannot write to the data directory: %w", err)
		}
	}
	return nil
}

// explain puts what opening the store says into words of the data directory.
func (d *dataDir) explain(err error) error {
	if owner, ok := errors.AsType[*wal.OwnerError](err); ok && owner.OtherNetwork && d.noNetwork {
		return &OtherNetworkError{Dir: d.path, Want: d.network.describe()}
	}
	return permissionProblem(d.path, err)
}

// permissionProblem says what to do where the system does not let this user work
// in the data directory; other errors pass.
func permissionProblem(dir string, err error) error {
	path := dir
	if at, ok := errors.AsType[*fs.PathError](err); ok {
		path = at.Path
	}
	switch {
	case errors.Is(err, syscall.EROFS):
		return errorString{fmt.Sprintf("cannot write %s, which is on a file system mounted read-only: make it writable, or name another data directory", path), err}
	case errors.As(err, new(*wal.AccessError)):
		return err // says it already, with the owner
	case errors.Is(err, fs.ErrPermission):
		return errorString{fmt.Sprintf("this user may not read and write %s (permission denied): run as the user who owns the data directory %s, or give this one permission to read and write everything in it", path, dir), err}
	}
	return err
}

// hasStore tells whether there are logs in the directory: a database, in use or
// set aside.
func hasStore(dir string) (bool, error) {
	entries, err := os.ReadDir(filepath.Join(dir, logDir))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, fmt.Errorf("cannot read the data directory: %w", err)
	}
	return slices.ContainsFunc(entries, fs.DirEntry.IsDir), nil
}

// LogsGoneError: a data directory has lost all of its logs at once, for example
// because the file system that holds them is not mounted. What would be written
// now would disappear below them when they are back.
type LogsGoneError struct{ Dir string }

func (e *LogsGoneError) Error() string {
	return fmt.Sprintf("%s has no logs any more, while %s, which was made from them, is there: mount or bring back what was in it, or remove %[2]s too to start without them, and peers send what they hold", filepath.Join(e.Dir, logDir), filepath.Join(e.Dir, viewDir))
}

// Is makes it match ErrDamaged.
func (e *LogsGoneError) Is(target error) bool { return target == replication.ErrDamaged }

// checkLogs returns a *LogsGoneError if nothing is left of logs that there were. If
// a part is left the store deals with it.
func (d *dataDir) checkLogs() error {
	if d.store {
		return nil
	}
	logs, err := os.ReadDir(filepath.Join(d.path, logDir))
	if err != nil && !errors.Is(err, fs.ErrNotExist) || len(logs) > 0 {
		return nil
	}
	if view, err := os.ReadDir(filepath.Join(d.path, viewDir)); err != nil || len(view) == 0 {
		return nil
	}
	return &LogsGoneError{Dir: d.path}
}

// refuseForeign returns an error if a directory without node data has files that
// no node made: its user may have named the wrong one. What file systems put into
// their root is no such file.
func refuseForeign(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("cannot read the data directory: %w", err)
	}
	for _, e := range entries {
		name := strings.TrimPrefix(e.Name(), ".") // what writeOnce left begins with a dot
		ours := slices.ContainsFunc([]string{formatFile, networkFile, identityFile, labelFile, certificateFile, rootKeyFile, refusedFile, peersFile, localapi.AddrFile, localapi.TokenFile}, func(f string) bool {
			return name == f || strings.HasPrefix(name, f+".")
		})
		if !ours && name != logDir && name != viewDir && name != mailDir && name != "lost+found" {
			return fmt.Errorf("%s is not empty and has no node data (there is %s, for example): name an empty or new directory", dir, e.Name())
		}
	}
	return nil
}

// checkFormat checks the format file of a directory that is wanted for something;
// missing if there is none.
func checkFormat(dir string, wanted role) (missing bool, err error) {
	path := filepath.Join(dir, formatFile)
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("cannot read the data directory: %w", err)
	}
	name, version, ok := strings.Cut(strings.TrimSpace(string(data)), " ")
	n, err := strconv.ParseUint(version, 10, 32)
	switch {
	case !ok || role(name) != nodeRole && role(name) != relayRole || err != nil || n == 0:
		return false, fmt.Errorf("%s is not the format file of a data directory: name another data directory, or remove the file if this one was %s's", path, wanted)
	case role(name) != wanted:
		return false, &RoleError{Dir: dir, Relay: wanted == nodeRole}
	case n > formatVersion:
		return false, fmt.Errorf("%s: %w", dir, &replication.VersionError{What: "data directory", Got: n, Want: formatVersion})
	}
	return false, nil
}

// readNetwork reads the network file; found is false if there is none.
func readNetwork(dir string) (have dirNetwork, found bool, err error) {
	path := filepath.Join(dir, networkFile)
	data, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return have, false, nil
	case errors.Is(err, syscall.ENOTDIR):
		return have, false, fmt.Errorf("%s is not a directory: name another data directory", dir)
	case err != nil:
		return have, false, permissionProblem(dir, fmt.Errorf("cannot read the data directory: %w", err))
	}
	if err := json.Unmarshal(data, &have); err != nil || have.ID == "" {
		return have, true, fmt.Errorf("%s cannot be read: restore it from a copy, or remove it and run the node with the network name that it had, which writes it again", path)
	}
	return have, true, nil
}

// DataDirNetwork tells the name of the open network that a data directory
// belongs to for life; ok is false if there is no data directory yet. The name is
// empty where it belongs to a network of members, and where the directory has data
// and lost the file that tells it.
func DataDirNetwork(dir string) (name string, ok bool, err error) {
	have, found, err := readNetwork(dir)
	if err != nil || found && have.Open {
		return have.Name, found, err
	}
	if found {
		return "", true, nil
	}
	ok, err = hasStore(dir)
	return "", ok, permissionProblem(dir, err)
}

// DataDirHasMembers tells whether a data directory belongs to a network of members.
func DataDirHasMembers(dir string) bool {
	have, found, err := readNetwork(dir)
	return err == nil && found && !have.Open
}

func openNetwork(name string) dirNetwork {
	return dirNetwork{Open: true, Name: name, ID: replication.OpenNetwork(name).String()}
}

func (d dirNetwork) describe() string {
	if d.Open {
		return fmt.Sprintf("the open network %q", d.Name)
	}
	if d.Name != "" {
		return fmt.Sprintf("the network of members %q (%s)", d.Name, d.ID[:min(8, len(d.ID))])
	}
	return "the network of members " + d.ID[:min(8, len(d.ID))]
}

// OtherNetworkError: the data directory belongs to another network, and a data
// directory has one network for life.
type OtherNetworkError struct {
	Dir  string
	Have string // empty: the file that tells its name is missing
	Want string
}

func (e *OtherNetworkError) Error() string {
	if e.Have == "" && fileExists(filepath.Join(e.Dir, certificateFile)) {
		return fmt.Sprintf("the data in %s belongs to a network of members, and the file %s, which tells which, is missing: copy that file, which is the same at every member, from another member's directory or a backup", e.Dir, networkFile)
	}
	if e.Have == "" {
		return fmt.Sprintf("the data in %s does not belong to %s, and the file %s, which tells its network, is missing: run the node with the network name that it had, which writes the file again, or name another data directory", e.Dir, e.Want, networkFile)
	}
	return fmt.Sprintf("the data directory %s belongs to %s, not to %s: start it with its own network, or name another data directory", e.Dir, e.Have, e.Want)
}
