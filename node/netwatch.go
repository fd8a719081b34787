package node

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"
)

const (
	// lookEvery is how often the network and the clocks are looked at.
	lookEvery = 2 * time.Second
	// sleptAfter: a step of the wall clock against the monotonic one, or a pause
	// between two looks, from which on the machine must have slept, or the process
	// stood still.
	sleptAfter = 5 * time.Second
)

// netChange is what netwatch saw.
type netChange struct {
	what string // for people
	// slept is how long the machine slept or the process stood still; 0: it did not.
	slept time.Duration
}

// netwatch notices that the addresses of this machine change, and that it has
// slept. Either may have ended every connection without anybody being told.
//
// libp2p has an event for changed addresses. It is not enough: it comes up to
// 5 s later, not when a cable was pulled and put back or a host listens on one
// address only, and it knows nothing of sleep.
type netwatch struct {
	// look describes the interfaces; two equal descriptions mean no change.
	look func() (string, error)
	// clocks are the wall clock, which goes on while the machine sleeps, and one
	// that never jumps (and on most systems stands still meanwhile).
	clocks func() (wall time.Time, steady time.Duration)
	// changed is called in the goroutine of run.
	changed func(netChange)
}

// run looks every lookEvery until ctx ends.
func (w *netwatch) run(ctx context.Context) {
	last, _ := w.look() // nothing to compare with; the next look tells
	wall, steady := w.clocks()
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		var c netChange
		nowWall, nowSteady := w.clocks()
		paused := nowSteady - steady
		if jump := nowWall.Sub(wall) - paused; jump >= sleptAfter {
			c = netChange{what: "the machine slept", slept: jump}
		} else if paused >= lookEvery+sleptAfter {
			c = netChange{what: "this process stood still", slept: paused - lookEvery}
		}
		wall, steady = nowWall, nowSteady
		if now, err := w.look(); err == nil && now != last {
			last = now
			if c.what == "" {
				c.what = "the addresses of this machine have changed"
			}
		}
		if c.what != "" {
			w.changed(c)
		}
	}
}

// systemClocks reads the clocks of the machine. start is any time.
func systemClocks(start time.Time) func() (time.Time, time.Duration) {
	return func() (time.Time, time.Duration) {
		now := time.Now()
		return now.Round(0), now.Sub(start) // without and with the monotonic reading
	}
}

// interfaces describes the interfaces that have an address with which other
// machines can be reached, and whether their cable is plugged in.
type interfaces struct {
	coarse, fine string // of the last look
}

// look asks the system twice for everything; only if that has changed it asks for
// each interface, which a machine with many containers could not afford every
// 2 s.
func (i *interfaces) look() (string, error) {
	all, err := net.Interfaces()
	if err != nil {
		return "", fmt.Errorf("cannot list the network interfaces: %w", err)
	}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return "", fmt.Errorf("cannot list the addresses of this machine: %w", err)
	}
	var b strings.Builder
	for _, x := range all {
		fmt.Fprintln(&b, x.Index, x.Name, x.Flags)
	}
	for _, a := range addrs {
		fmt.Fprintln(&b, a)
	}
	if coarse := b.String(); coarse != i.coarse || i.fine == "" {
		i.coarse, i.fine = coarse, describe(all)
	}
	return i.fine, nil
}

// describe lists what counts of the interfaces.
func describe(all []net.Interface) string {
	var lines []string
	for _, x := range all {
		addrs, err := x.Addrs()
		if err != nil {
			continue // it has gone since
		}
		for _, a := range addrs {
			if p, err := netip.ParsePrefix(a.String()); err == nil && dialable(p.Addr()) {
				lines = append(lines, fmt.Sprintln(x.Name, p, x.Flags&net.FlagUp != 0, x.Flags&net.FlagRunning != 0))
			}
		}
	}
	slices.Sort(lines)
	return "interfaces:\n" + strings.Join(lines, "")
}

// dialable tells an address at which other machines can be reached without naming
// an interface.
func dialable(ip netip.Addr) bool {
	return ip.IsGlobalUnicast() || ip.Is4() && ip.IsLinkLocalUnicast()
}
