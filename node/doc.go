// Package node is the offline-first peer-to-peer node as a library, and the
// composition root of the program: it opens a data directory, starts a libp2p
// host, finds and keeps sessions with peers, and offers spaces to read and
// write.
//
//	n, err := node.Open(ctx, node.Config{DataDir: dir, Label: "A"})
//	s := n.Space("default")
//	w, err := s.Put(ctx, "user/1", value)  // durable here when it returns
//	err = w.WaitReplicated(ctx, 2)         // two members told this node that they hold it
//
// What belongs to whom:
//
//	config.go     Config, its defaults and its checks
//	datadir.go    the data directory: format, network for life, default place
//	identity.go   the Ed25519 key file; label.go: the label
//	address.go    the forms of --listen and --connect
//	host.go       the libp2p host: transports, limits, listening
//	connect.go    libp2p connections, to peers whose ID is not known yet too
//	guard.go      when an endpoint may be dialled (pure)
//	dialer.go     one dialer for all sources of addresses
//	targets.go    what is to be dialled: sources, limits, turns
//	discovery.go  who looks for peers; netwatch.go: changes of the network, sleep
//	lan.go        members on the LAN; dht.go, kad.go: members through members
//	addrbook.go   peers that once worked, over restarts
//	mesh.go       sessions with peers; handshake.go, session.go: their start, life and end
//	peers.go      what is known of each peer
//	engine.go     store, view and replicator as one; their repair after damage
//	budget.go     memory of what peers send, per session
//	spaces.go     which spaces exist here, and their names
//	space.go      Put, Get, Delete, List, Append, Batch of one space
//	watch.go      Watch; tail.go: Tail; setaside.go: what a cut took out of view
//	status.go     what `status` shows; progress.go: how far catching up is
//	control.go    Connect, Disconnect, Wait, Verify
//	metrics.go    the same for Prometheus
//	membership.go this node's part in a network of members: control logs -> trust -> store
//	trusting.go   ... and sessions; certfile.go: its files
//	found.go      Init; joining.go: Join; admin.go: Invite, Members, spaces
//	revoking.go   Revoke; certs.go: certificates and the root key by hand
//	node.go       Open and Close
//	backend.go    the node behind its local API (package localapi)
package node
