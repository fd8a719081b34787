package node

import (
	"bytes"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"vixp2p/node/mailbox"
	"vixp2p/routing"
)

func lost(err error) bool {
	u, ok := errors.AsType[*UndeliveredError](err)
	return ok && u.Lost && !u.Expired && strings.Contains(err.Error(), "is lost")
}

// Who waits for a message whose stored bytes turn out to be damaged is told so.
func TestWaitForWhatIsLost(t *testing.T) {
	cfg := Config{Label: "A", NoDiscovery: true, DataDir: t.TempDir()}
	a, b := open(t, cfg), lone(t, "B", nil)
	s := sendText(t, a, b.ID(), "x")
	path := filepath.Join(cfg.DataDir, mailDir, mailbox.FileName)
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	id, err := hex.DecodeString(s.ID())
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.WriteAt([]byte{^id[0]}, int64(bytes.LastIndex(raw, id)))
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	joined(t, b, a) // so that it is read
	if err := s.Wait(deadline(t)); !lost(err) {
		t.Errorf("Wait: %v", err)
	}
	messagesUntil(t, a, "it is in the outbox still", func(m *MessageStatus) bool { return m.Outbox == 0 && m.Counters.Undelivered == 1 })
}

// So is one for whose message no place was found when the mailbox was opened again.
func TestWaitForWhatARepairLost(t *testing.T) {
	a := lone(t, "A", nil)
	to := peerName(t)
	kept, gone := sendText(t, a, to, "kept"), sendText(t, a, to, "gone")
	var state routing.State
	for _, h := range []routing.Header{
		{Kind: routing.Text, From: a.messages.self, ID: kept.id},
		{Kind: routing.Text, ID: gone.id}, // somebody else's
		{Kind: routing.Ack, From: a.messages.self, ID: gone.id},
	} {
		state.Held = append(state.Held, routing.Held{Msg: &routing.Message{Header: h}})
	}
	a.messages.settle(state)
	if err := gone.Wait(deadline(t)); !lost(err) {
		t.Errorf("Wait: %v", err)
	}
	if kept.end() != 0 {
		t.Errorf("what is there is said to have ended: %d", kept.end())
	}
}

// Wait ends with the lifetime, also if nobody tells because messages are not carried.
func TestWaitEndsWithTheLifetime(t *testing.T) {
	a := lone(t, "A", nil)
	s := &Sent{m: a.messages, expires: time.Now().Add(50 * time.Millisecond), done: make(chan struct{})}
	if err := s.Wait(deadline(t)); err == nil || !strings.Contains(err.Error(), "its lifetime ended") {
		t.Errorf("Wait: %v", err)
	}
}
