//go:build !linux

package nat

import (
	"os"
	"testing"
)

func TestNAT(t *testing.T) {
	if os.Getenv("CI") != "" {
		t.Fatal("network namespaces need Linux")
	}
	t.Skip("NOT TESTED: NATs are made of network namespaces, which need Linux")
}
