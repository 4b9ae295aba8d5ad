package outlet

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"sixgate/socks"
)

// maxPeers bounds what a PacketConn remembers of its destinations. What is
// forgotten is found again by the next datagram to it.
const maxPeers = 4096

// ListenPacket returns a PacketConn on a socket of the host.
func (d *Direct) ListenPacket(ctx context.Context) (PacketConn, error) {
	lc := net.ListenConfig{Control: d.Control}
	// Without an address the socket takes datagrams of both families.
	socket, err := lc.ListenPacket(ctx, "udp", ":0")
	if err != nil {
		return nil, fmt.Errorf("opening a UDP socket: %w", socks.WithErrno(err))
	}
	return &directPackets{
		direct: d,
		socket: socket.(*net.UDPConn),
		hosts:  make(map[socks.Addr]netip.Addr),
		peers:  make(map[netip.Addr]bool),
	}, nil
}

// directPackets is the PacketConn of a Direct.
type directPackets struct {
	direct *Direct
	socket *net.UDPConn

	mu    sync.Mutex
	hosts map[socks.Addr]netip.Addr // where datagrams to a host without port go, guarded by mu
	peers map[netip.Addr]bool       // where they went, guarded by mu
}

func (p *directPackets) ReadFrom(b []byte) (int, socks.Addr, error) {
	for {
		n, ap, err := p.socket.ReadFromUDPAddrPort(b)
		if err != nil {
			return 0, socks.Addr{}, err
		}
		if from := socks.AddrFromAddrPort(ap); p.knows(from.IP) {
			from.IP = p.direct.meant(from.IP)
			return n, from, nil
		}
	}
}

func (p *directPackets) knows(ip netip.Addr) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.peers[ip]
}

func (p *directPackets) WriteTo(ctx context.Context, b []byte, dest socks.Addr) error {
	host := socks.Addr{Name: dest.Name, IP: dest.IP}
	p.mu.Lock()
	ip, known := p.hosts[host]
	if known {
		remember(p.peers, ip, true) // another may have taken its place
	}
	p.mu.Unlock()
	if !known {
		var err error
		if ip, err = p.direct.find(ctx, dest); err != nil {
			return fmt.Errorf("sending a datagram to %s: %w", dest, socks.WithErrno(err))
		}
		p.mu.Lock()
		remember(p.hosts, host, ip)
		remember(p.peers, ip, true)
		p.mu.Unlock()
	}
	_, err := p.socket.WriteToUDPAddrPort(b, netip.AddrPortFrom(ip, dest.Port))
	return err
}

func (p *directPackets) SetReadDeadline(t time.Time) error { return p.socket.SetReadDeadline(t) }
func (p *directPackets) Close() error                      { return p.socket.Close() }

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
