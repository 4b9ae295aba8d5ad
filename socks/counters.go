package socks

import "sync/atomic"

// Counters are what a server has refused or dropped since it was made, besides
// requests.
type Counters struct {
	NotAdmitted    uint64 // connections from sources that are not served
	Displaced      uint64 // handshakes that a newer one has taken the place of
	WrongPasswords uint64 // or names
	LockedOut      uint64 // tries to authenticate after too many of those
	Strangers      uint64 // datagrams to a relay that are not of its client
	Fragments      uint64 // of datagrams
	Malformed      uint64 // datagrams
}

// tally is what Counters are a snapshot of.
type tally struct {
	notAdmitted, displaced, wrongPasswords, lockedOut, strangers, fragments, malformed atomic.Uint64
}

// Counters returns a snapshot.
func (s *Server) Counters() Counters {
	t := &s.tally
	return Counters{
		NotAdmitted: t.notAdmitted.Load(), Displaced: t.displaced.Load(),
		WrongPasswords: t.wrongPasswords.Load(), LockedOut: t.lockedOut.Load(),
		Strangers: t.strangers.Load(), Fragments: t.fragments.Load(), Malformed: t.malformed.Load(),
	}
}
