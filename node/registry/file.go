package registry

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
)

// The file of a registry is one JSON object, replaced as a whole:
//
//	{"format":1,"entries":[{"host":"192.0.2.7","announcement":{...}}]}
//
// host is the address that announced it; the announcement is as it is on the wire,
// so that a signature is verified again when it is read.
const (
	fileFormat = 1
	// maxFile bounds what is read: room for DefaultMaxEntries of the largest
	// entries, several times.
	maxFile = 64 << 20
)

type fileJSON struct {
	Format  int         `json:"format"`
	Entries []entryJSON `json:"entries"`
}

type entryJSON struct {
	Host         string          `json:"host"`
	Announcement json.RawMessage `json:"announcement"`
}

// errDamaged: the file is not what a registry wrote.
var errDamaged = errors.New("the file is damaged")

// readEntries reads a registry's file: none if there is no file. With errDamaged
// it returns what is whole.
func readEntries(path string) ([]entry, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxFile {
		return nil, fmt.Errorf("%w: it has more than %d bytes", errDamaged, maxFile)
	}
	return parseFile(data)
}

func parseFile(data []byte) ([]entry, error) {
	var file fileJSON
	switch {
	case json.Unmarshal(data, &file) != nil:
		return nil, fmt.Errorf("%w: it is not the JSON of a registry", errDamaged)
	case file.Format > fileFormat:
		return nil, fmt.Errorf("a later version of the program wrote it (format %d): upgrade, or name another file", file.Format)
	case file.Format != fileFormat:
		return nil, fmt.Errorf("%w: it has no format that a registry writes", errDamaged)
	}
	var list []entry
	bad := 0
	for _, raw := range file.Entries {
		if e, ok := readEntry(raw); ok {
			list = append(list, e)
		} else {
			bad++
		}
	}
	if bad > 0 {
		return list, fmt.Errorf("%w: %d of %d entries cannot be read", errDamaged, bad, len(file.Entries))
	}
	return list, nil
}

func readEntry(raw entryJSON) (e entry, ok bool) {
	host, err := netip.ParseAddr(raw.Host)
	if err != nil || host.Zone() != "" {
		return e, false
	}
	a, err := Decode(raw.Announcement)
	if err != nil || a.Verify() != nil {
		return e, false
	}
	return entry{a: a, host: host}, true
}

// writeEntries replaces the file, durably and all at once.
func writeEntries(path string, list []entry) (err error) {
	file := fileJSON{Format: fileFormat, Entries: make([]entryJSON, 0, len(list))}
	for _, e := range list {
		data, err := e.a.encode()
		if err != nil {
			continue // what was read tightly and does not fit ours: its node announces it again
		}
		file.Entries = append(file.Entries, entryJSON{Host: e.host.String(), Announcement: data})
	}
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(file); err != nil {
		return err
	}
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, "."+filepath.Base(path)+".*.tmp") // mode 0600
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name())
		}
	}()
	_, err = f.Write(buf.Bytes())
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return err
	}
	return syncDir(dir)
}

// syncDir makes a directory's entries durable; Windows has no way to ask for it.
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

// damagedName is where a damaged file is set aside; one is kept.
func damagedName(path string) string { return path + ".damaged" }
