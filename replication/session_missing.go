package replication

// What the peer states and we do not hold, for Progress. It decides nothing but
// that an advance from elsewhere is not pushed to a peer that is ahead of it.

// want notes that the peer states a position beyond ours.
func (sp *spaceState) want(log LogID, have uint64, want Position) {
	m, ok := sp.missing[log]
	if ok {
		if want.Seq <= m.want.Seq {
			return
		}
		sp.missingOps += want.Seq - m.want.Seq
		m.want = want
		sp.missing[log] = m
		return
	}
	if have == 0 {
		if sp.missingUnknown == maxMissingUnknown {
			sp.missingMore += want.Seq
			return
		}
		sp.missingUnknown++
	}
	sp.missing[log] = missingLog{have: have, want: want}
	sp.missingOps += want.Seq - have
}

// got notes that we hold log up to seq now, and returns what the peer states of
// it if that was more than we held.
func (sp *spaceState) got(log LogID, seq, ops uint64, fromPeer bool) Position {
	m, ok := sp.missing[log]
	if !ok {
		if fromPeer {
			sp.missingMore -= min(ops, sp.missingMore)
		}
		return Position{}
	}
	if seq <= m.have {
		return m.want
	}
	if m.have == 0 {
		sp.missingUnknown--
	}
	if seq >= m.want.Seq {
		sp.missingOps -= m.want.Seq - m.have
		delete(sp.missing, log)
		return m.want
	}
	sp.missingOps -= seq - m.have
	m.have = seq
	sp.missing[log] = m
	return m.want
}

func (sp *spaceState) clearMissing() {
	clear(sp.missing)
	sp.missingUnknown, sp.missingOps, sp.missingMore = 0, 0, 0
}

// countsAsSynced tells whether a log that was refused is neither missing nor
// pending: one that forked, was cut or is not allowed ends there for good, as far as
// the side that refused it knows. What is refused for any other reason is still not
// held.
func countsAsSynced(refusal Code) bool {
	return refusal == CodeForked || refusal == CodeRevoked || refusal == CodeNotAllowed
}

// giveUp forgets that a log is missing.
func (sp *spaceState) giveUp(log LogID) {
	if m, ok := sp.missing[log]; ok {
		if m.have == 0 {
			sp.missingUnknown--
		}
		sp.missingOps -= m.want.Seq - m.have
		delete(sp.missing, log)
	}
}
