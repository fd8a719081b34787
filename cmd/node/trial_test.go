package main

import (
	"os"
	"path/filepath"
	"testing"

	"vixp2p/node/localapi"
)

// What happens to the files of the local API while the node runs: commands say
// that a node runs, and not to start one.
func TestAPIFilesOfARunningNode(t *testing.T) {
	addr, token := localapi.AddrFile, localapi.TokenFile
	for name, files := range map[string]map[string]string{
		"no token":      {token: ""},
		"other token":   {token: "garbage"},
		"no address":    {addr: ""},
		"other address": {addr: "garbage"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := runNode(t, "")
			for file, content := range files {
				path := filepath.Join(n.dir, file)
				if err := os.Remove(path); err != nil {
					t.Fatal(err)
				}
				if content == "" {
					continue
				}
				if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			for _, args := range [][]string{{"status"}, {"get", "k"}, {"put", "k", "v"}, {"wait", "--timeout", "100ms"}} {
				n.vix(args...).fails(t, 1, "a node runs on "+n.dir, "missing or damaged", "start it again")
			}
			n.stop()
			n.vix("status").fails(t, 1, "no node is running")
		})
	}
	t.Run("neither", func(t *testing.T) {
		t.Parallel()
		n := runNode(t, "", "--api", "off")
		n.vix("status").fails(t, 1, "a process has "+n.dir+" open", "--api off")
	})
}
