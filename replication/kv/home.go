package kv

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"vixp2p/replication"
)

// The view's directory:
//
//	state      what is known about the generation in use (below)
//	g<number>  the Badger of that generation; others are left over and removed
//	verify-*   made by a deep Verify, and removed by it or by the next Open
//
// The state file is one line, "vix-view <CRC-32C of the rest in hex>", then JSON.
// It is replaced as a whole.
const (
	stateFile   = "state"
	stateMagic  = "vix-view "
	genPrefix   = "g"
	stateFormat = 1

	scratchPrefix = "verify-"
)

// phase tells how far a generation was trusted when the state was written.
type phase string

const (
	// phaseChecking: it is being opened and checked after an unclean stop. Found
	// at open, it means that the check did not survive.
	phaseChecking phase = "checking"
	// phaseRunning: it is in use. Found at open, it means an unclean stop.
	phaseRunning phase = "running"
	// phaseClosed: it was closed, and Files describes what was left.
	phaseClosed phase = "closed"
)

// homeState is the content of the state file.
type homeState struct {
	Format     int    `json:"format"`
	Instance   string `json:"instance"`
	Generation uint64 `json:"generation"`
	Boot       string `json:"boot,omitempty"`
	Phase      phase  `json:"phase"`
	// Files is every file of the generation as it was closed.
	Files []fileSum `json:"files,omitempty"`
}

// home is the view's directory.
type home struct{ dir string }

func (h home) generationDir(g uint64) string {
	return filepath.Join(h.dir, genPrefix+strconv.FormatUint(g, 10))
}

// generations lists the generations that have a directory.
func (h home) generations() []uint64 {
	names, _ := filepath.Glob(filepath.Join(h.dir, genPrefix+"*"))
	var out []uint64
	for _, name := range names {
		n, err := strconv.ParseUint(strings.TrimPrefix(filepath.Base(name), genPrefix), 10, 64)
		if err == nil {
			out = append(out, n)
		}
	}
	return out
}

// sweep removes every generation but one, and what a Verify left.
func (h home) sweep(keep uint64) error {
	var errs []error
	scratch, _ := filepath.Glob(filepath.Join(h.dir, scratchPrefix+"*"))
	for _, dir := range scratch {
		errs = append(errs, os.RemoveAll(dir))
	}
	for _, g := range h.generations() {
		if g != keep {
			errs = append(errs, os.RemoveAll(h.generationDir(g)))
		}
	}
	return errors.Join(errs...)
}

// load reads the state file: fs.ErrNotExist if there is none.
func (h home) load() (homeState, error) {
	var st homeState
	path := filepath.Join(h.dir, stateFile)
	b, err := os.ReadFile(path)
	if err != nil {
		return st, err
	}
	bad := &replication.DamageError{File: path, Problem: "the state file of the key-value view does not match its checksum"}
	line, rest, ok := bytes.Cut(b, []byte("\n"))
	if !ok || string(line) != stateMagic+hexSum(rest) || json.Unmarshal(rest, &st) != nil {
		return st, bad
	}
	return st, nil
}

// save replaces the state file, durably, so that the generation never goes back.
func (h home) save(st homeState) error {
	body, err := json.Marshal(st)
	if err != nil {
		return err
	}
	path := filepath.Join(h.dir, stateFile)
	data := append([]byte(stateMagic+hexSum(body)+"\n"), body...)
	if err := writeSynced(path+".new", data); err != nil {
		return fmt.Errorf("save the state of the key-value view: %w", err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		return fmt.Errorf("save the state of the key-value view: %w", err)
	}
	return nil
}

func writeSynced(path string, data []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Sync(), f.Close())
}

func hexSum(b []byte) string { return fmt.Sprintf("%08x", crc32.Checksum(b, castagnoli)) }

// plan is what Open decided about the directory.
type plan struct {
	generation uint64
	// check: the generation is kept but every record is checked before it serves.
	check bool
	// fresh: there was no view before.
	fresh bool
	// rebuild says why the generation starts empty; damage tells that the reason
	// is damage, which Verify reports.
	rebuild string
	damage  error
	// files are those of a kept generation that was closed; unchecked are the
	// tables among them whose content is compared while the view is open.
	files     map[string]fileSum
	unchecked []fileSum
}

// decide reads the directory and plans what to open. checkFirst is the bytes of
// unchanged tables that it reads.
func (h home) decide(instance replication.Instance, boot string, checkFirst int64) plan {
	st, err := h.load()
	next := st.Generation
	for _, g := range h.generations() {
		next = max(next, g)
	}
	next++
	again := func(reason string, damage error) plan {
		return plan{generation: next, rebuild: reason, damage: damage}
	}
	switch {
	case errors.Is(err, fs.ErrNotExist) && next == 1:
		return plan{generation: 1, fresh: true}
	case errors.Is(err, fs.ErrNotExist):
		return again("its state file is missing", nil)
	case err != nil:
		return again("its state file is damaged", err)
	case st.Format != stateFormat:
		return again(fmt.Sprintf("it has format %d, not %d", st.Format, stateFormat), nil)
	case st.Instance != instance.String():
		return again("the data directory has a new instance", nil)
	}
	dir := h.generationDir(st.Generation)
	switch st.Phase {
	case phaseClosed:
		files, unchecked, err := compareFiles(dir, st.Files, checkFirst)
		if err != nil {
			return again("its files changed while it was closed", err)
		}
		return plan{generation: st.Generation, files: files, unchecked: unchecked}
	case phaseRunning:
		if boot == "" || st.Boot != boot {
			return again("the machine stopped while it was in use", nil)
		}
		if err := checkTables(dir); err != nil {
			return again("its tables are damaged", err)
		}
		return plan{generation: st.Generation, check: true}
	}
	return again("the check after its last unclean stop did not end", nil)
}
