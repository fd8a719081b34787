package wal

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	r "vixp2p/replication"
)

const (
	cleanName   = "clean"
	discardName = "DISCARD" // Badger's statistics of its value log; never needed here
)

// How much of the tables is read at an open, after a clean stop and after
// another. The tables are taken in random order, so that damage at which Badger
// ends the process, again and again, is found after a few starts.
const (
	surveyClean   = 32 << 20
	surveyUnclean = 512 << 20
)

// survey looks for damage that Badger would make worse, or end the process at,
// when it opens the database. It changes nothing.
func (s *Store) survey(w testimony) (found []fileDamage, err error) {
	dir := filepath.Join(s.opt.Dir, dbDir)
	report := func(d fileDamage) {
		if !d.torn { // the witness tells whether a torn end was acknowledged
			found = append(found, d)
		}
	}
	clean := fileExists(s.opt.Dir, cleanName)
	paths, err := listFiles(dir, "")
	if err != nil || len(paths) == 0 {
		return nil, err
	}
	if _, err := os.Stat(filepath.Join(dir, manifestName)); errors.Is(err, fs.ErrNotExist) {
		report(fileDamage{path: filepath.Join(dir, manifestName), problem: "the list of tables is missing"})
	}
	checkFile(filepath.Join(dir, manifestName), report)
	var tables []string
	var lastLog string
	newest := newestHead{}
	for _, path := range paths {
		switch filepath.Ext(path) {
		case ".sst":
			tables = append(tables, path)
		case ".vlog":
			lastLog = path
		case ".mem":
			if err := walkRecords(path, newest.visit, report); err != nil {
				report(fileDamage{path: path, problem: err.Error()})
			}
		}
	}
	if lastLog != "" {
		checkFile(lastLog, report)
	}
	if newest.commits > 0 && w.valid && w.commits > newest.commits {
		report(fileDamage{path: dir, problem: "acknowledged commits are missing from the end of the log"})
	}
	s.surveyTables(tables, clean, report)
	return found, nil
}

// newestHead is the newest store head in the logs of memtables.
type newestHead struct{ commits uint64 }

func (n *newestHead) visit(_ int64, rec *record) error {
	key := rec.key[:len(rec.key)-versionLen]
	if string(key) == string(keyHead) {
		if b, err := unseal(key, rec.value); err == nil {
			if h, err := decodeHead(b); err == nil {
				n.commits = max(n.commits, h.commits)
			}
		}
	}
	return nil
}

// surveyTables checks of every table what Badger reads when it opens it: footer,
// index and last block; and of some all blocks.
func (s *Store) surveyTables(paths []string, clean bool, report func(fileDamage)) {
	budget := int64(surveyUnclean)
	if clean {
		budget = surveyClean
	}
	var seed [8]byte
	if err := s.random(seed[:]); err != nil {
		budget = 0
	}
	first := 0
	if len(paths) > 0 {
		first = int(uint16(seed[0])<<8|uint16(seed[1])) % len(paths)
	}
	for i := range paths {
		path := paths[(first+i)%len(paths)]
		fi, err := os.Stat(path)
		if err == nil && budget >= fi.Size() {
			budget -= fi.Size()
			checkFile(path, report)
			continue
		}
		t, err := openTable(path)
		if err != nil {
			report(fileDamage{path: path, problem: err.Error()})
			continue
		}
		t.check(len(t.blocks)-1, report)
		t.close()
	}
}

func fileExists(dir, name string) bool {
	_, err := os.Stat(filepath.Join(dir, name))
	return err == nil
}

// removeFile removes a file if it is there.
func removeFile(dir, name string) error {
	err := os.Remove(filepath.Join(dir, name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// damageAt makes one error of what a survey found.
func damageAt(found []fileDamage) *r.DamageError {
	return &r.DamageError{File: found[0].path, Problem: found[0].problem}
}
