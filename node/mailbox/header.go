package mailbox

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"io"

	"vixp2p/replication"
)

const (
	// formatVersion is that of the file. 1 had no mark; it was never released.
	formatVersion = 2
	oldMagic      = "vmb1" // what a file of format 1 begins with

	headerMagic = "vix-mail"
	headerSize  = len(headerMagic) + 1 + len(mark{}) + 4
	// headerStride is between the two copies of the header, in bytes: what spoils a
	// page of the disk does not spoil both.
	headerStride = 4096
	// headerArea is what the header takes: batches begin there.
	headerArea = 2 * headerStride
)

// mark is a random value of one file that begins each of its batches. No sender
// knows it, so that nothing in a message can pass for a batch, and a file that is
// written anew has another, so that nothing passes for a batch that is left on the
// disk from the one before.
type mark [16]byte

func newMark() (m mark, err error) {
	_, err = rand.Read(m[:])
	return m, err
}

// header is both copies of the header of a file with that mark.
func (m *mark) header() []byte {
	one := append(append([]byte(headerMagic), formatVersion), m[:]...)
	one = binary.BigEndian.AppendUint32(one, sum(one))
	area := make([]byte, headerArea)
	copy(area, one)
	copy(area[headerStride:], one)
	return area
}

var errOldFormat = errors.New("it has the format of a version before the first release, which is not read any more: move it away, and a new one is begun; messages in it are lost")

// readHeader finds the mark of a file; ok is false if no copy of the header is
// whole, and worn is true if only one is. It fails with replication.ErrTooNew if a
// later version wrote the file.
func readHeader(r io.ReaderAt) (m mark, ok, worn bool, err error) {
	area := make([]byte, headerArea)
	n, err := r.ReadAt(area, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return m, false, false, err
	}
	for at := 0; at < headerArea; at += headerStride {
		one := area[at : at+headerSize]
		body := one[:headerSize-4]
		switch {
		case !bytes.HasPrefix(one, []byte(headerMagic)) || binary.BigEndian.Uint32(one[len(body):]) != sum(body):
			worn = true
		case body[len(headerMagic)] > formatVersion:
			return m, false, false, &replication.VersionError{What: "file of messages", Got: uint64(body[len(headerMagic)]), Want: formatVersion}
		case !ok:
			copy(m[:], body[len(headerMagic)+1:])
			ok = true
		}
	}
	if !ok && bytes.HasPrefix(area[:n], []byte(oldMagic)) {
		return m, false, false, errOldFormat
	}
	return m, ok, worn, nil
}
