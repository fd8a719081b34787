// Package trust decides who belongs to a network, and who may do what in it
// (design 9). It is pure: no goroutine, clock, disk, socket or random number that
// is not passed in.
//
// What is said about trust is said in control logs: ordinary logs in a reserved
// space that every member replicates before data. Their operations are
// statements, and the trust state is a function of the set of them:
//
//	root key ----- logs of one block each ---+
//	  |                                      |     Evaluate      +--> CheckPeer, MayCarry, MayRead   (sessions)
//	  | certifies and revokes                +--> (by strata) -> State
//	  v                                      |                   +--> LogLimit, MayWrite             (logs)
//	admins ------- control logs, cut --------+                   +--> Members, Invites, Spaces, Keys
//	  |
//	  | certify, invite and revoke
//	  v
//	members (writers, readers, relays): say nothing here
//
// A certificate binds a peer's key, in one generation, to roles. It is signed
// apart from the log in which it is stated, so that it can arrive before it:
//
//	certificate = { 1 body, 2 signature by the issuer over "vix/cert/1\0" | SHA-256(body) }
//	chain       = { 1 generation, 2 certificate, 3 the issuing admin's certificate }
//
// Hello shows a chain, and the genesis block of each log holds one as its grant.
// A certificate counts if the root issued it, or an admin who was not revoked, or
// one who was and whose control log had stated it before the cut.
//
// All that is signed or stated is in the canonical subset of protobuf's format
// (package replication/canonical), bounded, and either as the format says or
// void; docs/wire.md has the fields.
//
//	role.go        roles and grants
//	certificate.go certificates
//	chain.go       a certificate and what proves its issuer
//	statement.go   what operations of control logs say; ControlLog
//	invite.go, revocation.go, space.go   the other statements
//	rootblock.go   how the root states something
//	evaluate.go    control logs -> State
//	state.go       State: what counts and what stands
//	access.go      ... of peers, spaces and logs
//	member.go      ... of members
//	invites.go     ... of invites
//	digest.go      State as one hash
//	ticket.go, join.go   how a peer gets its first certificate
//	errors.go      sentinels
package trust
