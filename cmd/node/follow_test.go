package main

import (
	"bytes"
	"testing"

	"vixp2p/node/localapi"
)

func TestPrintEventTellsTheCause(t *testing.T) {
	for _, c := range []struct {
		ev   localapi.Event
		want string
	}{
		{localapi.Event{Event: localapi.EventPut, EventEntry: &localapi.EventEntry{Key: localapi.KeyOf([]byte("k")), Value: localapi.ValueOf([]byte("v"))}}, "put       k  v\n"},
		{localapi.Event{Event: localapi.EventPut, Cause: localapi.CauseRevocation, EventEntry: &localapi.EventEntry{Key: localapi.KeyOf([]byte("k")), Value: localapi.ValueOf([]byte("v"))}}, "put       k  v  (revocation)\n"},
		{localapi.Event{Event: localapi.EventDelete, Cause: localapi.CauseRevocation, EventEntry: &localapi.EventEntry{Key: localapi.KeyOf([]byte("k"))}}, "delete    k  (revocation)\n"},
	} {
		var out bytes.Buffer
		if err := printEvent(&out, c.ev); err != nil || out.String() != c.want {
			t.Errorf("printed %q, want %q (%v)", out.String(), c.want, err)
		}
	}
}
