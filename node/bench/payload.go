package bench

import (
	"math/rand/v2"
	"sync"
)

// Nothing that is measured shall depend on how well a body can be packed: all payloads
// are random, and those of one block differ.

var randomBytes = sync.OnceValue(func() []byte {
	b := make([]byte, 4<<20)                   // several blocks
	_, _ = rand.NewChaCha8([32]byte{}).Read(b) // it never fails
	return b
})

// payload is the n-th one of so many bytes.
func payload(n, size int) []byte {
	from := n * size % (len(randomBytes()) - size + 1)
	return randomBytes()[from : from+size : from+size]
}
