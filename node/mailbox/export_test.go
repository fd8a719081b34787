package mailbox

import "encoding/binary"

// Reseal gives the batches of a file the checksums that fit their content, as far
// as their lengths can be followed.
func Reseal(raw []byte) {
	for len(raw) >= batchHead {
		n := int(binary.BigEndian.Uint32(raw[4:]))
		if string(raw[:4]) != batchMagic || n > len(raw)-batchHead {
			return
		}
		binary.BigEndian.PutUint32(raw[8:], sum(raw[batchHead:batchHead+n]))
		raw = raw[batchHead+n:]
	}
}
