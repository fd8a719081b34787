package kv

import (
	"bytes"

	badger "github.com/dgraph-io/badger/v4"

	"vixp2p/replication"
)

// scanSiblings calls fn for every sibling record of a large key. What it passes
// belongs to fn.
func scanSiblings(txn *badger.Txn, space replication.SpaceID, keyHash replication.Hash, fn func(sibling) error) error {
	return scan(txn, siblingPrefix(space, keyHash), nil, func(_, record []byte) error {
		s, err := decodeSibling(record)
		if err != nil {
			return err
		}
		s.value = bytes.Clone(s.value)
		return fn(s)
	})
}

// loadKey reads a key's record; n is 0 if the key has none.
func loadKey(txn *badger.Txn, space replication.SpaceID, key []byte) (keyRecord, error) {
	return readKey(func(key []byte) ([]byte, error) { return get(txn, key) }, space, key)
}

// readKey is loadKey by another way to read.
func readKey(read func(key []byte) ([]byte, error), space replication.SpaceID, key []byte) (keyRecord, error) {
	b, err := read(stateKey(space, key))
	if err != nil || b == nil {
		return keyRecord{}, err
	}
	return decodeKeyRecord(b)
}

// loadValue fills in the value of a sibling that has it in a record of its own.
func loadValue(txn *badger.Txn, space replication.SpaceID, s *sibling) error {
	if !s.apart || s.value != nil {
		return nil
	}
	b, err := get(txn, valueKey(space, s.dot))
	if err != nil {
		return err
	}
	if uint64(len(b)) != s.size {
		return errRecord
	}
	s.value = b
	return nil
}
