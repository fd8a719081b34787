package mailbox

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
)

// journal is the open file.
type journal struct {
	f      *os.File
	size   int64  // of whole batches
	number uint64 // of the last batch
	// broken is why nothing can be written any more: after a failed fsync nobody
	// knows what the disk has.
	broken error
}

// write makes a batch durable and gives each record its place.
func (j *journal) write(records []record) ([]place, error) {
	if j.broken != nil {
		return nil, j.broken
	}
	b := make([]byte, batchHead, batchHead+256*len(records))
	b = binary.BigEndian.AppendUint64(b, j.number+1)
	places := make([]place, len(records))
	for i := range records {
		var at int
		b, at = records[i].append(b)
		places[i] = place{j.size + int64(at), len(records[i].data), sum(records[i].data)}
	}
	payload := b[batchHead:]
	if len(payload) > maxBatch {
		return nil, fmt.Errorf("a change of %d bytes is more than a batch holds", len(payload))
	}
	copy(b, batchMagic)
	binary.BigEndian.PutUint32(b[4:], uint32(len(payload)))
	binary.BigEndian.PutUint32(b[8:], sum(payload))
	if _, err := j.f.WriteAt(b, j.size); err != nil {
		// What was written in part would be in the way of the next batch.
		if cut := j.f.Truncate(j.size); cut != nil {
			j.broken = errors.Join(err, cut)
		}
		return nil, err
	}
	if err := j.f.Sync(); err != nil {
		j.broken = err
		return nil, err
	}
	j.size += int64(len(b))
	j.number++
	return places, nil
}

// read gives the data at a place, if it is still what was written.
func (j *journal) read(p place) ([]byte, error) {
	b := make([]byte, p.size)
	if _, err := j.f.ReadAt(b, p.at); err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("cannot read the stored messages: %w", err)
	} else if err != nil || sum(b) != p.sum {
		return nil, &DamageError{"what is read is not what was written"}
	}
	return b, nil
}

// scan gives each record of a file to fn, with the place of its data, and sets the
// journal to its end. damage tells what is wrong before the end; what a crash left
// at the end is cut off.
func (j *journal) scan(fn func(r *record, at place) error) (damage string, err error) {
	fi, err := j.f.Stat()
	if err != nil {
		return "", err
	}
	end := fi.Size()
	lost := int64(0)
	for at := int64(0); at < end; {
		payload, ok, err := j.batch(at, end)
		if err != nil {
			return "", err
		}
		if !ok {
			next, err := j.resync(at+1, end)
			if err != nil {
				return "", err
			}
			if next < 0 {
				break // the end of what was told to anybody
			}
			lost += next - at
			at = next
			continue
		}
		if number := binary.BigEndian.Uint64(payload); number != j.number+1 {
			damage = fmt.Sprintf("batch %d follows batch %d", number, j.number)
			j.number = number
		} else {
			j.number++
		}
		s := scanner{payload: payload, at: 8}
		for {
			r, more, err := s.next()
			if err != nil {
				damage = err.Error()
			}
			if !more {
				break
			}
			if err := fn(&r, place{at + batchHead + int64(r.at), len(r.data), sum(r.data)}); err != nil {
				return "", err
			}
		}
		at += batchHead + int64(len(payload))
		j.size = at
	}
	if lost > 0 {
		damage = fmt.Sprintf("%d bytes are not what was written", lost)
	}
	return damage, nil
}

// batch reads the payload of the batch at a place; ok is false if there is no whole
// one.
func (j *journal) batch(at, end int64) (payload []byte, ok bool, err error) {
	var head [batchHead]byte
	if end-at < batchHead+8 {
		return nil, false, nil
	}
	if _, err := j.f.ReadAt(head[:], at); err != nil {
		return nil, false, err
	}
	size := int64(binary.BigEndian.Uint32(head[4:]))
	if string(head[:4]) != batchMagic || size < 8 || size > maxBatch || size > end-at-batchHead {
		return nil, false, nil
	}
	payload = make([]byte, size)
	if _, err := j.f.ReadAt(payload, at+batchHead); err != nil {
		return nil, false, err
	}
	return payload, sum(payload) == binary.BigEndian.Uint32(head[8:]), nil
}

// resync finds the next whole batch; negative if there is none.
func (j *journal) resync(at, end int64) (int64, error) {
	const window = 1 << 20
	buf := make([]byte, window)
	for at < end {
		n, err := j.f.ReadAt(buf[:min(window, end-at)], at)
		if err != nil && !errors.Is(err, io.EOF) {
			return 0, err
		}
		for from := 0; ; {
			i := bytes.Index(buf[from:n], []byte(batchMagic))
			if i < 0 {
				break
			}
			from += i
			if _, ok, err := j.batch(at+int64(from), end); ok || err != nil {
				return at + int64(from), err
			}
			from++
		}
		if n < len(batchMagic) {
			break
		}
		at += int64(n - len(batchMagic) + 1)
	}
	return -1, nil
}
