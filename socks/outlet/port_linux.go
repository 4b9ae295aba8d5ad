package outlet

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"

	"sixgate/socks"
	"sixgate/socks/datagram"
)

// PeerOutlet is an Outlet that tells all that it knows of datagrams, and to
// whose peers one port of a client is one port of the gateway (RFC 4787,
// section 4.1). It also pings, if it can.
type PeerOutlet interface {
	// Reach returns the way to dest of what client sends; network is "udp" or
	// "icmp". Its errors are those of Dial.
	Reach(ctx context.Context, network string, client netip.AddrPort, dest socks.Addr) (Peer, error)
}

// Peer is a far end of datagrams. It is heard by the port that was asked and,
// where no other Peer of the client is, by its other ports, too.
type Peer interface {
	// Send sends b, and never waits. An error may be a datagram.PathError.
	Send(b datagram.Batch) error
	// Forward makes the Peer call take with all that comes in, one call at a
	// time, and failed with what the network tells, by a datagram.PathError. Neither may
	// wait.
	Forward(take func(datagram.Batch) error, failed func(error))
	// Report does nothing: what a client could not take is not told.
	Report(error)
	// Done is closed with the Peer, or when its socket fails.
	Done() <-chan struct{}
	LocalAddr() net.Addr
	RemoteAddr() net.Addr
	Close() error
}

// PortsConfig says what ports may be used, and by whom.
type PortsConfig struct {
	// Control sets options of each socket, see net.Dialer. May be nil.
	Control func(network, address string, c syscall.RawConn) error
	// Reserved reports whether a port is none for a client. May be nil.
	Reserved func(port uint16) bool
	// Meet is told that the host at from, to which client has sent nothing, sends
	// it something by a port that client uses. It has the client Reach that host,
	// or is false, and never waits. nil: never (RFC 4787, section 5,
	// address-dependent filtering).
	Meet func(client, from netip.AddrPort) bool
}

// Ports are those of the host by which clients send datagrams, of one Direct or
// of several. A name that stands for the same address as another needs a second
// one: an answer tells only where it comes from.
type Ports struct {
	PortsConfig
	poller datagram.Poller

	mu     sync.Mutex
	opened map[netip.AddrPort][]*port // by client; guarded by mu
}

// NewPorts returns Ports.
func NewPorts(c PortsConfig) *Ports {
	return &Ports{PortsConfig: c, opened: make(map[netip.AddrPort][]*port)}
}

// port is one UDP port of the host.
type port struct {
	*datagram.Socket
	ports  *Ports
	client netip.AddrPort

	mu        sync.Mutex
	peers     map[netip.AddrPort]*peer     // guarded by mu
	hosts     map[netip.Addr]*peer         // one of each address in peers; guarded by mu
	strangers map[netip.AddrPort]*stranger // those of peers, and to be, that the client has sent nothing; nil: none yet; guarded by mu
}

// Reach returns a Peer.
func (d *Direct) Reach(ctx context.Context, network string, client netip.AddrPort, dest socks.Addr) (Peer, error) {
	p, err := d.reach(ctx, network, client, dest)
	if err != nil {
		return nil, fmt.Errorf("reaching %s: %w", dest, socks.WithErrno(err))
	}
	return p, nil
}

func (d *Direct) reach(ctx context.Context, network string, client netip.AddrPort, dest socks.Addr) (Peer, error) {
	ip, err := d.find(ctx, dest)
	if err != nil {
		return nil, err
	}
	if network == "icmp" {
		return d.Ports.ping(ip)
	}
	return d.Ports.reach(client, netip.AddrPortFrom(ip, dest.Port))
}

// lastSystemPort is the last one that a client's own port does not call for
// (RFC 6335, section 6): a server of this host may want it.
const lastSystemPort = 1023

// open returns a port for both families, the one that the client has where it
// is neither reserved nor taken. To hosts that the client knows the real addresses of,
// the kernel's NAT keeps that port, too, so that all see one.
func (ps *Ports) open(client netip.AddrPort) (*port, error) {
	o := &port{
		ports: ps, client: client,
		peers: make(map[netip.AddrPort]*peer), hosts: make(map[netip.Addr]*peer),
	}
	var err error
	if o.Socket, err = ps.socket(o); err != nil {
		return nil, err
	}
	err = unix.EADDRINUSE
	if own := client.Port(); own > lastSystemPort && (ps.Reserved == nil || !ps.Reserved(own)) {
		err = o.Bind(netip.AddrPortFrom(netip.Addr{}, own))
	}
	if err != nil {
		err = o.Bind(netip.AddrPort{})
	}
	if err == nil {
		err = ps.poller.Watch(o.Socket)
	}
	if err != nil {
		o.Close()
		return nil, err
	}
	return o, nil
}

// socket returns a socket for both families, as far as the host has them.
func (ps *Ports) socket(owner datagram.Owner) (s *datagram.Socket, err error) {
	options := []datagram.Option{
		{Level: unix.IPPROTO_UDP, Name: unix.UDP_GRO, Value: 1}, {Level: unix.SOL_IPV6, Name: unix.IPV6_V6ONLY, Value: 0},
		{Level: unix.SOL_SOCKET, Name: unix.SO_RCVBUFFORCE, Value: datagram.Backlog},
	}
	for _, family := range []int{unix.AF_INET6, unix.AF_INET} {
		s, err = datagram.OpenSocket(family, 0, ps.Control, owner, options...)
		if !errors.Is(err, unix.EAFNOSUPPORT) {
			break
		}
	}
	return s, err
}

// reach returns the Peer at remote of a client, by the first of the client's
// ports that has no other one there; best by one that has heard of it.
func (ps *Ports) reach(client, remote netip.AddrPort) (*peer, error) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	p := &peer{ports: ps, client: client, remote: remote, done: make(chan struct{})}
	ports := ps.opened[client]
	for _, port := range ports {
		if port.heard(remote) && port.add(p) {
			return p, nil
		}
	}
	for _, port := range ports {
		if port.add(p) {
			return p, nil
		}
	}
	port, err := ps.open(client)
	if err != nil {
		return nil, err
	}
	port.add(p)
	ps.opened[client] = append(ps.opened[client], port)
	return p, nil
}

// add makes p one of the port's, if there is no other at its address.
func (o *port) add(p *peer) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.peers[p.remote] != nil {
		return false
	}
	o.peers[p.remote] = p
	if o.hosts[p.remote.Addr()] == nil {
		o.hosts[p.remote.Addr()] = p
	}
	p.port, p.stranger = o, o.strangers[p.remote]
	p.known.Store(p.stranger == nil)
	return true
}

// remove returns whether p was the last one.
func (o *port) remove(p *peer) (last bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.peers, p.remote)
	o.knowLocked(p.remote)
	if o.hosts[p.remote.Addr()] != p {
		return len(o.peers) == 0
	}
	delete(o.hosts, p.remote.Addr())
	for remote, other := range o.peers {
		if remote.Addr() == p.remote.Addr() {
			o.hosts[remote.Addr()] = other
			break
		}
	}
	return len(o.peers) == 0
}

// Took hands what comes in to the peer that it comes from.
func (o *port) Took(b datagram.Batch, from netip.AddrPort) {
	p, same := o.find(from)
	if p == nil {
		o.meet(b, from)
		return
	}
	if !same {
		b.Port = from.Port()
	}
	p.hand(b)
}

// Failed hands e to the peer that it is about.
func (o *port) Failed(e *datagram.PathError) {
	if p, same := o.find(e.Dest()); same {
		p.fail(e)
	}
}

// Broke ends all peers.
func (o *port) Broke() {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, p := range o.peers {
		p.end()
	}
}

// find returns the peer at an address, or else one at another port there.
func (o *port) find(at netip.AddrPort) (p *peer, same bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if p := o.peers[at]; p != nil {
		return p, true
	}
	return o.hosts[at.Addr()], false
}

// peer is a Peer by UDP.
type peer struct {
	ports  *Ports
	port   *port
	client netip.AddrPort
	remote netip.AddrPort
	receiver
	stranger *stranger   // who it was before; nil: nobody
	known    atomic.Bool // the client has sent it something
	done     chan struct{}
	ended    sync.Once
	closed   sync.Once
}

func (p *peer) Send(b datagram.Batch) error {
	if !p.known.Load() && !p.known.Swap(true) {
		p.port.know(p.remote)
	}
	return p.port.Send(b, p.remote)
}

// Forward hands over first what p has sent as a stranger.
func (p *peer) Forward(take func(datagram.Batch) error, failed func(error)) {
	p.receiver.forward(take, failed, func() {
		for _, b := range p.port.waiting(p.stranger) {
			take(b)
		}
	})
}
func (p *peer) Done() <-chan struct{} { return p.done }
func (p *peer) LocalAddr() net.Addr   { return localAddr(p.port.LocalPort(), p.remote.Addr()) }
func (p *peer) RemoteAddr() net.Addr  { return net.UDPAddrFromAddrPort(p.remote) }
func (p *peer) end()                  { p.ended.Do(func() { close(p.done) }) }

// Close closes the port, too, where there is no other Peer.
func (p *peer) Close() (err error) {
	p.closed.Do(func() {
		p.stop()
		p.end()
		if p.ports.leave(p) {
			p.ports.poller.Leave(p.port.Socket)
			err = p.port.Socket.Close()
		}
	})
	return err
}

// leave removes p, and reports whether it was the last one of its port, which
// nobody finds any more then.
func (ps *Ports) leave(p *peer) (last bool) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	if !p.port.remove(p) {
		return false
	}
	forget(ps.opened, p.client, p.port)
	return true
}

// forget removes one of a client's ports from those that are open.
func forget[P comparable](opened map[netip.AddrPort][]P, client netip.AddrPort, port P) {
	left := slices.DeleteFunc(opened[client], func(o P) bool { return o == port })
	if opened[client] = left; len(left) == 0 {
		delete(opened, client)
	}
}

// localAddr returns the local address of an unconnected socket, in the family
// of who it talks to.
func localAddr(port uint16, remote netip.Addr) net.Addr {
	if remote.Is4() {
		return net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.IPv4Unspecified(), port))
	}
	return net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.IPv6Unspecified(), port))
}

// receiver is who gets what comes in, once there is somebody.
type receiver struct {
	mu      sync.Mutex
	take    func(datagram.Batch) error // nil: nobody; guarded by mu
	failing func(error)                // guarded by mu
}

func (r *receiver) Forward(take func(datagram.Batch) error, failed func(error)) {
	r.forward(take, failed, func() {})
}

// forward calls first before all else is handed over.
func (r *receiver) forward(take func(datagram.Batch) error, failed func(error), first func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.take, r.failing = take, failed
	first()
}

func (r *receiver) stop() { r.Forward(nil, nil) }

// Report does nothing.
func (r *receiver) Report(error) {}

func (r *receiver) hand(b datagram.Batch) {
	r.mu.Lock()
	take := r.take
	r.mu.Unlock()
	if take != nil {
		take(b) // what the client cannot get is lost
	}
}

func (r *receiver) fail(e *datagram.PathError) {
	r.mu.Lock()
	failed := r.failing
	r.mu.Unlock()
	if failed != nil {
		failed(e)
	}
}
