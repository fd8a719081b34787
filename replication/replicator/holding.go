package replicator

import "vixp2p/replication"

// holding keeps what gives back the memory of received data for as long as the
// session or the store needs the data: that of a whole run until its commit is
// answered, that of pieces until their run is whole or given up, that of a proof of
// a fork until it was looked at.
type holding struct {
	current *heldData  // of the message that the session is being given
	pieces  []heldData // of the session's partial run
	bytes   int        // sum of pieces; invariant after settle: at most what the session keeps
}

type heldData struct {
	log     replication.LogID // zero: of no run
	first   bool              // the data is the start of its run
	bytes   int
	release func()
}

// arrived takes over the release of a message before the session sees it.
func (h *holding) arrived(msg replication.Message, release func()) {
	if release == nil {
		return
	}
	switch m := msg.(type) {
	case *replication.WalPush:
		h.current = &heldData{log: m.Log, first: m.Offset == 0, bytes: len(m.Data), release: release}
	case *replication.ForkProofMsg:
		h.current = &heldData{release: release}
	default:
		release()
	}
}

// handOver hands over what the current message holds.
func (h *holding) handOver() (release func()) {
	if h.current == nil {
		return func() {}
	}
	release = h.current.release
	h.current = nil
	return release
}

// committing hands over all that a run of the log holds, when it is committed.
func (h *holding) committing(log replication.LogID) (release func()) {
	var all []func()
	if h.current != nil && h.current.log == log {
		all = append(all, h.current.release)
		h.current = nil
	}
	if len(h.pieces) > 0 && h.pieces[0].log == log {
		for _, p := range h.pieces {
			all = append(all, p.release)
		}
		h.pieces, h.bytes = nil, 0
	}
	return func() {
		for _, f := range all {
			f()
		}
	}
}

// settle is called after the step: it gives back what the session dropped.
func (h *holding) settle(s *replication.Session) {
	if h.current == nil && len(h.pieces) == 0 {
		return
	}
	partial := s.Partial()
	d := h.current
	h.current = nil
	keep := d != nil && partial != nil && partial.Log == d.log
	startedAnew := keep && d.first && len(partial.Data) == d.bytes
	for len(h.pieces) > 0 && (partial == nil || startedAnew || h.pieces[0].log != partial.Log || h.bytes > len(partial.Data)) {
		h.pieces[0].release()
		h.bytes -= h.pieces[0].bytes
		h.pieces = h.pieces[1:]
	}
	switch {
	case d == nil:
	case keep && h.bytes+d.bytes <= len(partial.Data):
		h.pieces = append(h.pieces, *d)
		h.bytes += d.bytes
	default:
		d.release()
	}
}

func (h *holding) releaseAll() {
	if h.current != nil {
		h.current.release()
	}
	for _, p := range h.pieces {
		p.release()
	}
	*h = holding{}
}
