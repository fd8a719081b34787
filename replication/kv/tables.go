package kv

import (
	"fmt"
	"os"
	"path/filepath"

	badger "github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/options"
	"github.com/dgraph-io/badger/v4/table"
	"github.com/dgraph-io/ristretto/v2/z"

	"vixp2p/replication"
)

// checkTables verifies the manifest of a Badger directory and every block of
// every table that it lists, before Badger opens it: Badger itself leaves out a
// table whose checksum is wrong without an error, and panics in a goroutine of
// its own on one whose footer is.
func checkTables(dir string) error {
	path := filepath.Join(dir, badger.ManifestFilename)
	f, err := os.Open(path)
	if err != nil {
		return &replication.DamageError{File: path, Problem: err.Error()}
	}
	defer f.Close()
	manifest, _, err := badger.ReplayManifestFile(f, 0, badger.DefaultOptions(dir))
	if err != nil {
		return &replication.DamageError{File: path, Problem: err.Error()}
	}
	for id := range manifest.Tables {
		if err := checkTable(table.NewFilename(id, dir), options.OnTableAndBlockRead); err != nil {
			return err
		}
	}
	return nil
}

// checkIndex verifies a table's footer and the index of its blocks.
func checkIndex(path string) error { return checkTable(path, options.NoVerification) }

func checkTable(path string, mode options.ChecksumVerificationMode) (err error) {
	defer faultsPanic()()
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%v", firstLine(fmt.Sprint(r)))
		}
		if err != nil {
			err = &replication.DamageError{File: path, Problem: "the table is damaged: " + firstLine(err.Error())}
		}
	}()
	f, err := z.OpenMmapFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	t, err := table.OpenTable(f, table.Options{
		ReadOnly:  true,
		BlockSize: badger.DefaultOptions("").BlockSize,
		ChkMode:   mode,
	})
	if err != nil {
		return err
	}
	return t.Close(-1)
}
