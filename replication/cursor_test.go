package replication

import (
	"errors"
	"math"
	"strings"
	"testing"
)

func TestCursorRoundTrip(t *testing.T) {
	for _, c := range []Cursor{
		{}, {Instance: Instance{1, 2}, Generation: 3, Arrival: 4, Op: 5},
		{Instance: Instance{0xff}, Generation: math.MaxUint64, Arrival: math.MaxUint64, Op: math.MaxUint64},
	} {
		got, err := ParseCursor(c.String())
		if err != nil || got != c {
			t.Errorf("%s: %+v %v", c, got, err)
		}
	}
}

func TestCursorRefusals(t *testing.T) {
	id := strings.Repeat("0a", 16)
	for _, s := range []string{
		"", ".", "...", id, id + ".1.2", id + ".1.2.3.4", id[1:] + ".1.2.3", "zz" + id[2:] + ".1.2.3", id + "00.1.2.3",
		id + ".-1.2.3", id + ".+1.2.3", id + ".1.2.", id + ".1. 2.3", id + ".1.2.0x3", id + ".1.2.18446744073709551616", id + ".1.2.3 ",
	} {
		if c, err := ParseCursor(s); !errors.Is(err, ErrInvalid) || c != (Cursor{}) {
			t.Errorf("%q: %+v %v", s, c, err)
		} else if s != "" && !strings.Contains(err.Error(), s) {
			t.Errorf("the message does not show %q: %v", s, err)
		}
	}
}
