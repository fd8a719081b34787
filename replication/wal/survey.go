package wal

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/dgraph-io/badger/v4"

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
	listed := s.listedTables(filepath.Join(dir, manifestName))
	var tables []string
	var lastLog string
	mem := memtableSurvey{report: report}
	for _, path := range paths {
		switch filepath.Ext(path) {
		case ".sst":
			if listed == nil || listed[fileID(path)] {
				tables = append(tables, path)
			}
		case ".vlog":
			lastLog = path
		case ".mem":
			if err := walkRecords(path, mem.visit, mem.hold); err != nil {
				report(fileDamage{path: path, problem: err.Error()})
			}
			mem.end()
		}
	}
	if lastLog != "" {
		checkFile(lastLog, report)
	}
	if mem.commits > 0 && w.valid && w.commits > mem.commits {
		report(fileDamage{path: dir, problem: "acknowledged commits are missing from the end of the log"})
	}
	s.surveyTables(tables, clean, report)
	return found, nil
}

// listedTables are the numbers of the tables that Badger's list names; nil if it
// cannot be read. A table that is not listed is one whose writing a crash cut
// short, or whose data has moved on: Badger removes it when it opens, whole or not,
// and what it holds is in the memtable's log or the tables from which it was made.
func (s *Store) listedTables(path string) map[uint32]bool {
	f, err := os.Open(path)
	if err != nil {
		return nil
	}
	defer f.Close()
	var m badger.Manifest
	err = guard(func() error {
		m, _, err = badger.ReplayManifestFile(f, 0, badgerOptions(&s.opt, filepath.Dir(path), s.dblog))
		return err
	})
	if err != nil {
		return nil
	}
	listed := make(map[uint32]bool, len(m.Tables))
	for id := range m.Tables {
		listed[uint32(id)] = true
	}
	return listed
}

// memtableSurvey reads the log of a memtable. What is damaged in its last
// transaction, which has no end, is what a crash leaves of a commit that was
// never answered; the witness tells if it was.
type memtableSurvey struct {
	report  func(fileDamage)
	commits uint64 // of the newest head in a transaction that has its end
	head    uint64 // of the transaction being read
	held    []fileDamage
}

func (m *memtableSurvey) hold(d fileDamage) { m.held = append(m.held, d) }

func (m *memtableSurvey) visit(_ int64, rec *record) error {
	key, _ := versionOf(rec.key)
	switch {
	case rec.meta&bitFinTxn != 0:
		for _, d := range m.held {
			m.report(d)
		}
		m.held = nil
		m.commits = max(m.commits, m.head)
	case bytes.Equal(key, keyHead):
		if b, err := unseal(key, rec.value); err == nil {
			if h, err := decodeHead(b); err == nil {
				m.head = h.commits
			}
		}
	}
	return nil
}

func (m *memtableSurvey) end() { m.held, m.head = nil, 0 }

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
