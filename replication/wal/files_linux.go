package wal

import (
	"os"
	"strings"
	"syscall"
)

func ctimeOf(st *syscall.Stat_t) int64 { return st.Ctim.Nano() }

// bootID names this boot of the machine; empty if that cannot be told.
func bootID() string {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}
