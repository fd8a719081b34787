//go:build linux

// Package netns gives tests a network of their own: hosts that are network
// namespaces, switches between them, and routers with NAT. Nothing of it touches
// the machine's own network, and it reaches nothing outside.
//
//	lab := netns.New(t)
//	lan := lab.Switch("lan")
//	a := lab.Host("a")
//	eth := a.Plug(lan, "192.168.1.2/24")
//	n := a.Node("A", "--connect", "192.168.1.3:9001").Start()
//
// What has to look like the internet uses public addresses: libp2p takes private
// ones for a LAN, and the ranges for documentation for unroutable.
package netns

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"vixp2p/test/internal/proc"
)

// namePrefix starts the names of all namespaces that tests make; the test's
// process ID follows.
const namePrefix = "vix-test-"

// where `ip netns` keeps the names.
const where = "/run/netns"

// tools that a lab needs, with the Debian package that has each.
var tools = map[string]string{"ip": "iproute2", "iptables": "iptables"}

// Lab is a network of namespaces. It ends with its test, with all processes in it.
type Lab struct {
	t testing.TB
}

// made counts the namespaces that this process made: labs of parallel tests share
// the machine's names.
var made atomic.Int64

// New makes an empty network. Where that is not possible the test is skipped
// loudly, and in CI it fails.
func New(t testing.TB) *Lab {
	t.Helper()
	if os.Geteuid() != 0 {
		unable(t, "network namespaces need root")
	}
	for tool, pkg := range tools {
		if _, err := exec.LookPath(tool); err != nil {
			unable(t, fmt.Sprintf("the command %s is missing: install the package %s", tool, pkg))
		}
	}
	sweep(t)
	l := &Lab{t: t}
	// The kernel, or a container around this test, may not allow it.
	probe := l.name("probe")
	if out, err := exec.Command("ip", "netns", "add", probe).CombinedOutput(); err != nil {
		unable(t, fmt.Sprintf("this system makes no network namespaces: %v: %s", err, out))
	}
	remove(t, probe)
	return l
}

func unable(t testing.TB, reason string) {
	t.Helper()
	if os.Getenv("CI") != "" {
		t.Fatal(reason)
	}
	t.Skip("NOT TESTED: " + reason)
}

// sweep removes what tests have left that were killed.
func sweep(t testing.TB) {
	t.Helper()
	names, err := os.ReadDir(where)
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range names {
		rest, ok := strings.CutPrefix(n.Name(), namePrefix)
		if !ok {
			continue
		}
		owner, _, _ := strings.Cut(rest, "-")
		pid, err := strconv.Atoi(owner)
		if err == nil && errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
			remove(t, n.Name())
		}
	}
}

// remove ends the processes of a namespace and deletes it.
func remove(t testing.TB, name string) {
	pids, _ := exec.Command("ip", "netns", "pids", name).Output() // none if it is gone
	for _, f := range strings.Fields(string(pids)) {
		if pid, err := strconv.Atoi(f); err == nil && pid != os.Getpid() {
			_ = syscall.Kill(pid, syscall.SIGKILL) // may have ended by itself
		}
	}
	if out, err := exec.Command("ip", "netns", "del", name).CombinedOutput(); err != nil {
		if _, gone := os.Stat(filepath.Join(where, name)); gone == nil {
			t.Errorf("cannot remove the namespace %s: %v: %s", name, err, out)
		}
	}
}

func (l *Lab) name(label string) string {
	return fmt.Sprintf("%s%d-%d-%s", namePrefix, os.Getpid(), made.Add(1), label)
}

// space makes a namespace with its loopback up.
func (l *Lab) space(label string) string {
	l.t.Helper()
	name := l.name(label)
	l.run("ip", "netns", "add", name)
	l.t.Cleanup(func() { remove(l.t, name) })
	l.run("ip", "-n", name, "link", "set", "lo", "up")
	return name
}

// run runs a command that must succeed.
func (l *Lab) run(args ...string) string {
	l.t.Helper()
	out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
	if err != nil {
		l.t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// Switch is a segment: all that is plugged in hears the others, multicast too.
type Switch struct {
	lab   *Lab
	space string
	ports int
}

// Switch makes a segment.
func (l *Lab) Switch(label string) *Switch {
	l.t.Helper()
	s := &Switch{lab: l, space: l.space(label)}
	l.run("ip", "-n", s.space, "link", "add", "br0", "type", "bridge", "mcast_snooping", "0")
	l.run("ip", "-n", s.space, "link", "set", "br0", "up")
	return s
}

// Host is a machine: a namespace with interfaces and routes of its own.
type Host struct {
	lab   *Lab
	label string
	space string
	links int
}

// Host makes a machine that is plugged in nowhere.
func (l *Lab) Host(label string) *Host {
	l.t.Helper()
	return &Host{lab: l, label: label, space: l.space(label)}
}

// Link is an interface of a host with its cable to a switch.
type Link struct {
	host *Host
	sw   *Switch
	Name string // in its host: eth0, eth1...
	port string // at its switch
}

// Plug connects the host to a switch by a new interface with these addresses,
// such as 192.168.1.2/24.
func (h *Host) Plug(s *Switch, addrs ...string) *Link {
	h.lab.t.Helper()
	k := &Link{host: h, sw: s, Name: fmt.Sprintf("eth%d", h.links), port: fmt.Sprintf("p%d", s.ports)}
	h.links++
	s.ports++
	run := h.lab.run
	run("ip", "-n", h.space, "link", "add", k.Name, "type", "veth", "peer", "name", k.port, "netns", s.space)
	run("ip", "-n", s.space, "link", "set", k.port, "master", "br0", "up")
	// Addresses are usable at once, and by multicast listeners at once too.
	h.Exec("sh", "-c", "echo 0 > /proc/sys/net/ipv6/conf/"+k.Name+"/accept_dad")
	run("ip", "-n", h.space, "link", "set", k.Name, "up")
	k.Readdress(addrs...)
	return k
}

// Readdress gives the interface these addresses in place of those it has. Routes
// through the old ones are gone.
func (k *Link) Readdress(addrs ...string) {
	k.host.lab.t.Helper()
	run := k.host.lab.run
	run("ip", "-n", k.host.space, "addr", "flush", "dev", k.Name, "scope", "global")
	for _, a := range addrs {
		args := []string{"ip", "-n", k.host.space, "addr", "add", a, "dev", k.Name}
		if strings.Contains(a, ":") {
			args = append(args, "nodad")
		}
		run(args...)
	}
}

// Unplug pulls the cable: the interface stays, with its addresses and routes.
func (k *Link) Unplug() {
	k.host.lab.t.Helper()
	k.host.lab.run("ip", "-n", k.sw.space, "link", "set", k.port, "down")
}

// Replug ends Unplug.
func (k *Link) Replug() {
	k.host.lab.t.Helper()
	k.host.lab.run("ip", "-n", k.sw.space, "link", "set", k.port, "up")
}

// Route sends what is for dst ("default", or a prefix) to the router at via.
func (h *Host) Route(dst, via string) {
	h.lab.t.Helper()
	family := "-4"
	if addr, err := netip.ParseAddr(via); err == nil && addr.Is6() {
		family = "-6"
	}
	h.lab.run("ip", family, "-n", h.space, "route", "replace", dst, "via", via)
}

// Forward makes the host a router between its interfaces.
func (h *Host) Forward() {
	h.lab.t.Helper()
	h.Exec("sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward; echo 1 > /proc/sys/net/ipv6/conf/all/forwarding")
}

// NAT is a way to translate addresses.
type NAT int

const (
	// Cone keeps the port of a socket whatever it talks to (endpoint-independent
	// mapping, RFC 4787), and lets in only whom that socket has written to: a
	// port-restricted cone, what most home routers do. It can be punched.
	Cone NAT = iota
	// Symmetric gives a socket another random port for each destination. Two of
	// them, or one and a Cone, cannot be punched.
	Symmetric
)

// Masquerade makes the host a router that hides what is behind it behind its
// IPv4 address at outside. IPv6 is forwarded as it is.
func (h *Host) Masquerade(outside *Link, kind NAT) {
	h.lab.t.Helper()
	h.Forward()
	rule := []string{"iptables", "-t", "nat", "-A", "POSTROUTING", "-o", outside.Name, "-j", "MASQUERADE"}
	if kind == Symmetric {
		rule = append(rule, "--random-fully")
	}
	h.Exec(rule...)
	// What comes unasked is dropped without an answer, and leaves no state: a
	// tracked packet would take the port that the punching needs.
	h.Exec("iptables", "-A", "INPUT", "-i", outside.Name, "-m", "conntrack", "--ctstate", "NEW,INVALID", "-j", "DROP")
	h.Exec("iptables", "-A", "FORWARD", "-i", outside.Name, "-m", "conntrack", "--ctstate", "NEW,INVALID", "-m", "conntrack", "!", "--ctstate", "DNAT", "-j", "DROP")
}

// PortForward sends what arrives at outside for a TCP and UDP port to a port
// behind the router.
func (h *Host) PortForward(outside *Link, port int, to string, toPort int) {
	h.lab.t.Helper()
	for _, proto := range []string{"tcp", "udp"} {
		h.Exec("iptables", "-t", "nat", "-A", "PREROUTING", "-i", outside.Name, "-p", proto, "--dport", fmt.Sprint(port),
			"-j", "DNAT", "--to-destination", fmt.Sprintf("%s:%d", to, toPort))
	}
}

// Exec runs a command on the host that must succeed, and returns its output.
func (h *Host) Exec(args ...string) string {
	h.lab.t.Helper()
	return h.lab.run(append(h.Prefix(), args...)...)
}

// Prefix is what stands before a command so that it runs on the host.
func (h *Host) Prefix() []string { return []string{"ip", "netns", "exec", h.space} }

// Node describes a node on the host; see proc.New. It listens only beyond
// loopback if its arguments say so.
func (h *Host) Node(label string, args ...string) *proc.Node {
	h.lab.t.Helper()
	return proc.New(h.lab.t, label, args...).In(h.Prefix()...)
}

// Do runs f on a thread that belongs to the host: sockets that f itself opens,
// not goroutines that it starts, are the host's for as long as they live.
func (h *Host) Do(f func()) {
	h.lab.t.Helper()
	done := make(chan error, 1)
	go func() {
		var err error
		defer func() { done <- err }() // also if f ends the test
		runtime.LockOSThread()
		own, err := os.Open("/proc/thread-self/ns/net")
		if err != nil {
			return
		}
		defer own.Close()
		if err = enter(filepath.Join(where, h.space)); err != nil {
			return
		}
		defer func() {
			// If it fails the thread stays locked, and so ends with the goroutine:
			// no other goroutine finds itself on this host.
			if err = unix.Setns(int(own.Fd()), unix.CLONE_NEWNET); err == nil {
				runtime.UnlockOSThread()
			}
		}()
		f()
	}()
	if err := <-done; err != nil {
		h.lab.t.Fatalf("cannot enter or leave the namespace of %s: %v", h.label, err)
	}
}

func enter(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.Setns(int(f.Fd()), unix.CLONE_NEWNET)
}
