package main

import (
	"io"
	"testing"

	"vixp2p/node/localapi"
)

func TestFindingsAreCounted(t *testing.T) {
	p := &program{stdout: io.Discard}
	const advice = " wrong: run the node with peers connected, which fetches damaged data again, and verify once more"
	for n, want := range map[int]string{1: "1 thing is" + advice, 2: "2 things are" + advice, 1000: "1,000 things are" + advice} {
		if err := p.printFindings(make([]localapi.Finding, n)); err == nil || err.Error() != want {
			t.Errorf("%d: %v", n, err)
		}
	}
	if err := p.printFindings(nil); err != nil {
		t.Error(err)
	}
}
