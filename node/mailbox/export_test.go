package mailbox

import "encoding/binary"

// HeaderArea is where batches begin in a file.
const HeaderArea = headerArea

// Reversion gives both headers of a file another format version, and the checksum
// that fits it.
func Reversion(raw []byte, version byte) {
	for at := 0; at < headerArea; at += headerStride {
		one := raw[at : at+headerSize]
		one[len(headerMagic)] = version
		binary.BigEndian.PutUint32(one[headerSize-4:], sum(one[:headerSize-4]))
	}
}
