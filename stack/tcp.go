package stack

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	netstack "gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/waiter"

	"sixgate/stack/endpoint"
)

// keepAlive finds a client that is gone in about 7 minutes, while one that
// only sleeps for a moment keeps its connections.
var keepAlive = net.KeepAliveConfig{Enable: true, Idle: time.Minute, Interval: 75 * time.Second, Count: 5}

// handshake is how long a client may take to answer a SYN-ACK, which netstack
// sends at 0, 1, 3 and 7 s: less fails clients of a machine with too much to
// do. By itself it would go on for two minutes, in which a SYN with a forged
// source holds a request and a connection to the far host.
const handshake = 15 * time.Second

// lastWords is how long a client may take nothing of what a connection still
// held for it when it was closed. Netstack would ask a client that answers for
// ever; Linux gives up on such orphans after about as long (tcp_orphan_retries).
const lastWords = time.Minute

// tcpSide turns SYNs into requests.
type tcpSide struct {
	*Stack
	network   *netstack.Stack
	errs      *teller
	forwarder *tcp.Forwarder

	mu      sync.Mutex // guards what follows
	pending map[netstack.TransportEndpointID]*TCPRequest
	lent    map[netstack.TransportEndpointID]chan<- uint8 // the kernel's, see lend
	quota   quota                                         // of pending requests, and of closed connections that linger
}

func newTCPSide(ctx context.Context, s *Stack, network *netstack.Stack, errs *teller) *tcpSide {
	t := &tcpSide{
		Stack:   s,
		network: network,
		errs:    errs,
		pending: make(map[netstack.TransportEndpointID]*TCPRequest),
		lent:    make(map[netstack.TransportEndpointID]chan<- uint8),
		quota:   newQuota(s.config.MaxPending, s.config.MaxPendingPerClient),
	}
	// The quota is the bound: the forwarder's own knows no clients.
	t.forwarder = tcp.NewForwarder(network, s.share.bufferDefault, math.MaxInt, func(syn *tcp.ForwarderRequest) {
		t.serve(ctx, syn)
	})
	return t
}

// handle takes a segment that belongs to no connection. Where it is false,
// netstack answers with an RST.
func (t *tcpSide) handle(id netstack.TransportEndpointID, pkt *netstack.PacketBuffer) bool {
	if t.kernels(id, pkt) {
		return true
	}
	if !isSYN(header.TCP(pkt.TransportHeader().Slice()).Flags()) {
		return false
	}
	r := &TCPRequest{side: t, id: id, quote: quote(pkt)}
	if !t.config.Handler.Admit("tcp", r.Client(), r.Dest()) {
		t.counters.tcpUnknown.Add(1)
		return false
	}
	if repeated, full := t.hold(r); repeated || full {
		if full {
			t.counters.tcpOverLimit.Add(1)
		}
		return true // in silence: the client repeats its SYN
	}
	if !t.running.begin() {
		t.release(r)
		return false
	}
	if !t.forwarder.HandlePacket(id, pkt) { // a wrong checksum
		t.running.end()
		t.release(r)
		return false
	}
	t.counters.tcpRequests.Add(1)
	return true
}

// hold makes r a pending request, unless there is one of the same connection
// or there are too many.
func (t *tcpSide) hold(r *TCPRequest) (repeated, full bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, ok := t.pending[r.id]; ok {
		return true, false
	}
	if !t.quota.take(r.Client().Addr()) {
		return false, true
	}
	t.pending[r.id] = r
	return false, false
}

// release is the end of r's being pending.
func (t *tcpSide) release(r *TCPRequest) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.pending, r.id)
	t.quota.give(r.Client().Addr())
}

// linger lets the last bytes of r's connection, which is closed, reach the
// client. They are in no handler's care any more, so they take the place of a
// request: where the client has none left, it gets an RST.
func (t *tcpSide) linger(r *TCPRequest) {
	if !r.lingers() {
		return
	}
	client := r.Client().Addr()
	t.mu.Lock()
	ok := t.quota.take(client)
	t.mu.Unlock()
	if !ok {
		t.counters.tcpCutOff.Add(1)
		r.ep.Abort()
		return
	}
	give := sync.OnceFunc(func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.quota.give(client)
	})
	patience := tcpip.TCPUserTimeoutOption(lastWords)
	r.ep.SetSockOpt(&patience) // cannot fail
	gone := waiter.NewFunctionEntry(waiter.EventHUp, func(waiter.EventMask) { give() })
	r.queue.EventRegister(&gone)
	if !r.lingers() { // any more
		give()
	}
}

// lingers reports whether r's connection has ended, but the client has not
// acknowledged all of it.
func (r *TCPRequest) lingers() bool {
	switch tcp.EndpointState(r.ep.State()) {
	case tcp.StateFinWait1, tcp.StateClosing, tcp.StateLastAck:
		return true
	}
	return false
}

// serve runs the handler for the request that syn began.
func (t *tcpSide) serve(ctx context.Context, syn *tcp.ForwarderRequest) {
	defer t.running.end()
	t.mu.Lock()
	r := t.pending[syn.ID()]
	t.mu.Unlock()
	r.syn = syn
	t.config.Handler.ServeTCP(ctx, r)
	t.takeBack(r)
	r.Refuse(syscall.ECONNREFUSED)
	if r.conn != nil {
		r.conn.Close()
		t.linger(r)
	}
}

// reopen lets a client use a connection's ports again while netstack holds it
// in TIME_WAIT: netstack would hand the SYN to a listening endpoint only, and
// there is none. RFC 6191 would have the sequence number checked, which
// netstack does not show; an old duplicate of a SYN costs one dial.
func (t *tcpSide) reopen(p packet) {
	id := netstack.TransportEndpointID{
		LocalPort:  binary.BigEndian.Uint16(p.payload[2:]),
		RemotePort: binary.BigEndian.Uint16(p.payload),
	}
	if p.network == header.IPv4ProtocolNumber {
		ip := header.IPv4(p.bytes)
		id.LocalAddress, id.RemoteAddress = ip.DestinationAddress(), ip.SourceAddress()
	} else {
		ip := header.IPv6(p.bytes)
		id.LocalAddress, id.RemoteAddress = ip.DestinationAddress(), ip.SourceAddress()
	}
	t.abort(id, tcp.StateTimeWait)
}

// abort ends a connection, if it is in a state.
func (t *tcpSide) abort(id netstack.TransportEndpointID, state tcp.EndpointState) {
	network := endpoint.Network(endpoint.AddrPort(id.LocalAddress, id.LocalPort).Addr())
	ep, ok := t.network.FindTransportEndpoint(network, tcp.ProtocolNumber, id, nic).(*tcp.Endpoint)
	if !ok {
		return
	}
	ep.LockUser() // netstack acknowledges a FIN before it changes the state
	current := ep.EndpointState()
	ep.UnlockUser()
	if current == state {
		ep.Abort()
	}
}

// TCPRequest is a connection that a client asks for: a SYN without an answer.
type TCPRequest struct {
	side     *tcpSide
	id       netstack.TransportEndpointID
	quote    []byte // of the SYN
	syn      *tcp.ForwarderRequest
	answered atomic.Bool

	// The connection, once accepted.
	conn  *endpoint.TCP // nil until then
	ep    tcpip.Endpoint
	queue waiter.Queue // of ep
}

// Client returns where the SYN came from.
func (r *TCPRequest) Client() netip.AddrPort {
	return endpoint.AddrPort(r.id.RemoteAddress, r.id.RemotePort)
}

// Dest returns where the SYN went to.
func (r *TCPRequest) Dest() netip.AddrPort {
	return endpoint.AddrPort(r.id.LocalAddress, r.id.LocalPort)
}

// errAnswered is a second answer to one request.
var errAnswered = errors.New("already answered")

// Accept sends the SYN-ACK and waits for the client. The connection's
// addresses are Dest and Client: a client of a fake address never learns
// bound, the address that speaks for it. An RST of the client is a read error,
// ECONNRESET, and a FIN is io.EOF. Like net.TCPConn, the connection has
// CloseWrite() error and SetLinger(sec int) error, and is an io.WriterTo and
// io.ReaderFrom: io.Copy between it and a kernel's socket holds no buffer while
// nothing moves.
func (r *TCPRequest) Accept(bound netip.AddrPort) (net.Conn, error) {
	if r.side.running.ending() {
		r.Refuse(net.ErrClosed)
		return nil, r.errorf(net.ErrClosed)
	}
	if r.answered.Swap(true) {
		return nil, r.errorf(errAnswered)
	}
	defer r.side.release(r)
	abandon := time.AfterFunc(handshake, r.abandon)
	ep, terr := r.syn.CreateEndpoint(&r.queue)
	abandon.Stop()
	r.syn.Complete(false)
	if terr != nil {
		r.side.counters.tcpAbandoned.Add(1)
		return nil, r.errorf(endpoint.Errno(terr))
	}
	r.quote = nil // no ICMP message will need it
	r.side.counters.tcpAccepted.Add(1)
	r.ep, r.conn = ep, endpoint.NewTCP(ep, &r.queue, r.Dest(), r.Client())
	if err := r.conn.SetKeepAliveConfig(keepAlive); err != nil {
		r.conn.Close()
		return nil, r.errorf(err)
	}
	return r.conn, nil
}

// abandon ends a handshake that the client does not.
func (r *TCPRequest) abandon() { r.side.abort(r.id, tcp.StateSynRecv) }

func (r *TCPRequest) errorf(err error) error {
	return fmt.Errorf("accepting %s for %s: %w", r.Client(), r.Dest(), err)
}

// Refuse answers the SYN with an ICMP message where one means the same as err,
// and with an RST otherwise. It does nothing after an answer.
func (r *TCPRequest) Refuse(err error) {
	if r.answered.Swap(true) {
		return
	}
	told := false
	if why, ok := reasonOf(err); ok {
		told = r.side.errs.tell(r.Dest().Addr(), r.Client().Addr(), why, r.quote)
	}
	r.syn.Complete(!told)
	r.side.release(r)
	r.side.counters.tcpRefused.Add(1)
}
