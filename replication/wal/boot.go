package wal

// BootID names this boot of the machine; empty if that cannot be told. Files
// that were written without a sync are whole as long as it is the same.
func BootID() string { return bootID() }
