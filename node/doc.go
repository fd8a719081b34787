// Package node is the offline-first peer-to-peer node as a library, and the
// composition root of the program: it opens a data directory, starts a libp2p
// host, finds and keeps sessions with peers, and offers spaces to read and
// write.
//
//	n, err := node.Open(ctx, node.Config{DataDir: dir, Label: "A"})
//	s := n.Space("default")
//	w, err := s.Put(ctx, "user/1", value)  // durable here when it returns
//	err = w.WaitReplicated(ctx, 2)         // two more members hold it durably
//
// What belongs to whom:
//
//	config.go     Config, its defaults and its checks
//	datadir.go    the data directory: format, network for life, default place
//	identity.go   the Ed25519 key file
//	address.go    the forms of --listen and --connect
//	host.go       the libp2p host: transports, limits, listening
//	guard.go      when an endpoint may be dialled (pure)
//	dialer.go     one dialer for all sources of addresses
//	session.go    handshakes, duplicate sessions, attaching to the replicator
//	peers.go      what is known of each peer
//	spaces.go     which spaces exist here, and their names
//	space.go      Put, Get, Delete, List, Append of one space
//	watch.go      Watch and Tail
//	status.go     what `status` shows, waiting, progress
//	node.go       Open and Close
package node
