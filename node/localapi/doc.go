// Package localapi is how commands and the running node of a data directory talk
// to each other: HTTP on loopback, with a token that only the directory's owner
// can read. It holds the JSON contract of the program (design 10), the server,
// the client, and the reader of bulk loads. It does not know package node: the
// server answers from a [Backend], and the [Client] is one too, so that a command
// works the same on a running node and on a directory that it opened itself.
//
//	command -> Backend = Client -> HTTP -> Server -> Backend = node adapter -> node
//	command -> Backend = node adapter -> node opened offline       (no node runs)
//
// # By hand
//
// The address and the token are two files of the data directory, mode 0600, there
// while the node runs:
//
//	curl -H "Authorization: Bearer $(cat DIR/api.token)" http://$(cat DIR/api.addr)/v1/status
//
// The routes; query parameters in brackets are optional, and every route about
// data takes space=NAME (default "default"):
//
//	GET    /v1/ping                                    {"ok","pong","peer_id","version"}
//	GET    /v1/status                                  as `status --json`
//	GET    /v1/peers                                   as `peers --json`, a line each
//	POST   /v1/connect     {"addr"}                    {"peer_id","addr"}
//	POST   /v1/disconnect  {"peer"}                    {"peer_id"}
//	GET    /v1/wait        [peers synced timeout_ms]   {"ok"} when it has come true
//	GET    /v1/kv          key [raw]                   an entry with its siblings; raw=1: the value's bytes
//	PUT    /v1/kv          key [replicas timeout_ms]   the body is the value; {"log","seq","replicas"}
//	DELETE /v1/kv          key [replicas timeout_ms]   {"log","seq","replicas"}
//	GET    /v1/keys        [prefix conflicts]          entries, a line each
//	GET    /v1/watch       [prefix from count]         events, a line each
//	GET    /v1/log         [from follow count]         operations, a line each
//	POST   /v1/log         kind [replicas timeout_ms]  the body is the payload; {"log","seq","replicas"}
//	POST   /v1/batch       [replicas timeout_ms]       lines {"op","key","value","kind","payload"}: one transaction
//	POST   /v1/verify      [rebuild]                   findings, a line each
//
// Answers of one object are application/json, those of many lines
// application/x-ndjson. A failure is {"error","code"} with a sentence for people
// and a stable word for programs ([Code]); in a stream that has begun it is the
// last line. A flag parameter is 1 or 0.
package localapi
