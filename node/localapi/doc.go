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
// while the node runs. curl reads the token from its standard input, so that it
// does not show in the list of processes:
//
//	printf 'header = "Authorization: Bearer %s"' "$(cat DIR/api.token)" |
//		curl -sS -K - "http://$(cat DIR/api.addr)/v1/status"
//
// # Who answers
//
// A node that was killed leaves both files behind, and another user of the
// machine may listen on its port since. So a [Client] sends neither the token nor
// anything else before the other side of the connection has proven that it knows
// the token:
//
//	GET /v1/prove?nonce=NONCE       {"proof","dir"}, the one route without a token
//
// NONCE is 32 to 128 characters that nobody can guess, new each time. The proof is
// HMAC-SHA-256 in hex of "vix/api/1 " and the nonce, with the text of api.token
// (without the line's end) as its key. It tells nothing about the token. "dir" is
// the same of "vix/api/1/directory ", the nonce, a space and an id of the data
// directory ("inode DEVICE NUMBER", or "path PATH" where there are none): a copy
// of a running node's directory has both files, and a Client of the copy does not
// take the original's node for its own.
//
// Whoever uses curl after a crash, on a machine with users that are not trusted,
// checks the proof first, or runs `vix-node status`, which does.
//
// # Routes
//
// Query parameters in brackets are optional, and every route about
// data takes space=NAME (default "default"):
//
//	GET    /v1/ping                                    {"ok","pong","peer_id","version"}
//	GET    /v1/status                                  as `status --json`
//	GET    /v1/peers                                   as `peers --json`, a line each
//	POST   /v1/connect     {"addr"}                    as `connect --json`
//	POST   /v1/disconnect  {"peer"}                    {"peer_id"}
//	POST   /v1/forget      {"peer"}                    {"peer_id"}
//	GET    /v1/wait        [peers synced timeout_ms]   {"ok"} when it has come true
//	GET    /v1/kv          key [raw]                   an entry with its siblings; raw=1: the value's bytes
//	PUT    /v1/kv          key [replicas timeout_ms]   the body is the value; {"log","seq","replicas"}
//	DELETE /v1/kv          key [replicas timeout_ms]   {"log","seq","replicas"}
//	GET    /v1/keys        [prefix conflicts]          entries, a line each
//	GET    /v1/watch       [prefix from count]         events, a line each
//	GET    /v1/log         [from follow count set_aside] operations, a line each; set_aside=1: those out of view
//	POST   /v1/log         kind [replicas timeout_ms]  the body is the payload; {"log","seq","replicas"}
//	POST   /v1/batch       [replicas timeout_ms]       lines {"op","key","value","kind","payload"}: one transaction
//	POST   /v1/send        {"peer","text",...}         {"id","to","delivered","expires"} when the recipient has it
//	GET    /v1/messages    [from follow count]         messages to this node, a line each
//	POST   /v1/verify      [rebuild]                   findings, a line each
//
// In a network of members; in an open one they fail with the code "usage":
//
//	GET    /v1/members                                 {"members":[...],"invites":[...]}, each as `members --json`
//	POST   /v1/invite      {"role",...}                as `invite --json`
//	POST   /v1/revoke      {"name"}                    as `revoke --json`
//	GET    /v1/spaces                                  {"spaces":[...]}, each as `space list --json`
//	POST   /v1/spaces      {"name"}                    as `space create --json`
//	GET    /v1/certificate [name]                      as `cert show --json`; without name this node's
//	POST   /v1/certificate {"peer",...}                as `cert export --json`
//
// An invite and a certificate further take "role", "spaces" (names), "label" and
// "valid_ns", an invite "expires_ns" and "addrs": what the flags of the commands say,
// with durations in nanoseconds; what is left out is as without the flag. Names of
// members are labels, peer IDs or their ends; revoke takes the key of an invite too.
//
// Answers of one object are application/json, those of many lines
// application/x-ndjson. A failure is {"error","code"} with a sentence for people
// and a stable word for programs ([Code]); in a stream that has begun it is the
// last line. A flag parameter is 1 or 0. early=1 of a write with replicas, and
// "early":true of send, make the answer two lines: one as soon as it is durable
// here, and one at the end of the wait. Of all but ping and prove at most 128 are
// answered at one time; one more gets the code "busy".
package localapi
