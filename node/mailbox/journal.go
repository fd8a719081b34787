package mailbox

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
)

const (
	batchHead = len(mark{}) + 4 + 4
	// maxBatch bounds what a length can make Open read, in bytes.
	maxBatch = 64 << 20
)

// journal is the open file.
type journal struct {
	f      file
	mark   mark
	size   int64  // of the header and whole batches
	tail   int64  // where the last batch begins; 0: there is none
	number uint64 // of the last batch
	// broken is why nothing can be written any more: after a failed fsync nobody
	// knows what the disk has, and the next one would not tell.
	broken error
}

// begin writes the header of a new file.
func (j *journal) begin() (err error) {
	if j.mark, err = newMark(); err != nil {
		return err
	}
	j.size = headerArea
	_, err = j.f.WriteAt(j.mark.header(), 0)
	return err
}

// batchSum is the checksum of a batch: of its head without the checksum, and its
// payload.
func batchSum(head, payload []byte) uint32 {
	return crc32.Update(sum(head[:batchHead-4]), castagnoli, payload)
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
	copy(b, j.mark[:])
	binary.BigEndian.PutUint32(b[batchHead-8:], uint32(len(payload)))
	binary.BigEndian.PutUint32(b[batchHead-4:], batchSum(b, payload))
	if _, err := j.f.WriteAt(b, j.size); err != nil {
		// What was written in part would be in the way of the next batch.
		if cut := j.f.Truncate(j.size); cut != nil {
			j.broken = errors.Join(err, cut)
		}
		return nil, err
	}
	if err := j.f.Sync(); err != nil {
		j.broken = fmt.Errorf("the disk did not confirm what was written to the file of messages, so nothing more is stored until the file is opened again: %w", err)
		// It was not stored, so it must not be there after that. If this fails too
		// it is there, and settle makes it durable.
		_ = j.f.Truncate(j.size)
		return nil, j.broken
	}
	j.tail = j.size
	j.size += int64(len(b))
	j.number++
	return places, nil
}

// settle makes durable what scan read, before anybody relies on it: after a kill
// the last batch may be nowhere but in memory, and after a failed fsync the system
// takes pages for written that are not, and a second fsync says nothing. No other
// batch can be like that, because each was synced before the next was written. So
// the last one is written once more, the same bytes over themselves. What a crash
// left behind it would be taken for damage later and is cut off.
func (j *journal) settle() error {
	if err := j.f.Truncate(j.size); err != nil {
		return err
	}
	if j.tail > 0 {
		last := make([]byte, j.size-j.tail)
		if _, err := j.f.ReadAt(last, j.tail); err != nil {
			return err
		}
		if _, err := j.f.WriteAt(last, j.tail); err != nil {
			return err
		}
	}
	return j.f.Sync()
}

// read gives the data at a place: ErrDamaged if it cannot be read or is not what
// was written.
func (j *journal) read(p place) ([]byte, error) {
	b := make([]byte, p.size)
	_, err := j.f.ReadAt(b, p.at)
	switch {
	case errors.Is(err, os.ErrClosed) && j.broken != nil:
		return nil, j.broken
	case err != nil && !errors.Is(err, io.EOF):
		return nil, &DamageError{"it cannot be read: " + err.Error()}
	case err != nil || sum(b) != p.sum:
		return nil, &DamageError{"what is read is not what was written"}
	}
	return b, nil
}

// scan gives each record of a file to fn, with the place of its data, and sets the
// journal to its end. damage tells what is wrong before the end; what a crash left
// at the end is behind size. Only what bears the mark counts as a batch.
func (j *journal) scan(fn func(r *record, at place)) (damage string, err error) {
	end, err := j.f.Size()
	if err != nil {
		return "", err
	}
	j.size = headerArea
	lost := int64(0)
	for at := int64(headerArea); at < end; {
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
		number := binary.BigEndian.Uint64(payload)
		if number != j.number+1 {
			damage = fmt.Sprintf("batch %d follows batch %d", number, j.number)
		}
		if number > j.number { // else it was replayed before
			j.number = number
			if err := eachRecord(payload, at+int64(batchHead), fn); err != nil {
				damage = err.Error()
			}
		}
		j.tail = at
		at += int64(batchHead + len(payload))
		j.size = at
	}
	if lost > 0 {
		damage = fmt.Sprintf("%d bytes are not what was written", lost)
	}
	return damage, nil
}

// eachRecord gives each record of a payload that lies at a place in the file to fn.
func eachRecord(payload []byte, at int64, fn func(r *record, at place)) error {
	for s := (scanner{payload: payload, at: 8}); ; {
		r, more, err := s.next()
		if !more {
			return err
		}
		fn(&r, place{at + int64(r.at), len(r.data), sum(r.data)})
	}
}

// batch reads the payload of the batch at a place; ok is false if there is no whole
// one.
func (j *journal) batch(at, end int64) (payload []byte, ok bool, err error) {
	var head [batchHead]byte
	if end-at < int64(batchHead)+8 {
		return nil, false, nil
	}
	if _, err := j.f.ReadAt(head[:], at); err != nil {
		return nil, false, err
	}
	size := int64(binary.BigEndian.Uint32(head[batchHead-8:]))
	if !bytes.HasPrefix(head[:], j.mark[:]) || size < 8 || size > maxBatch || size > end-at-int64(batchHead) {
		return nil, false, nil
	}
	payload = make([]byte, size)
	if _, err := j.f.ReadAt(payload, at+int64(batchHead)); err != nil {
		return nil, false, err
	}
	return payload, batchSum(head[:], payload) == binary.BigEndian.Uint32(head[batchHead-4:]), nil
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
			i := bytes.Index(buf[from:n], j.mark[:])
			if i < 0 {
				break
			}
			from += i
			if _, ok, err := j.batch(at+int64(from), end); ok || err != nil {
				return at + int64(from), err
			}
			from++
		}
		if n < len(j.mark) {
			break
		}
		at += int64(n - len(j.mark) + 1)
	}
	return -1, nil
}
