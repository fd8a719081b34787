package protocols

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"vixp2p/replication"
)

const limitsBegin, limitsEnd = "<!-- limits: go test ./protocols -run LimitsDocument -update -->\n", "<!-- end of limits -->\n"

// The table of limits in docs/wire.md is the one that the code follows.
func TestLimitsDocument(t *testing.T) {
	path := filepath.Join("..", "docs", "wire.md")
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok1 := strings.Cut(string(raw), limitsBegin)
	have, after, ok2 := strings.Cut(rest, limitsEnd)
	if !ok1 || !ok2 {
		t.Fatalf("%s has no place for the limits", path)
	}
	want := limitsTable()
	if *update {
		if err := os.WriteFile(path, []byte(before+limitsBegin+want+limitsEnd+after), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if have != want {
		t.Errorf("the limits in %s differ from the code: run this test with -update. Got\n%s\nwant\n%s", path, have, want)
	}
}

func limitsTable() string {
	var b strings.Builder
	b.WriteString("\n| type | message | envelope in the handshake | envelope in the session | attachment |\n| --- | --- | --- | --- | --- |\n")
	size := func(n int) string {
		if n == 0 {
			return "-"
		}
		return strconv.Itoa(n)
	}
	for _, l := range Limits() {
		fmt.Fprintf(&b, "| %d | %s | %s | %s | %s |\n", l.Type, l.Name, size(l.Hello), size(l.Session), size(l.Attachment))
	}
	b.WriteString("\n| what | limit |\n| --- | --- |\n")
	for _, l := range []struct {
		what  string
		limit any
	}{
		{"envelope of any message", MaxEnvelope},
		{"`length` of any frame in the session", maxFramePrefix + MaxEnvelope + maxAttachment},
		{"features of a Hello or HelloAck", MaxFeatures},
		{"name of a feature", MaxFeatureBytes},
		{"spaces listed in HelloFinish or Welcome", MaxHelloSpaces},
		{"name of a space", replication.MaxSpaceNameBytes},
		{"certificate, with its issuer's", MaxCertificate},
		{"label", MaxLabelBytes},
		{"agent", MaxAgentBytes},
		{"name of a network", MaxNetworkNameBytes},
		{"detail in Bye or WalAck", MaxDetailBytes},
		{"entries of a FrontierDiff, WalAck, Announce, Prune or Receipt", MaxEntries},
		{"nodes of a FrontierDiff", MaxNodes},
		{"buckets of a FrontierOpen or FrontierDiff", MaxOpenBuckets},
		{"run, all its blocks as sent", replication.MaxRunBytes},
		{"blocks of a run", replication.MaxRunBlocks},
		{"handshake; a join until its request is sent; taking JoinAccept", DefaultHelloTimeout},
		{"a joiner's wait for the decision on its request", DefaultJoinWait},
		{"rest of a frame once its first byte is there, and writing a frame", FrameTimeout},
		{"more time for an attachment: its bytes at, per second", MinBytesPerSecond},
		{"saying Bye", ByeTimeout},
	} {
		fmt.Fprintf(&b, "| %s | %v |\n", l.what, l.limit)
	}
	b.WriteString("\n")
	return b.String()
}

func TestLimitsFitTheReader(t *testing.T) {
	names := map[string]bool{}
	for i, l := range Limits() {
		if i > 0 && Limits()[i-1].Type >= l.Type {
			t.Errorf("%s is out of order", l.Name)
		}
		if names[l.Name] || l.Hello > MaxFinishEnvelope || l.Session > MaxEnvelope || l.Attachment > maxAttachment || l.Hello+l.Session == 0 {
			t.Errorf("limits of %s: %+v", l.Name, l)
		}
		names[l.Name] = true
	}
	if MaxEnvelope > readBuffer {
		t.Error("an envelope does not fit the reader's buffer")
	}
}
