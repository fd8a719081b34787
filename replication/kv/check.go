package kv

import (
	"bytes"
	"context"
	"fmt"

	badger "github.com/dgraph-io/badger/v4"

	"vixp2p/replication"
)

// checker goes through every record of a database and compares what it finds
// with what the cursors say that there is.
type checker struct {
	rank  ranker
	txn   *badger.Txn
	hash  hasher
	found map[replication.SpaceID]*foundIn
}

// foundIn is what one space's records add up to.
type foundIn struct {
	cursor *cursor // as stored
	tally
	apart, values  uint64 // siblings with a value of their own; those values
	large, records uint64 // siblings of large keys; sibling records
	pend, pending  uint64 // as the log records count them; pending records
}

// checkEvery is how many records are checked between looks at the context.
const checkEvery = 1024

// scanAll checks every record of a snapshot: checksum, form, that it is found by
// its key, and that all add up to the stored digest and counts. Damage comes
// back as an error, the first one found.
func scanAll(ctx context.Context, txn *badger.Txn, rank ranker) error {
	c := checker{rank: rank, txn: txn, found: map[replication.SpaceID]*foundIn{}}
	n := 0
	err := scan(txn, nil, nil, func(key, record []byte) error {
		if n++; n%checkEvery == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		return c.record(key, record)
	})
	if err != nil {
		return err
	}
	return c.sums()
}

func (c *checker) record(key, record []byte) error {
	if len(key) < 1+spaceLen {
		return fmt.Errorf("%w: a key of %d bytes", errRecord, len(key))
	}
	space := replication.SpaceID(key[1 : 1+spaceLen])
	in := c.found[space]
	if in == nil {
		in = &foundIn{}
		c.found[space] = in
	}
	// What a scan meets a read must find too: that goes through other parts of
	// the files.
	again, err := get(c.txn, key)
	if err != nil {
		return err
	}
	if !bytes.Equal(again, record) {
		return fmt.Errorf("%w: a scan meets a record that a read does not find", errRecord)
	}
	switch rest := key[1+spaceLen:]; key[0] {
	case prefixCursor:
		cur, err := decodeCursor(record)
		in.cursor = &cur
		return err
	case prefixApplied:
		l, err := decodeLogRecord(record)
		in.pend += l.pend
		in.applied += l.seq
		return err
	case prefixChange:
		return nil
	case prefixPending:
		in.pending++
		return nil
	case prefixSibling:
		in.records++
		return nil
	case prefixValue:
		in.values++
		return nil
	case prefixKey:
		return c.key(space, in, rest, record)
	}
	return fmt.Errorf("%w: an unknown record %q", errRecord, key[0])
}

// key checks one key's record, its siblings and their values.
func (c *checker) key(space replication.SpaceID, in *foundIn, key, record []byte) error {
	rec, err := decodeKeyRecord(record)
	if err != nil {
		return err
	}
	in.keys++
	in.siblings += rec.n
	in.conflicts += one(rec.n > 1)
	if !rec.large {
		for i := range rec.sibs {
			if i > 0 && c.rank.compare(&rec.sibs[i-1], &rec.sibs[i]) <= 0 {
				return fmt.Errorf("%w: the siblings of key %q are out of order", errRecord, key)
			}
			if err := c.sibling(space, in, key, rec.sibs[i]); err != nil {
				return err
			}
		}
		return nil
	}
	best, n := top{ranker: c.rank, limit: 1}, uint64(0)
	err = scanSiblings(c.txn, space, hashKey(key), func(s sibling) error {
		n++
		best.add(s)
		return c.sibling(space, in, key, s)
	})
	if err != nil {
		return err
	}
	in.large += n
	if first := best.take(); n != rec.n || len(first) == 0 || first[0].dot != rec.sibs[0].dot {
		return fmt.Errorf("%w: key %q has other siblings than its record says", errRecord, key)
	}
	return nil
}

func (c *checker) sibling(space replication.SpaceID, in *foundIn, key []byte, s sibling) error {
	if s.apart {
		in.apart++
		if err := loadValue(c.txn, space, &s); err != nil {
			return err
		}
		if c.hash.hash(key, s.dot, s.order, s.value) != s.digest {
			return fmt.Errorf("%w: the value of key %q is another one", errRecord, key)
		}
	}
	in.digest.add(c.hash.sibling(key, &s))
	return nil
}

// sums compares what was found with what is stored about it.
func (c *checker) sums() error {
	for space, in := range c.found {
		var problem string
		switch {
		case in.cursor == nil:
			problem = "records without a cursor"
		case in.cursor.tally != in.tally:
			problem = fmt.Sprintf("%d siblings of %d keys after %d operations that do not add up to the stored digest of %d of %d after %d",
				in.siblings, in.keys, in.applied, in.cursor.siblings, in.cursor.keys, in.cursor.applied)
		case in.apart != in.values:
			problem = fmt.Sprintf("%d values where the siblings name %d", in.values, in.apart)
		case in.large != in.records:
			problem = fmt.Sprintf("%d sibling records where the keys name %d", in.records, in.large)
		case in.pend != in.pending:
			problem = fmt.Sprintf("%d pending records where the logs count %d", in.pending, in.pend)
		default:
			continue
		}
		return fmt.Errorf("%w: space %s has %s", errRecord, space, problem)
	}
	return nil
}
