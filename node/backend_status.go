package node

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"vixp2p/node/localapi"
)

func (b backend) Status(ctx context.Context) (localapi.Status, error) {
	st, err := b.n.Status(ctx)
	if err != nil {
		return localapi.Status{}, apiError(err)
	}
	out := localapi.Status{
		PeerID: st.PeerID, Label: st.Label, Instance: st.Instance, Network: st.Network,
		Listen: slices.AppendSeq([]string{}, slices.Values(st.Listen)), Durability: st.Durability.String(), // [] rather than null
		Peers: []localapi.Peer{}, Counters: apiCounters(&st.Counters), Spaces: map[string]localapi.Space{},
		NetworkName: st.NetworkName, DataDir: st.DataDir, Offline: st.Offline, MaxRate: st.MaxRate, Started: apiTime(st.Started),
		Recovered: st.Recovered, Lost: st.Lost, Repairs: st.Repairs, Copies: st.Copies,
	}
	slices.Sort(out.Listen) // IPv4 and TCP first, whatever the order of the interfaces
	for i := range st.Peers {
		out.Peers = append(out.Peers, apiPeer(&st.Peers[i]))
	}
	for _, e := range st.Endpoints {
		out.Endpoints = append(out.Endpoints, localapi.Endpoint{
			Endpoint: e.Endpoint, Failures: e.Failures, LastError: e.Error, NextDial: apiTime(e.Next),
			Sources: slices.AppendSeq([]string{}, slices.Values(e.Sources)), PeerID: e.PeerID,
		})
	}
	for _, d := range st.Damage {
		out.Damage = append(out.Damage, fmt.Sprintf("%s: %s", d.File, d.Problem))
	}
	for name, s := range st.Spaces {
		out.Spaces[name] = localapi.Space{
			Ops: s.Ops, Bytes: s.Bytes, Keys: s.Keys, Conflicts: s.Conflicts, Logs: s.Logs,
			FrontierDigest: s.FrontierDigest, ViewDigest: s.ViewDigest,
			ForkedLogs: s.ForkedLogs, ViewError: s.ViewError, Sealed: s.Sealed, SetAside: s.SetAside,
		}
	}
	out.Sync, out.Discovery = apiSync(st.Sync), apiDiscovery(&st.Discovery)
	out.Messages, out.Routes = apiMessages(st.Messages), apiRoutes(st.Routes)
	out.Membership = apiMembership(st.Membership)
	if st.Reach != nil {
		out.Reach = apiReach(st.Reach)
	}
	return out, nil
}

func apiReach(r *ReachStatus) *localapi.Reach {
	out := &localapi.Reach{
		Reachability: r.Reachability, Confirmed: r.Confirmed, Advertised: r.Advertised,
		AutoNAT: r.AutoNAT, RelayClient: r.RelayClient, HolePunching: r.HolePunching, PortMapping: r.PortMapping,
		Punched: r.Punched, PunchFailed: r.PunchFailed, Gateway: r.Gateway, Mapped: r.Mapped,
	}
	for _, p := range r.Relays {
		out.Relays = append(out.Relays, localapi.Relay{
			Relay: p.Relay, PeerID: p.PeerID, Until: apiTime(p.Until),
			Addrs:      append([]string{}, p.Addrs...), // [] rather than null
			LimitBytes: p.LimitBytes, LimitS: p.LimitDuration.Seconds(), Error: p.Error,
		})
	}
	if s := r.Service; s != nil {
		out.Service = &localapi.RelayService{
			Reservations: s.Reservations, Circuits: s.Circuits, CircuitsTotal: s.CircuitsTotal, Bytes: s.Bytes, Refused: s.Refused,
			MaxReservations: s.Limits.Reservations, MaxCircuits: s.Limits.Circuits, MaxBytes: s.Limits.Data, MaxS: s.Limits.Duration.Seconds(),
		}
	}
	return out
}

// APITotals are a node's totals in the form of the local API.
func APITotals(ctx context.Context, n *Node) (localapi.Totals, error) {
	t, err := n.Totals(ctx)
	return localapi.Totals{
		Counters: apiCounters(&t.Counters), Ops: t.Ops, Pending: t.PendingOps,
		Label: n.cfg.Label, Durability: n.cfg.Durability.String(), Settled: t.Settled, Ended: t.Ended, Damaged: t.Damaged, Sync: apiSync(t.Sync),
	}, apiError(err)
}

func apiDiscovery(d *DiscoveryStatus) *localapi.Discovery {
	out := &localapi.Discovery{LAN: localapi.LAN{
		On: d.LAN.On, Why: d.LAN.Why, Service: d.LAN.Service, Links: d.LAN.Links,
		Peers: d.LAN.Peers, LastHeard: apiTime(d.LAN.LastHeard),
	}, DHT: localapi.DHT{
		Mode: string(d.DHT.Mode), Why: d.DHT.Why, Table: d.DHT.Table,
		Found: d.DHT.Found, LastLookup: apiTime(d.DHT.Lookup), LastError: d.DHT.Error,
	}}
	if r := &d.Registry; r.On {
		out.Registry = &localapi.Registry{
			URL: r.URL, Announced: r.Announced, Why: r.Why, LastSuccess: apiTime(r.LastSuccess),
			LastError: r.LastError, Failures: r.Failures, Next: apiTime(r.Next), Peers: r.Peers,
		}
	}
	return out
}

// apiSync is nil where nothing is missing.
func apiSync(s SyncProgress) *localapi.Sync {
	if s.Total == 0 {
		return nil
	}
	out := &localapi.Sync{Done: s.Done, Total: s.Total, Percent: s.Percent(), RemainingS: -1}
	if s.Remaining >= 0 {
		out.RemainingS = s.Remaining.Seconds()
	}
	return out
}

func apiCounters(c *Counters) localapi.Counters {
	return localapi.Counters{
		PeersTotal: uint64(c.PeersTotal), PeersConnected: uint64(c.PeersConnected),
		HandshakesStarted: c.HandshakesStarted, HandshakesCompleted: c.HandshakesCompleted,
		ConnectAttempts: c.ConnectAttempts, ConnectDeduped: c.ConnectDeduped,
		ConnectFailures: c.ConnectFailures, BackoffSkips: c.BackoffSkips,
		TrackedEndpoints: uint64(c.TrackedEndpoints),
	}
}

func apiPeer(p *PeerStatus) localapi.Peer {
	out := localapi.Peer{
		PeerID: p.PeerID, Label: p.Label, State: string(p.State), Direction: p.Direction, Addr: p.Addr,
		RTTMillis:  float64(p.RTT.Microseconds()) / 1000,
		PendingOps: p.PendingOps, PendingBytes: p.PendingBytes, MissingOps: p.MissingOps,
		LastAck: apiTime(p.LastAck), Settled: p.Settled, Durability: p.Durability, LastError: p.LastError,
		Copies: p.Copies, SkewMillis: p.Skew.Milliseconds(), Relayed: p.Relayed, PutOutUntil: apiTime(p.PutOut),
	}
	for _, l := range p.Paused {
		side := "the peer refuses: "
		if l.Here {
			side = "refused here: "
		}
		out.Paused = append(out.Paused, localapi.Paused{Space: l.Space, Log: l.Log, Why: side + l.Why})
	}
	for name, s := range p.Spaces {
		out.Spaces = append(out.Spaces, localapi.Flow{
			Space: name, PendingOps: s.PendingOps, PendingBytes: s.PendingBytes, MissingOps: s.MissingOps, Settled: s.Settled, Why: s.Why,
		})
	}
	slices.SortFunc(out.Spaces, func(a, b localapi.Flow) int { return strings.Compare(a.Space, b.Space) })
	return out
}
