package main

import (
	"strings"
	"testing"
	"time"
)

// 0 is refused where it makes no sense, and is not taken for the default.
func TestZeroWhereItMakesNoSense(t *testing.T) {
	dir := t.TempDir()
	for args, words := range map[string]string{
		"run --disc-interval 0":         `--disc-interval takes 100ms or more, not "0": use --discovery off to ask nobody`,
		"run --boot-interval 0":         `--boot-interval takes 100ms or more, not "0": use --bootstrap off`,
		"run --boot-interval 1000h":     `--boot-interval takes at most 1 day, not "1000h"`,
		"run --relay-duration 0":        `--relay-duration takes 1 second or more, not "0": `,
		"run --relay-data 0":            "--relay-data takes a number of bytes from 64K on",
		"run --relay-reservations 0":    "from 1 to",
		"run --relay-circuits 0":        "from 1 to",
		"run --max-peers 0":             "from 1 to",
		"run --max-rate 1":              "use at least 32768, or 0 for no limit",
		"run --stats-every 5":           `--stats-every takes 10ms or more, not "5"`,
		"relay --relay-duration 0":      `--relay-duration takes 1 second or more, not "0"`,
		"relay --relay-duration 500ms":  `--relay-duration takes 1 second or more, not "500ms"`,
		"relay --stats-every 1":         `--stats-every takes 10ms or more, not "1"`,
		"registry --ttl 0":              `--ttl takes 1 second or more, not "0": entries that go at once are of no use`,
		"registry --per-address 0":      "from 1 to",
		"send B x --lifetime 0":         `--lifetime takes 1ms or more, not "0": leave it out for 24 hours`,
		"send B x --lifetime 0.0000001": `--lifetime takes 1ms or more`,
		"send B x --ttl 0":              "from 1 to 32",
	} {
		fields := strings.Fields(args)
		if fields[0] != "registry" {
			fields = append(fields, "--data-dir", dir)
		}
		vix(t, fields...).fails(t, exitUsage, words)
	}
}

func TestSpans(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"0": 0, "2": 2 * time.Second, "1.5": 1500 * time.Millisecond, "250ms": 250 * time.Millisecond, "3m": 3 * time.Minute,
		"1h30m": 90 * time.Minute, "24h": day, "2d": 2 * day, "0.5d": day / 2, "3650d": maxSpan,
	} {
		v := span{unit: time.Second}
		if err := v.Set(text); err != nil || v.value != want {
			t.Errorf("%q is %s, %v", text, v.value, err)
		}
	}
	for _, bad := range []string{"", "x", "-1", "1e9", "NaN", "Inf", "1.2.3", "5 s", "3651d", "0.0000000001", "99999999999999999999999"} {
		v := span{unit: time.Second}
		if err := v.Set(bad); err == nil {
			t.Errorf("%q is %s", bad, v.value)
		}
	}
	for d, want := range map[time.Duration]string{maxSpan: "10 years", day: "1 day", 7 * day: "7 days", 90 * time.Minute: "90 minutes", time.Second: "1 second", 1500 * time.Millisecond: "1.5s"} {
		if got := spanText(d); got != want {
			t.Errorf("%s is %q, want %q", d, got, want)
		}
	}
}
