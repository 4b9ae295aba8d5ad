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

// maxPeers bounds what a PacketConn remembers of its destinations. What is
// forgotten is to be found again.
const maxPeers = 4096

// errUnfound is that of sending to who was not found, or is forgotten.
var errUnfound = fmt.Errorf("not found yet: %w", syscall.EDESTADDRREQ)

// ListenPacket returns a PacketConn on a socket of the host.
func (d *Direct) ListenPacket(context.Context) (PacketConn, error) {
	p, err := d.listenPacket()
	if err != nil {
		return nil, fmt.Errorf("opening a UDP socket: %w", socks.WithErrno(err))
	}
	return p, nil
}

func (d *Direct) listenPacket() (*directPackets, error) {
	p := &directPackets{
		direct: d,
		hosts:  make(map[socks.Addr]netip.Addr),
		peers:  make(map[netip.Addr]bool),
		done:   make(chan struct{}),
	}
	var err error
	if p.socket, err = d.Ports.socket(p); err != nil {
		return nil, err
	}
	if err = p.socket.Bind(netip.AddrPort{}); err == nil {
		err = d.Ports.poller.Watch(p.socket)
	}
	if err != nil {
		p.socket.Close()
		return nil, err
	}
	return p, nil
}

// directPackets is the PacketConn of a Direct.
type directPackets struct {
	direct *Direct
	socket *datagram.Socket
	done   chan struct{}
	ended  sync.Once
	closed sync.Once

	mu    sync.Mutex
	take  func(datagram.Batch, socks.Addr) // nil: nobody; guarded by mu
	hosts map[socks.Addr]netip.Addr        // where datagrams to a host without port go, guarded by mu
	peers map[netip.Addr]bool              // where they went, guarded by mu
}

func (p *directPackets) Forward(take func(datagram.Batch, socks.Addr)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.take = take
}

// Took hands over what comes from a peer.
func (p *directPackets) Took(b datagram.Batch, from netip.AddrPort) {
	p.mu.Lock()
	take := p.take
	if !p.peers[from.Addr()] {
		take = nil
	}
	p.mu.Unlock()
	if take != nil {
		take(b, socks.Addr{IP: p.direct.meant(from.Addr()), Port: from.Port()})
	}
}

// Failed does nothing: SOCKS has no word for what becomes of a datagram.
func (p *directPackets) Failed(*datagram.PathError) {}

// Broke tells that nothing comes in any more.
func (p *directPackets) Broke() { p.ended.Do(func() { close(p.done) }) }

func (p *directPackets) Done() <-chan struct{} { return p.done }

// known returns where datagrams to dest go, and lets answers pass.
func (p *directPackets) known(dest socks.Addr) (netip.Addr, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	ip, known := p.hosts[socks.Addr{Name: dest.Name, IP: dest.IP}]
	if known {
		remember(p.peers, ip, true) // another may have taken its place
	}
	return ip, known
}

func (p *directPackets) Find(ctx context.Context, dest socks.Addr) error {
	if _, known := p.known(dest); known {
		return nil
	}
	ip, err := p.direct.find(ctx, dest)
	if err != nil {
		return fmt.Errorf("sending datagrams to %s: %w", dest, socks.WithErrno(err))
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	remember(p.hosts, socks.Addr{Name: dest.Name, IP: dest.IP}, ip)
	remember(p.peers, ip, true)
	return nil
}

func (p *directPackets) Send(b datagram.Batch, dest socks.Addr) error {
	ip, known := p.known(dest)
	if !known {
		return errUnfound
	}
	return p.socket.Send(b, netip.AddrPortFrom(ip, dest.Port))
}

func (p *directPackets) Close() (err error) {
	p.closed.Do(func() {
		p.Forward(nil)
		p.direct.Ports.poller.Leave(p.socket)
		err = p.socket.Close()
		p.Broke()
	})
	return err
}

// find returns the address that Dial takes for dest. To connect a UDP socket
// sends nothing, and fails where there is no route.
func (d *Direct) find(ctx context.Context, dest socks.Addr) (netip.Addr, error) {
	conn, err := d.race(ctx, "udp", dest)
	if err != nil {
		return netip.Addr{}, err
	}
	defer conn.Close()
	return conn.RemoteAddr().(*net.UDPAddr).AddrPort().Addr().Unmap(), nil
}

// remember adds to a map of at most maxPeers entries, in the place of any one
// of them if it is full.
func remember[K comparable, V any](m map[K]V, key K, value V) {
	if _, known := m[key]; !known && len(m) >= maxPeers {
		for k := range m {
			delete(m, k)
			break
		}
	}
	m[key] = value
}
