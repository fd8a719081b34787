package protocols

import (
	p2pv1 "vixp2p/proto/vix/p2p/v1"
	"vixp2p/replication"
)

// BootNonce is drawn when a process starts: it tells a restarted peer from one
// that dialled twice.
type BootNonce [16]byte

// Hello is the dialer's first message (design 7.2).
type Hello struct {
	Nonce       [32]byte
	NetTag      [32]byte
	Instance    replication.Instance
	Boot        BootNonce
	Attempt     uint64 // counts the handshakes that this process began, from 1
	BlockFormat uint32 // the newest block format that the sender reads
	Features    []string
	SentMS      uint64 // the sender's clock, Unix milliseconds
}

// HelloAck is the responder's answer.
type HelloAck struct {
	Nonce       [32]byte
	NetTag      [32]byte
	Instance    replication.Instance
	Boot        BootNonce
	BlockFormat uint32
	Features    []string
	SentMS      uint64
}

// HelloFinish is what the dialer shows to a member.
type HelloFinish struct {
	Certificate []byte // empty in an open network
	Label       string
	Spaces      []replication.SpaceInfo
	Agent       string // program and version
	SentMS      uint64
}

// Welcome is what the responder shows to a member that it accepts.
type Welcome struct {
	Certificate []byte
	Label       string
	Spaces      []replication.SpaceInfo
	Agent       string
}

func (m *Hello) toWire() *p2pv1.Hello {
	return &p2pv1.Hello{
		Nonce: m.Nonce[:], NetTag: m.NetTag[:], Instance: m.Instance[:], BootNonce: m.Boot[:],
		Attempt: m.Attempt, BlockFormat: m.BlockFormat, Features: m.Features, SentMs: m.SentMS,
	}
}

func (d *decoder) hello() any {
	var w p2pv1.Hello
	d.unmarshal(&w)
	m := &Hello{
		Attempt: w.GetAttempt(), BlockFormat: d.blockFormat(w.GetBlockFormat()),
		Features: d.features(w.GetFeatures()), SentMS: w.GetSentMs(),
	}
	d.id("nonce", m.Nonce[:], w.GetNonce())
	d.id("net_tag", m.NetTag[:], w.GetNetTag())
	d.id("instance", m.Instance[:], w.GetInstance())
	d.id("boot_nonce", m.Boot[:], w.GetBootNonce())
	if m.Attempt == 0 {
		d.failf("attempt 0")
	}
	return m
}

func (m *HelloAck) toWire() *p2pv1.HelloAck {
	return &p2pv1.HelloAck{
		Nonce: m.Nonce[:], NetTag: m.NetTag[:], Instance: m.Instance[:], BootNonce: m.Boot[:],
		BlockFormat: m.BlockFormat, Features: m.Features, SentMs: m.SentMS,
	}
}

func (d *decoder) helloAck() any {
	var w p2pv1.HelloAck
	d.unmarshal(&w)
	m := &HelloAck{
		BlockFormat: d.blockFormat(w.GetBlockFormat()),
		Features:    d.features(w.GetFeatures()), SentMS: w.GetSentMs(),
	}
	d.id("nonce", m.Nonce[:], w.GetNonce())
	d.id("net_tag", m.NetTag[:], w.GetNetTag())
	d.id("instance", m.Instance[:], w.GetInstance())
	d.id("boot_nonce", m.Boot[:], w.GetBootNonce())
	return m
}

func (m *HelloFinish) toWire() *p2pv1.HelloFinish {
	return &p2pv1.HelloFinish{
		Certificate: m.Certificate, Label: m.Label, Spaces: spacesToWire(m.Spaces), Agent: m.Agent, SentMs: m.SentMS,
	}
}

func (d *decoder) helloFinish() any {
	var w p2pv1.HelloFinish
	d.unmarshal(&w)
	return &HelloFinish{
		Certificate: d.certificate(w.GetCertificate()),
		Label:       d.text("label", w.GetLabel(), MaxLabelBytes),
		Spaces:      d.spaces(w.GetSpaces()),
		Agent:       d.text("agent", w.GetAgent(), MaxAgentBytes),
		SentMS:      w.GetSentMs(),
	}
}

func (m *Welcome) toWire() *p2pv1.Welcome {
	return &p2pv1.Welcome{
		Certificate: m.Certificate, Label: m.Label, Spaces: spacesToWire(m.Spaces), Agent: m.Agent,
	}
}

func (d *decoder) welcome() any {
	var w p2pv1.Welcome
	d.unmarshal(&w)
	return &Welcome{
		Certificate: d.certificate(w.GetCertificate()),
		Label:       d.text("label", w.GetLabel(), MaxLabelBytes),
		Spaces:      d.spaces(w.GetSpaces()),
		Agent:       d.text("agent", w.GetAgent(), MaxAgentBytes),
	}
}

func (d *decoder) blockFormat(v uint32) uint32 {
	if v == 0 {
		d.failf("block format 0")
	}
	return v
}

func (d *decoder) features(names []string) []string {
	d.count("features", len(names), 0, MaxFeatures)
	for _, n := range names {
		if n == "" {
			d.failf("a feature without a name")
		}
		d.text("feature", n, MaxFeatureBytes)
	}
	return names
}

func (d *decoder) certificate(b []byte) []byte {
	if len(b) > MaxCertificate {
		d.failf("a certificate of %d bytes, more than %d", len(b), MaxCertificate)
	}
	return b
}

func spacesToWire(spaces []replication.SpaceInfo) []*p2pv1.Space {
	out := make([]*p2pv1.Space, len(spaces))
	for i := range spaces {
		out[i] = &p2pv1.Space{Id: spaces[i].ID[:], Name: spaces[i].Name}
	}
	return out
}

func (d *decoder) spaces(w []*p2pv1.Space) []replication.SpaceInfo {
	d.count("spaces", len(w), 0, MaxHelloSpaces)
	if d.err != nil || len(w) == 0 {
		return nil
	}
	out := make([]replication.SpaceInfo, len(w))
	for i, s := range w {
		d.known(s)
		d.id("space", out[i].ID[:], s.GetId())
		out[i].Name = d.text("name", s.GetName(), replication.MaxSpaceNameBytes)
	}
	return out
}
