package node

import (
	"encoding/json"
	"strings"
	"testing"
)

// An event of a watch has its cause in JSON, and none where the key was written.
func TestEventCause(t *testing.T) {
	for cause, want := range map[Cause]string{"": `"event":"delete","key"`, CauseRevocation: `"event":"delete","cause":"revocation","key"`} {
		b, err := json.Marshal(apiEvent(&Event{Kind: EventDelete, Cause: cause, Cursor: "c", Entry: Entry{Key: "k"}}))
		if err != nil || !strings.Contains(string(b), want) {
			t.Errorf("cause %q: %s, %v", cause, b, err)
		}
	}
}
