package dnsfake

import "sync/atomic"

// Counters says how often a Server gave each kind of answer.
type Counters struct {
	Fake     uint64 // an address of the pool
	Real     uint64 // what the upstream servers say
	NoData   uint64
	NXDomain uint64
	ServFail uint64
	FormErr  uint64
	NotImp   uint64
	Refused  uint64
	Local    uint64 // positive, without asking anybody
	BadVers  uint64
	Dropped  uint64 // no answer: not a query, not a client, or too much at a time

	Loop         uint64 // of ServFail and Refused: upstream answered with a fake address, or asked us
	PoolFull     uint64 // of ServFail: no fake address was left
	TooManyNames uint64 // of ServFail: the client asks for too many new names
	Limited      uint64 // of Dropped: the client asks too much
}

// kind is a kind of answer.
type kind int

const (
	fake kind = iota
	real
	nodata
	nxdomain
	servfail
	formerr
	notimp
	refused
	local
	badvers
	dropped
	kinds
)

type tally struct {
	answers                               [kinds]atomic.Uint64
	loop, poolFull, tooManyNames, limited atomic.Uint64
}

// Counters returns the counts so far.
func (s *Server) Counters() Counters {
	n := func(k kind) uint64 { return s.tally.answers[k].Load() }
	return Counters{
		Fake: n(fake), Real: n(real), NoData: n(nodata), NXDomain: n(nxdomain),
		ServFail: n(servfail), FormErr: n(formerr), NotImp: n(notimp), Refused: n(refused),
		Local: n(local), BadVers: n(badvers), Dropped: n(dropped),
		Loop: s.tally.loop.Load(), PoolFull: s.tally.poolFull.Load(),
		TooManyNames: s.tally.tooManyNames.Load(), Limited: s.tally.limited.Load(),
	}
}
