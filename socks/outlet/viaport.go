package outlet

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"syscall"

	"sixgate/socks"
	"sixgate/socks/datagram"
)

// viaPorts are the ports that clients have at the far end of a Via.
type viaPorts struct {
	mu     sync.Mutex
	opened map[netip.AddrPort][]*viaPort // by client; guarded by mu
}

// viaPort is one port at the far end: that of one UDP ASSOCIATE, which all
// destinations of a client's port share.
type viaPort struct {
	opened chan struct{}      // closed when conn and err stand
	cancel context.CancelFunc // ends the opening; of who is first, and set before that one leaves
	conn   *viaPackets
	err    error
	ended  sync.WaitGroup

	mu    sync.Mutex
	over  bool                        // nothing comes in any more; guarded by mu
	peers map[netip.AddrPort]*viaPeer // by address; guarded by mu
	names map[uint16]*viaPeer         // with names, by port; guarded by mu
	users map[uint16]int              // how many are in both, by port; guarded by mu
}

// Reach returns a Peer that all others of the client share one UDP ASSOCIATE
// with. A name needs another one where its port is in use: who it stands for
// is known to the last hop alone, so the port has to tell whose the answers are.
func (v *Via) Reach(ctx context.Context, network string, client netip.AddrPort, dest socks.Addr) (Peer, error) {
	if network != "udp" {
		return nil, fmt.Errorf("pinging %s through SOCKS server %s: %w", dest, v.client.Server, syscall.EOPNOTSUPP)
	}
	p := &viaPeer{via: v, client: client, dest: dest, done: make(chan struct{})}
	first := v.ports.join(p)
	port := p.port
	if first {
		go port.open(port.lasting(ctx), v)
	}
	select {
	case <-port.opened:
	case <-ctx.Done():
		p.Close()
		return nil, fmt.Errorf("reaching %s through SOCKS server %s: %w", dest, v.client.Server, socks.WithErrno(context.Cause(ctx)))
	}
	if port.err != nil {
		p.Close()
		return nil, fmt.Errorf("reaching %s through SOCKS server %s: %w", dest, v.client.Server, port.err)
	}
	return p, nil
}

// lasting returns a context for the opening, which may last as long as ctx may,
// that of who is first, but goes on for others where that one gives up.
func (o *viaPort) lasting(ctx context.Context) context.Context {
	lasting := context.WithoutCancel(ctx)
	if end, ok := ctx.Deadline(); ok {
		lasting, o.cancel = context.WithDeadline(lasting, end)
	} else {
		lasting, o.cancel = context.WithCancel(lasting)
	}
	return lasting
}

// open asks for the UDP ASSOCIATE.
func (o *viaPort) open(ctx context.Context, v *Via) {
	defer close(o.opened)
	if o.conn, o.err = v.listenPacket(ctx); o.err == nil {
		o.receive()
	} else {
		o.end()
	}
}

// join gives p the first of its client's ports where its answers can be told
// from others', and reports whether that is a new one, which p is to open.
func (vs *viaPorts) join(p *viaPeer) (first bool) {
	vs.mu.Lock()
	defer vs.mu.Unlock()
	for _, port := range vs.opened[p.client] {
		if port.add(p) {
			return false
		}
	}
	port := &viaPort{
		opened: make(chan struct{}), peers: make(map[netip.AddrPort]*viaPeer),
		names: make(map[uint16]*viaPeer), users: make(map[uint16]int),
	}
	port.add(p)
	vs.opened[p.client] = append(vs.opened[p.client], port)
	return true
}

// leave removes p, and reports whether it was the last one of its port, which
// nobody finds any more then.
func (vs *viaPorts) leave(p *viaPeer) (last bool) {
	vs.mu.Lock()
	defer vs.mu.Unlock()
	if !p.port.remove(p) {
		return false
	}
	forget(vs.opened, p.client, p.port)
	return true
}

// add makes p one of the port's, if it is open and what answers p answers
// nobody else.
func (o *viaPort) add(p *viaPeer) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	number := p.dest.Port
	switch {
	case o.over || o.names[number] != nil:
		return false
	case p.dest.IsName():
		if o.users[number] > 0 {
			return false
		}
		o.names[number] = p
	case o.peers[p.dest.AddrPort()] != nil:
		return false
	default:
		o.peers[p.dest.AddrPort()] = p
	}
	o.users[number]++
	p.port = o
	return true
}

// remove returns whether p was the last one.
func (o *viaPort) remove(p *viaPeer) (last bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	number := p.dest.Port
	if p.dest.IsName() {
		delete(o.names, number)
	} else {
		delete(o.peers, p.dest.AddrPort())
	}
	if o.users[number]--; o.users[number] == 0 {
		delete(o.users, number)
	}
	return len(o.users) == 0
}

// find returns whom a datagram from an address answers, or nil.
func (o *viaPort) find(from netip.AddrPort) *viaPeer {
	o.mu.Lock()
	defer o.mu.Unlock()
	if p := o.peers[from]; p != nil {
		return p
	}
	return o.names[from.Port()]
}

// receive hands what comes in to whom it answers, until nothing comes any
// more, which ends all.
func (o *viaPort) receive() {
	o.conn.Forward(func(b datagram.Batch, from socks.Addr) {
		if p := o.find(from.AddrPort()); p != nil {
			p.hand(b)
		}
	})
	o.ended.Go(func() {
		<-o.conn.Done()
		o.end()
	})
}

// end tells all that there is nothing behind the port any more.
func (o *viaPort) end() {
	o.mu.Lock()
	o.over = true
	var all []*viaPeer
	for _, p := range o.peers {
		all = append(all, p)
	}
	for _, p := range o.names {
		all = append(all, p)
	}
	o.mu.Unlock()
	for _, p := range all {
		p.fail(datagram.Refused(p.dest.AddrPort()))
		p.end()
	}
}

// viaPeer is a Peer behind SOCKS servers.
type viaPeer struct {
	via    *Via
	port   *viaPort
	client netip.AddrPort
	dest   socks.Addr
	receiver
	done   chan struct{}
	ended  sync.Once
	closed sync.Once
}

// Send sends b; all but its payload is lost on the way.
func (p *viaPeer) Send(b datagram.Batch) error { return p.port.conn.Send(b, p.dest) }

func (p *viaPeer) Done() <-chan struct{} { return p.done }
func (p *viaPeer) end()                  { p.ended.Do(func() { close(p.done) }) }

// LocalAddr is where the server sees the flow come from, or, as no server
// tells of the far end, an unspecified address of dest's family.
func (p *viaPeer) LocalAddr() net.Addr {
	if !p.dest.IsName() {
		return localAddr(0, p.dest.IP)
	}
	local := socks.AddrPortOf(p.port.conn.control.LocalAddr())
	return net.UDPAddrFromAddrPort(netip.AddrPortFrom(local.Addr(), 0))
}

// RemoteAddr is the relay's address; in a chain that may be a name, and this
// the zero one.
func (p *viaPeer) RemoteAddr() net.Addr { return net.UDPAddrFromAddrPort(p.port.conn.relay.AddrPort()) }

// Close ends the UDP ASSOCIATE, too, where there is no other Peer.
func (p *viaPeer) Close() (err error) {
	p.closed.Do(func() {
		p.stop()
		p.end()
		if !p.via.ports.leave(p) {
			return
		}
		p.port.cancel()
		<-p.port.opened
		if p.port.err == nil {
			err = p.port.conn.Close()
			p.port.ended.Wait()
		}
	})
	return err
}
