//go:build unix

// Package usage tells what a process uses, for benchmarks and tests.
package usage

import (
	"syscall"
	"testing"
	"time"
)

// ProcessorTime is what this process has used so far, in user and system mode.
func ProcessorTime(t testing.TB) time.Duration {
	t.Helper()
	var use syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &use); err != nil {
		t.Fatal(err)
	}
	return time.Duration(use.Utime.Nano() + use.Stime.Nano())
}
