// Package wal keeps logs durably in Badger: it implements replication.Store
// (design 4.3, 4.4, 4.6 to 4.8).
package wal
