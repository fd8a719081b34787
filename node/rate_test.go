package node

import (
	"bytes"
	"crypto/rand"
	"testing"
	"time"
)

// MaxRate bounds what a node sends, and what it receives.
func TestMaxRate(t *testing.T) {
	t.Parallel()
	const rate, size = 1 << 20, 2 << 20
	for _, c := range []struct {
		name             string
		sender, receiver int64
	}{{"up", rate, 0}, {"down", 0, rate}} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			a := open(t, Config{Label: "A", MaxRate: c.sender})
			value := make([]byte, size/4)
			for _, key := range []string{"1", "2", "3", "4"} {
				if _, err := rand.Read(value); err != nil {
					t.Fatal(err)
				}
				put(t, a, key, string(value))
			}
			began := time.Now()
			b := open(t, Config{Label: "B", MaxRate: c.receiver, Connect: []string{hostPort(t, a)}})
			converge(t, 4, a, b)
			// What passes at once, and a piece under way, need not wait.
			if took, least := time.Since(began), 1500*time.Millisecond; took < least {
				t.Errorf("%d bytes at %d a second took %v, and should take %v or more", size, rate, took, least)
			}
			st, err := b.Status(deadline(t))
			if err != nil || st.MaxRate != c.receiver {
				t.Errorf("status tells a rate of %d, want %d (%v)", st.MaxRate, c.receiver, err)
			}
		})
	}
	if err := (Config{MaxRate: 1000}).Check(); err == nil {
		t.Error("a rate at which peers lose touch is accepted")
	}
}

// It bounds messages too.
func TestMaxRateOfMessages(t *testing.T) {
	t.Parallel()
	const rate, count = 512 << 10, 48 // of 16 KiB
	for _, c := range []struct {
		name             string
		sender, receiver int64
	}{{"up", rate, 0}, {"down", 0, rate}} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			a := lone(t, "A", func(cfg *Config) { cfg.MaxRate = c.sender })
			b := lone(t, "B", func(cfg *Config) { cfg.MaxRate = c.receiver })
			joined(t, a, b)
			began := time.Now()
			for range count {
				if _, err := a.Send(deadline(t), "B", bytes.Repeat([]byte("x"), MaxMessageBytes), SendOptions{}); err != nil {
					t.Fatal(err)
				}
			}
			messagesUntil(t, b, "not all arrived", func(m *MessageStatus) bool { return m.Inbox == count })
			if took, least := time.Since(began), 1200*time.Millisecond; took < least {
				t.Errorf("%d bytes at %d a second took %v, and should take %v or more", count*MaxMessageBytes, rate, took, least)
			}
		})
	}
}
