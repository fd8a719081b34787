// Package registry lets nodes find each other through a well-known HTTP server:
// the announcement that a node makes of itself, the server that keeps what was
// announced for a while, and the client that a node asks it with.
//
//	node -- POST /announce {who, where, signature} --> registry --> table (TTL)
//	node -- GET /peers?limit=20 --------------------> registry <-- random choice
//	     <- {"peers":[{"node_id","host","tcp_port","peer_id","addrs"}]}
//
// A registry is trusted with nothing. It learns peer IDs, addresses and which of
// them share a network ([NetworkTag]), no label and no name (G7). What it answers
// only gives a node addresses to try: who is there is proven by the handshake.
// What it is told it believes only as far as it can see: the host of a node is
// the address of its connection, and who names a peer ID signs (docs/wire.md, 13).
//
// The JSON is the original's, with members added; both sides work with clients
// and registries that know node_id, host and tcp_port alone. Both paths are also
// served under /p2p/v1, which is the original's base.
//
// Everything is bounded: the number of entries, in all and for one address; the
// rate of requests of one address; connections, bodies, and every wait.
package registry
