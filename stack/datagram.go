package stack

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
)

// datagramSide carries datagrams past netstack: UDP, and ICMP echo messages,
// whose identifier does what a client's port does in UDP.
type datagramSide struct {
	*Stack
	ctx  context.Context // of the flows
	link *link
	errs *teller
	next atomic.Uint32 // the next identification of a packet

	batches batches // of the goroutine that receives
	turns   *turns
	backlog *backlog

	mu     sync.Mutex // guards what follows
	flows  map[flowKey]*DatagramFlow
	lonely lonely
	quota  quota
}

// flowKey is what makes packets one flow. The port of an echo's client is the
// identifier, that of its destination 0.
type flowKey struct {
	protocol     tcpip.TransportProtocolNumber
	client, dest netip.AddrPort
}

func newDatagramSide(ctx context.Context, s *Stack, link *link, errs *teller) *datagramSide {
	side := &datagramSide{
		Stack:   s,
		ctx:     ctx,
		link:    link,
		errs:    errs,
		backlog: newBacklog(s.share.backlog),
		flows:   make(map[flowKey]*DatagramFlow),
		quota:   newQuota(s.config.MaxDatagramFlows, s.config.MaxDatagramFlowsPerClient),
	}
	side.turns = newTurns(side.start)
	return side
}

// Datagrams are one or more in one direction of a flow.
type Datagrams struct {
	Payload []byte // of a ping: what follows the identifier
	Size    int    // of each but the last, which may be shorter, in bytes; 0: there is one
	Port    uint16 // of the destination, where it answers from another than was asked; else 0
	TOS     uint8  // IPv4 type of service or IPv6 traffic class: DSCP and ECN
	TTL     uint8  // or hop limit
	Whole   bool   // they are not to be fragmented
}

// take takes p if it is a datagram, of which there are several where size is
// not 0. Checksums of a packet that is not verified are looked at.
func (s *datagramSide) take(p packet, verified bool, size int) bool {
	read := packet.readUDP
	switch {
	case p.transport == header.UDPProtocolNumber:
	case p.isEchoRequest():
		read = packet.readEcho
	default:
		return false
	}
	key, d, ok := read(p, verified)
	if !ok {
		s.counters.droppedMalformed.Add(1)
		return true
	}
	d.Size = size
	if f := s.flow(key); f != nil {
		s.hand(f, d)
	} else {
		s.begin(key, d, p.bytes)
	}
	return true
}

// flow returns the flow of this key, or nil.
func (s *datagramSide) flow(key flowKey) *DatagramFlow {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.flows[key]
}

// hand carries d, of f.
func (s *datagramSide) hand(f *DatagramFlow, d Datagrams) {
	if f.forwards() || !f.queue(d) {
		s.batches.add(f, d)
	}
}

// flush sends on what waits for more of its kind.
func (s *datagramSide) flush() { s.batches.flush() }

// BeginDatagrams begins a flow of UDP as if client had sent something to dest,
// for what comes from there uninvited. The client hears of it only when it is
// sent something. It is false where there is such a flow, or no room for one.
func (s *Stack) BeginDatagrams(client, dest netip.AddrPort) bool {
	side := s.datagrams.Load()
	return side != nil && side.beginUninvited(flowKey{header.UDPProtocolNumber, client, dest})
}

func (s *datagramSide) beginUninvited(key flowKey) bool {
	f := &DatagramFlow{side: s, key: key, uninvited: true}
	f.init(s.backlog, key.client.Addr())
	if !s.config.Handler.Admit(f.Network(), f.Client(), f.Dest()) {
		return false
	}
	if _, ok := s.hold(f); !ok {
		return false
	}
	s.counters.datagramFlows.Add(1)
	s.turns.join(f)
	return true
}

// begin begins a flow with d, which came in a packet that begins so, or tells
// the client why not.
func (s *datagramSide) begin(key flowKey, d Datagrams, packet []byte) {
	f := &DatagramFlow{side: s, key: key}
	f.init(s.backlog, key.client.Addr())
	if !s.config.Handler.Admit(f.Network(), f.Client(), f.Dest()) {
		s.counters.datagramUnknown.Add(1)
		s.errs.tell(f.Dest().Addr(), f.Client().Addr(), f.reasonOf(nil), packet)
		return
	}
	evicted, ok := s.hold(f)
	if other := s.flow(key); !ok && other != nil { // begun uninvited, a moment ago
		s.hand(other, d)
		return
	}
	if !ok {
		s.counters.datagramOverLimit.Add(1)
		s.errs.tell(f.Dest().Addr(), f.Client().Addr(), f.reasonOf(nil), packet)
		return
	}
	if evicted != nil {
		s.counters.datagramEvicted.Add(1)
		evicted.close()
	}
	s.counters.datagramFlows.Add(1)
	f.queue(d)
	s.turns.join(f)
}

// start has the handler serve f, unless all is about to end.
func (s *datagramSide) start(f *DatagramFlow) {
	if s.running.begin() {
		go s.serve(f)
	} else {
		f.close()
	}
}

// hold makes f a flow, in the place of another one if there are too many: of
// one that nobody has answered, as are those from forged sources. Nobody has to
// go for a client that has its share, or whose flows wait for their turn, nor
// for what is uninvited.
func (s *datagramSide) hold(f *DatagramFlow) (evicted *DatagramFlow, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	client := f.key.client.Addr()
	if s.flows[f.key] != nil || s.quota.spent(client) {
		return nil, false
	}
	if s.quota.full() {
		if evicted = s.lonely.first; evicted == nil || f.uninvited || s.turns.busy(client) {
			return nil, false
		}
		s.removeLocked(evicted)
	}
	s.quota.take(client) // succeeds after that
	s.flows[f.key] = f
	s.lonely.add(f)
	return evicted, true
}

// answered spares f the fate of those that nobody answers.
func (s *datagramSide) answered(f *DatagramFlow) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lonely.remove(f)
}

func (s *datagramSide) release(f *DatagramFlow) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.removeLocked(f)
}

// removeLocked does nothing to a flow that was evicted before.
func (s *datagramSide) removeLocked(f *DatagramFlow) {
	if s.flows[f.key] != f {
		return
	}
	delete(s.flows, f.key)
	s.lonely.remove(f)
	s.quota.give(f.key.client.Addr())
}

// close closes all flows.
func (s *datagramSide) close() {
	s.mu.Lock()
	flows := make([]*DatagramFlow, 0, len(s.flows))
	for _, f := range s.flows {
		flows = append(flows, f)
	}
	s.mu.Unlock()
	for _, f := range flows {
		f.close()
	}
}

// serve runs the handler for f.
func (s *datagramSide) serve(f *DatagramFlow) {
	defer s.running.end()
	s.config.Handler.ServeDatagrams(s.ctx, f)
	s.turns.leave(f)
	if !f.accepted.Load() {
		f.Refuse(syscall.ECONNREFUSED)
	}
	f.close()
}

// lonely lists the flows that nobody has answered, the oldest first.
type lonely struct{ first, last *DatagramFlow }

func (l *lonely) add(f *DatagramFlow) {
	f.lonely, f.before = true, l.last
	if l.last == nil {
		l.first = f
	} else {
		l.last.behind = f
	}
	l.last = f
}

// remove does nothing to a flow that is not in the list.
func (l *lonely) remove(f *DatagramFlow) {
	if !f.lonely {
		return
	}
	if f.before == nil {
		l.first = f.behind
	} else {
		f.before.behind = f.behind
	}
	if f.behind == nil {
		l.last = f.before
	} else {
		f.behind.before = f.before
	}
	f.lonely, f.before, f.behind = false, nil, nil
}

// DatagramFlow is the datagrams between one socket of a client and one
// destination: of UDP, or the echo messages of a ping.
type DatagramFlow struct {
	side      *datagramSide
	key       flowKey
	uninvited bool // the far end has begun it
	accepted  atomic.Bool
	refused   atomic.Bool
	replied   atomic.Bool

	batch *batch // what of it waits to be sent on, for the goroutine that receives; may be nil

	starting       bool          // guarded by side.turns.mu
	lonely         bool          // whether it is in the side's list; guarded by side.mu, like the next two
	before, behind *DatagramFlow // its neighbours there

	datagramQueue
}

// Network returns "udp", or "icmp" for a ping.
func (f *DatagramFlow) Network() string {
	if f.key.protocol == header.UDPProtocolNumber {
		return "udp"
	}
	return "icmp"
}

// Client returns where the datagrams come from; the port of a ping is its
// identifier.
func (f *DatagramFlow) Client() netip.AddrPort { return f.key.client }

// Dest returns where the datagrams go to; the port of a ping is 0.
func (f *DatagramFlow) Dest() netip.AddrPort { return f.key.dest }

// Accept returns the flow's socket, whose Read returns the
// first datagram, too. What it writes comes from Dest: a client of a fake
// address never learns bound, the address that speaks for it.
func (f *DatagramFlow) Accept(bound netip.AddrPort) (*DatagramConn, error) {
	if f.refused.Load() || f.accepted.Swap(true) {
		return nil, fmt.Errorf("accepting %s for %s: %w", f.Client(), f.Dest(), errAnswered)
	}
	f.side.turns.leave(f)
	return &DatagramConn{f}, nil
}

// Refuse ends the flow and answers with the ICMP message that means the same
// as err, port unreachable, or host unreachable for a ping, if there is none.
// It may follow Accept, since UDP destinations refuse late.
func (f *DatagramFlow) Refuse(err error) {
	if f.refused.Swap(true) {
		return
	}
	if !f.uninvited {
		f.report(err, f.first())
	}
	f.close()
	f.side.counters.datagramRefused.Add(1)
}

// report tells the client why what it sent, which began with payload, did not
// arrive.
func (f *DatagramFlow) report(err error, payload []byte) {
	from, why := f.key.dest.Addr(), f.reasonOf(err)
	if hop := offender(err, f.key.client.Addr(), f.side.config.Router); hop.IsValid() {
		from = hop
	}
	f.side.errs.tell(from, f.key.client.Addr(), why, f.quote(payload))
}

// reasonOf returns the reason that tells the client of err.
func (f *DatagramFlow) reasonOf(err error) reason {
	if why, ok := reasonOf(err); ok {
		return why
	}
	switch {
	case f.key.protocol == header.UDPProtocolNumber:
		return portUnreachable // what all systems tell programs of, as QUIC's that go on with TCP
	case errors.Is(err, syscall.EOPNOTSUPP):
		return prohibited
	}
	return hostUnreachable
}

// forward hands on what came in, or begins another flow with it where this one
// has just ended. Why it could not be sent is told to the client, but for a lack
// of room: that is a loss like any other. It is for the goroutine that receives.
func (f *DatagramFlow) forward(d Datagrams) {
	err := net.ErrClosed
	if take := f.take.Load(); take != nil {
		err = (*take)(d)
	}
	switch {
	case errors.Is(err, net.ErrClosed):
		f.close()
		f.side.begin(f.key, d, f.quote(d.Payload))
	case err != nil && !isCongestion(err):
		f.report(err, d.Payload)
	}
}

// close ends the flow.
func (f *DatagramFlow) close() {
	f.side.release(f)
	f.datagramQueue.close()
}
