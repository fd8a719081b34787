//go:build !unix

package localapi

// directoryID names a directory on this machine: another for each copy of it.
func directoryID(dir string) (string, error) { return directoryPath(dir) }
