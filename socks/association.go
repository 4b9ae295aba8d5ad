package socks

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"sixgate/socks/datagram"
)

// Association is the relay of a UDP ASSOCIATE (RFC 1928, section 7): the
// client's side of it. It ends with the connection that asked for it.
type Association struct {
	control net.Conn
	relay   *datagram.Socket
	server  *Server
	client  netip.Addr                 // unmapped, without zone: the relay is on the client's own link
	port    atomic.Uint32              // of client, once it has sent something; 0 before
	take    func(datagram.Batch, Addr) // stands before anything comes in
	ended   sync.WaitGroup

	mu   sync.Mutex
	done chan struct{} // closed under mu, with the relay
}

// Associate opens a relay on the address that the client has connected to, and
// tells the client of it. The caller is to close the Association.
func (r *Request) Associate() (*Association, error) {
	local, ok := r.conn.LocalAddr().(*net.TCPAddr)
	peer, ok2 := r.conn.RemoteAddr().(*net.TCPAddr)
	if !ok || !ok2 {
		return nil, fmt.Errorf("opening a UDP relay beside %v: %w", r.conn.LocalAddr(), syscall.EAFNOSUPPORT)
	}
	a := &Association{
		control: r.conn, server: r.server, client: peer.AddrPort().Addr().Unmap().WithZone(""), done: make(chan struct{}),
	}
	at := local.AddrPort().Addr().Unmap()
	if err := a.open(at, r.server.Listening.Ports); err != nil {
		return nil, fmt.Errorf("opening a UDP relay: %w", WithErrno(err))
	}
	told := r.server.Listening.Told(netip.AddrPortFrom(at.WithZone(""), a.relay.LocalPort()))
	if err := r.reply(Succeeded, AddrFromAddrPort(told)); err != nil {
		a.shut()
		return nil, fmt.Errorf("answering SOCKS client %s: %w", r.Client(), WithErrno(err))
	}
	a.ended.Go(func() {
		io.Copy(io.Discard, a.control) // its end is all that it tells
		a.shut()
	})
	return a, nil
}

// open opens the relay at one of the ports.
func (a *Association) open(at netip.Addr, ports Ports) (err error) {
	family := unix.AF_INET
	if at.Is6() {
		family = unix.AF_INET6
	}
	a.relay, err = datagram.OpenSocket(family, 0, nil, a,
		datagram.Option{Level: unix.IPPROTO_UDP, Name: unix.UDP_GRO, Value: 1},
		datagram.Option{Level: unix.SOL_SOCKET, Name: unix.SO_RCVBUFFORCE, Value: datagram.Backlog})
	if err != nil {
		return err
	}
	if err = ports.Open(func(port uint16) error { return a.relay.Bind(netip.AddrPortFrom(at, port)) }); err != nil {
		a.relay.Close()
	}
	return err
}

// Forward makes the Association call take with what the client has sent and
// sends, and where that is to go, one call at a time. take must not wait, and is
// done with the payload when it returns. There is one Forward.
//
// Datagrams of others are dropped (RFC 1928, section 7), as are fragments and
// malformed ones; the port of the first that is none of these is the client's.
func (a *Association) Forward(take func(b datagram.Batch, dest Addr)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.take = take
	if !a.isShutLocked() && a.server.poller.Watch(a.relay) != nil {
		a.Broke()
	}
}

// Took takes what comes to the relay.
func (a *Association) Took(b datagram.Batch, from netip.AddrPort) {
	port := a.port.Load()
	if from.Addr() != a.client || port != 0 && uint32(from.Port()) != port {
		a.server.tally.strangers.Add(uint64(b.Count()))
		return
	}
	fragments, malformed := EachUnwrapped(b, func(b datagram.Batch, dest Addr) {
		if dest.Port == 0 {
			a.server.tally.malformed.Add(uint64(b.Count()))
			return
		}
		a.port.Store(uint32(from.Port()))
		a.take(b, dest)
	})
	a.server.tally.fragments.Add(uint64(fragments))
	a.server.tally.malformed.Add(uint64(malformed))
}

// Failed does nothing: that the client did not get a datagram is its own affair.
func (a *Association) Failed(*datagram.PathError) {}

// Broke ends the association.
func (a *Association) Broke() { a.control.SetReadDeadline(time.Unix(1, 0)) }

// Done is closed when nothing comes from the client any more.
func (a *Association) Done() <-chan struct{} { return a.done }

// Send sends the client what came from the address from. Before the client has
// sent something itself, nobody knows where to: it is dropped.
func (a *Association) Send(b datagram.Batch, from Addr) error {
	port := a.port.Load()
	if port == 0 {
		return nil
	}
	to := netip.AddrPortFrom(a.client, uint16(port))
	return EachWrapped(b, from, func(b datagram.Batch) error { return a.relay.Send(b, to) })
}

// shut closes the relay.
func (a *Association) shut() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.isShutLocked() {
		return
	}
	a.server.poller.Leave(a.relay)
	a.relay.Close()
	close(a.done)
}

func (a *Association) isShutLocked() bool {
	select {
	case <-a.done:
		return true
	default:
		return false
	}
}

// Close ends the association and the connection that asked for it.
func (a *Association) Close() error {
	err := a.control.Close()
	a.shut()
	a.ended.Wait()
	return err
}
