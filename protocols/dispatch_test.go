package protocols

import (
	"errors"
	"testing"

	"vixp2p/replication"
)

func TestDispatcher(t *testing.T) {
	d := NewDispatcher()
	var nonce uint64
	var label string
	On(d, func(p *replication.Ping) error { nonce = p.Nonce; return nil })
	On(d, func(w *Welcome) error { label = w.Label; return nil })
	On(d, func(*replication.Bye) error { return errStop })

	send := func(m any) error {
		f, err := Encode(m)
		if err != nil {
			t.Fatal(err)
		}
		return d.Dispatch(f)
	}
	if err := send(&replication.Ping{Nonce: 3}); err != nil || nonce != 3 {
		t.Errorf("%v, nonce %d", err, nonce)
	}
	if err := send(&Welcome{Label: "B"}); err != nil || label != "B" {
		t.Errorf("%v, label %q", err, label)
	}
	if err := send(&replication.Bye{}); !errors.Is(err, errStop) {
		t.Errorf("got %v", err)
	}
	if err := send(&replication.Pong{}); !errors.Is(err, ErrUnexpected) {
		t.Errorf("a message without handler: %v", err)
	}
	if err := d.Dispatch(&Frame{Major: 1, Type: 99}); !errors.Is(err, ErrUnknownType) {
		t.Errorf("an unknown type: %v", err)
	}
	if err := d.Dispatch(&Frame{Major: 1, Type: TypeGraft}); !errors.Is(err, ErrMessage) {
		t.Errorf("a bad message: %v", err)
	}
	var unknown []MessageType
	d.Unknown = func(t MessageType) error { unknown = append(unknown, t); return nil }
	if send(&replication.Pong{}) != nil || d.Dispatch(&Frame{Major: 1, Type: 99}) != nil {
		t.Error("Unknown was not asked")
	}
	if len(unknown) != 2 || unknown[0] != TypePong || unknown[1] != 99 {
		t.Errorf("Unknown saw %v", unknown)
	}
}

func TestOnRefusesWhatIsNoMessage(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("no panic")
		}
	}()
	On(NewDispatcher(), func(string) error { return nil })
}
