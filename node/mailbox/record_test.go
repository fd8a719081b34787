package mailbox

import (
	"bytes"
	"testing"
)

// FuzzRecords: what is read as records is written as the same bytes.
func FuzzRecords(f *testing.F) {
	var all []byte
	for k := recBegin; k <= recRead; k++ {
		r := record{kind: k, number: 7, time: 8, data: []byte("data"), hops: 3}
		if k != recPutHeld && k != recPutInbox {
			r.data = nil
		}
		one, _ := r.append(nil)
		f.Add(one)
		f.Add(one[:len(one)-1])
		all = append(all, one...)
	}
	f.Add(all)
	f.Fuzz(func(t *testing.T, payload []byte) {
		s := scanner{payload: payload}
		var again []byte
		for {
			r, ok, err := s.next()
			if err != nil {
				return
			}
			if !ok {
				break
			}
			var at int
			if again, at = r.append(again); len(r.data) > 0 && at != r.at {
				t.Fatalf("the data of record %d begins at %d, not %d", r.kind, at, r.at)
			}
		}
		if !bytes.Equal(again, payload) {
			t.Fatalf("%x is written as %x", payload, again)
		}
	})
}
