// Package protocols is the wire: how two members say to each other, over a
// libp2p stream, what package replication decides. Wire types end here; what
// leaves this package are replication's own types (design 7, docs/wire.md).
//
//	stream bytes <-> frame (length, Envelope, attachment) <-> message <-> replication.Message
//
//	types.go         message types, flags, protocol ids, versions
//	limits.go        the table of every limit
//	errors.go        errors <-> error codes, both ways
//	frame.go         frames: picture, Reader, and the Budget of its memory
//	writer.go        Writer
//	convert.go       messages <-> wire types, with every check before any effect
//	convert_sync.go  the same for replication's messages
//	talk.go          conversations of fixed order, of which these are the two:
//	hello.go         the handshake that opens a stream
//	join.go          redeeming an invite
//	walsync.go       Conn: replication's messages over a stream after Hello
//	msg.go           routed messages over a stream of their own
//	dispatch.go      handlers by message type
//	duplicate.go     which of two sessions of one pair stays
//	service.go       stream handlers on a libp2p host, tracked to their end
//
// Nothing here keeps global state or starts a goroutine of its own, but for the
// stream handlers that libp2p starts: Service waits for those.
package protocols
