package trust

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"strings"
	"testing"

	"vixp2p/replication"
)

func fullTicket() *Ticket {
	t := &Ticket{
		Network: testNetwork, Issuer: keyOf(adminKey), Expires: 1_800_000_000,
		Addrs: []string{"/ip4/192.0.2.7/udp/9001/quic-v1", "/ip4/192.0.2.7/tcp/9001"},
	}
	copy(t.Seed[:], inviteKeyPair.Seed())
	return t
}

func ticketText(t testing.TB, k *Ticket) string {
	t.Helper()
	s, err := k.Text()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestTicketRoundTrip(t *testing.T) {
	want := fullTicket()
	text := ticketText(t, want)
	if !strings.HasPrefix(text, "vix1-") || strings.ToLower(text) != text || strings.ContainsAny(text[5:], "-_=+/ ") {
		t.Errorf("not fit to be copied: %s", text)
	}
	for name, s := range map[string]string{
		"as it is": text, "upper case": strings.ToUpper(text), "with a line end": text + "\r\n",
		"broken into lines": text[:20] + "\n   " + text[20:40] + " " + text[40:],
	} {
		got, err := ParseTicket(s)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v %v", name, got, err)
		}
	}
	if want.Public() != keyOf(inviteKeyPair) {
		t.Error("another invite")
	}
	small := &Ticket{Network: testNetwork, Issuer: keyOf(adminKey), Seed: want.Seed}
	if got, err := ParseTicket(ticketText(t, small)); err != nil || !reflect.DeepEqual(got, small) {
		t.Errorf("%+v %v", got, err)
	}
}

// TestTicketsThatAreNone says what is wrong with each, and shows nothing of it.
func TestTicketsThatAreNone(t *testing.T) {
	text := ticketText(t, fullTicket())
	swap := func(i int) string {
		c := byte('a')
		if text[i] == c {
			c = 'b'
		}
		return text[:i] + string(c) + text[i+1:]
	}
	for name, tc := range map[string]struct {
		text string
		kind error
		want string
	}{
		"nothing":           {"", ErrNotTicket, `begins with "vix1-"`},
		"a word":            {"hello", ErrNotTicket, "no ticket"},
		"another word":      {"vixen-abc", ErrNotTicket, "no ticket"},
		"no version":        {"vix-abc", ErrNotTicket, "no ticket"},
		"a peer ID":         {"12D3KooWABC", ErrNotTicket, "no ticket"},
		"a book":            {strings.Repeat("x", 1<<20), ErrNotTicket, "too long"},
		"a later version":   {"vix2-" + text[5:], replication.ErrTooNew, "version 2"},
		"much later":        {"vix12345678901234567890-" + text[5:], replication.ErrTooNew, "newer program"},
		"the beginning":     {text[:5], ErrTicketDamaged, "cut short"},
		"cut short":         {text[:len(text)-1], ErrTicketDamaged, "cut short or mistyped"},
		"cut in the middle": {text[:len(text)/2], ErrTicketDamaged, "cut short"},
		"twice":             {text + text[5:], ErrTicketDamaged, "copy it again"},
		"mistyped":          {swap(30), ErrTicketDamaged, "mistyped"},
		"the last letter":   {swap(len(text) - 1), ErrTicketDamaged, "mistyped"},
		"other letters":     {text[:10] + "1" + text[11:], ErrTicketDamaged, "mistyped"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := ParseTicket(tc.text)
			wantError(t, err, tc.kind, tc.want)
			if len(tc.text) > 40 && strings.Contains(err.Error(), tc.text[10:20]) {
				t.Errorf("the error shows the ticket: %v", err)
			}
		})
	}
	// A single wrong letter anywhere is noticed.
	for i := 5; i < len(text); i++ {
		if got, err := ParseTicket(swap(i)); err == nil {
			t.Fatalf("letter %d: %+v", i, got)
		}
	}
}

func wantError(t *testing.T, err, kind error, part string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), part) {
		t.Fatalf("got %v, want %q", err, part)
	}
	if !errors.Is(err, kind) {
		t.Fatalf("got %v, want %v", err, kind)
	}
}

// TestTicketRules: a right sum over wrong bytes.
func TestTicketRules(t *testing.T) {
	ok := [][]byte{by(1, strings.Repeat("n", 32)), by(2, strings.Repeat("i", 32)), by(4, strings.Repeat("s", 32))}
	with := func(f ...[]byte) []byte { return join(ok[0], ok[1], join(f...), ok[2]) }
	encode := func(b []byte) string {
		return ticketPrefix + strings.ToLower(ticketEncoding.EncodeToString(append(b, ticketSum(b)...)))
	}
	if _, err := ParseTicket(encode(with())); err != nil {
		t.Fatal(err)
	}
	var many [][]byte
	for range MaxTicketAddrs + 1 {
		many = append(many, by(3, "addr"))
	}
	for name, tc := range map[string]struct {
		body []byte
		want string
	}{
		"no network":          {join(ok[1], ok[2]), "field 1 is missing"},
		"no issuer":           {join(ok[0], ok[2]), "field 2 is missing"},
		"no seed":             {join(ok[0], ok[1]), "field 4 is missing"},
		"unknown field":       {join(with(), vi(6, 1)), "field 6 is not known"},
		"an empty address":    {with(by(3, "")), "empty address"},
		"an address too long": {with(by(3, strings.Repeat("x", MaxTicketAddr+1))), "more than 256"},
		"too many addresses":  {with(many...), "more than 16"},
		"a control character": {with(by(3, "\x1b")), "U+001B"},
		"beyond time":         {join(with(), vi(5, maxTime+1)), "more than"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := ParseTicket(encode(tc.body))
			wantError(t, err, ErrNotTicket, tc.want)
		})
	}
	if _, err := (&Ticket{}).Text(); err == nil {
		t.Error("an empty ticket is handed out")
	}
	big := fullTicket()
	big.Addrs = nil
	for range MaxTicketAddrs {
		big.Addrs = append(big.Addrs, strings.Repeat("x", MaxTicketAddr))
	}
	if s := ticketText(t, big); len(s) > MaxTicket {
		t.Errorf("the largest ticket has %d bytes", len(s))
	}
}

// TestTicketKeepsItsSecret: no way of printing one shows the seed.
func TestTicketKeepsItsSecret(t *testing.T) {
	ticket := fullTicket()
	text := ticketText(t, ticket)
	js, err := json.Marshal(map[string]any{"a": ticket, "b": *ticket})
	if err != nil {
		t.Fatal(err)
	}
	var log strings.Builder
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "ticket", ticket, "again", *ticket)
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "ticket", ticket, "again", *ticket)
	printed := fmt.Sprintf("%v %+v %#v %s %v %+v %#v", ticket, ticket, ticket, ticket, *ticket, *ticket, *ticket) + string(js) + log.String()
	for _, secret := range []string{text[20:40], fmt.Sprintf("%x", ticket.Seed[:4]), fmt.Sprint(ticket.Seed[:4])[1:8], "0x4, 0x4"} {
		if strings.Contains(printed, secret) {
			t.Errorf("%q is in %s", secret, printed)
		}
	}
}

func TestJoin(t *testing.T) {
	ticket, joiner := fullTicket(), keyOf(peerKey)
	nonce := [32]byte{1}
	sig := SignJoin(ticket, joiner, nonce)
	verify := func(network replication.NetworkID, invite, joiner, responder replication.OriginKey, nonce [32]byte, sig []byte) bool {
		err := VerifyJoin(network, invite, joiner, responder, nonce, sig)
		if err != nil {
			wantError(t, err, replication.ErrSignature, "does not have the key of the ticket")
		}
		return err == nil
	}
	if !verify(testNetwork, ticket.Public(), joiner, ticket.Issuer, nonce, sig) {
		t.Fatal("a right proof is refused")
	}
	other := keyOf(rootKey)
	if verify(replication.OpenNetwork("dev"), ticket.Public(), joiner, ticket.Issuer, nonce, sig) ||
		verify(testNetwork, other, joiner, ticket.Issuer, nonce, sig) ||
		verify(testNetwork, ticket.Public(), other, ticket.Issuer, nonce, sig) ||
		verify(testNetwork, ticket.Public(), joiner, other, nonce, sig) ||
		verify(testNetwork, ticket.Public(), joiner, ticket.Issuer, [32]byte{2}, sig) ||
		verify(testNetwork, ticket.Public(), joiner, ticket.Issuer, nonce, nil) {
		t.Error("a proof for something else is accepted")
	}
}
