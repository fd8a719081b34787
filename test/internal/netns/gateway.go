//go:build linux

package netns

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// portMapper is the daemon of many home routers, and the Debian package that has
// it. Tests that call Gateway need it, the others do not.
const portMapper, portMapperPackage = "miniupnpd", "miniupnpd-iptables"

// Gateway is the daemon on a router that maps ports for whoever asks it from
// inside: by UPnP (Internet Gateway Device), NAT-PMP and PCP.
type Gateway struct {
	host *Host
	cmd  *exec.Cmd
	log  strings.Builder // read after the end only
	file string          // of leases
}

// Debian builds the daemon for the kernel's older tables, which iptables itself no
// longer writes; a router may have rules in both.
const olderTables = "iptables-legacy"

// gatewayConf are the daemon's settings: whose ports, and who may ask.
const gatewayConf = `ext_ifname=%s
listening_ip=%s
enable_natpmp=yes
enable_upnp=yes
secure_mode=yes
ipv6_disable=yes
uuid=8d638bcf-49d3-4a90-850b-6e66e3c427c1
lease_file=%s
allow 1024-65535 0.0.0.0/0 1024-65535
`

// Gateway lets the router, which Masquerade has made one, map ports of outside for
// those at inside. It ends with the test.
func (h *Host) Gateway(outside, inside *Link) *Gateway {
	h.lab.t.Helper()
	NeedGateway(h.lab.t)
	dir := h.lab.t.TempDir()
	conf := filepath.Join(dir, "gateway.conf")
	g := &Gateway{host: h, file: filepath.Join(dir, "leases")}
	text := fmt.Sprintf(gatewayConf, outside.Name, inside.Name, g.file)
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		h.lab.t.Fatal(err)
	}
	// The chains that the daemon keeps its rules in.
	for _, rule := range []string{
		"-t nat -N MINIUPNPD", "-t nat -A PREROUTING -i " + outside.Name + " -j MINIUPNPD",
		"-t nat -N MINIUPNPD-POSTROUTING", "-t nat -A POSTROUTING -o " + outside.Name + " -j MINIUPNPD-POSTROUTING",
		"-t mangle -N MINIUPNPD", "-t mangle -A PREROUTING -i " + outside.Name + " -j MINIUPNPD",
		"-N MINIUPNPD", "-A FORWARD -i " + outside.Name + " -j MINIUPNPD",
	} {
		h.Exec(append([]string{olderTables}, strings.Fields(rule)...)...)
	}
	args := append(h.Prefix(), portMapper, "-d", "-f", conf, "-P", filepath.Join(dir, "pid"))
	g.cmd = exec.Command(args[0], args[1:]...)
	g.cmd.Stdout, g.cmd.Stderr = &g.log, &g.log
	if err := g.cmd.Start(); err != nil {
		h.lab.t.Fatal(err)
	}
	h.lab.t.Cleanup(g.Stop)
	return g
}

// NeedGateway ends a test that cannot have a Gateway, as New does.
func NeedGateway(t testing.TB) {
	t.Helper()
	for _, tool := range []struct{ name, pkg string }{{portMapper, portMapperPackage}, {olderTables, "iptables"}} {
		if _, err := exec.LookPath(tool.name); err != nil {
			unable(t, fmt.Sprintf("the command %s is missing: install the package %s", tool.name, tool.pkg))
		}
	}
}

// Rules are the forwards that the daemon keeps at the moment, one a line.
func (g *Gateway) Rules() string {
	g.host.lab.t.Helper()
	return g.host.Exec(olderTables, "-t", "nat", "-S", "MINIUPNPD")
}

// Leases tells until when each forward is promised.
func (g *Gateway) Leases() map[string]time.Time {
	g.host.lab.t.Helper()
	text, err := os.ReadFile(g.file)
	if err != nil {
		g.host.lab.t.Fatal(err)
	}
	leases := map[string]time.Time{}
	for line := range strings.Lines(string(text)) {
		// protocol:outer port:inner host:inner port:Unix time:description
		f := strings.SplitN(line, ":", 6)
		if len(f) < 5 {
			g.host.lab.t.Fatalf("a lease is written as %q", line)
		}
		end, err := strconv.ParseInt(f[4], 10, 64)
		if err != nil {
			g.host.lab.t.Fatalf("a lease is written as %q", line)
		}
		leases[strings.Join(f[:4], ":")] = time.Unix(end, 0)
	}
	return leases
}

// Stop ends the daemon as a router does that loses its power; the rules stay.
func (g *Gateway) Stop() {
	if g.cmd.ProcessState != nil {
		return
	}
	_ = g.cmd.Process.Kill()
	_ = g.cmd.Wait() // its exit code tells of the kill
	if g.host.lab.t.Failed() {
		g.host.lab.t.Logf("--- the port mapper of %s\n%s", g.host.label, g.log.String())
	}
}
