package node

import (
	"fmt"

	"vixp2p/protocols"
	"vixp2p/replication"
)

// Formats are the versions of what this program stores and speaks.
type Formats struct {
	DataDirectory int    `json:"data_directory"`
	Block         int    `json:"block"`
	Protocol      string `json:"protocol"` // major.minor
	LocalAPI      int    `json:"local_api"`
}

// FormatVersions are those of this program.
func FormatVersions() Formats {
	return Formats{
		DataDirectory: formatVersion,
		Block:         replication.FormatVersion,
		Protocol:      fmt.Sprintf("%d.%d", protocols.VersionMajor, protocols.VersionMinor),
		LocalAPI:      1,
	}
}

// SizeText writes a number of bytes for people, in the units that flags take: powers
// of 1,024.
func SizeText(n uint64) string { return replication.SizeText(n) }
