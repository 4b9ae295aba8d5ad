package outlet

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"sixgate/socks/datagram"
)

// Types of ICMP messages (RFC 792; RFC 4443, section 4).
const (
	echoRequest4 = 8
	echoRequest6 = 128
)

// echoHeader is what comes before the payload of a ping: type, code, checksum,
// and the identifier, all but the type of the kernel's making (icmp(7)).
const echoHeader = 6

// pinger is a Peer that is pinged, by a socket of its own.
type pinger struct {
	socket *socket
	remote netip.Addr
	receiver
	ended  chan struct{} // closed when nothing is received any more
	closed sync.Once
}

// ping returns the Peer at ip. The kernel has to let the process's group ping.
func (d *Direct) ping(ip netip.Addr) (Peer, error) {
	conn, err := d.openPing(ip)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errNoPing, err)
	}
	socket, err := newSocket(conn, hopsLeft[:]...)
	if err != nil {
		return nil, err
	}
	p := &pinger{socket: socket, remote: ip, ended: make(chan struct{})}
	go func() {
		defer close(p.ended)
		socket.receive(func(b datagram.Batch, _ netip.AddrPort) {
			if len(b.Payload) > echoHeader {
				b.Payload = b.Payload[echoHeader:]
				p.hand(b)
			}
		}, p.failed)
	}()
	return p, nil
}

// openPing returns a socket for pings that is connected to ip.
func (d *Direct) openPing(ip netip.Addr) (*net.UDPConn, error) {
	network, family, protocol := "ip4:icmp", unix.AF_INET, unix.IPPROTO_ICMP
	var to unix.Sockaddr
	if ip.Is4() {
		to = &unix.SockaddrInet4{Addr: ip.As4()}
	} else {
		network, family, protocol = "ip6:ipv6-icmp", unix.AF_INET6, unix.IPPROTO_ICMPV6
		to = &unix.SockaddrInet6{Addr: ip.As16()}
	}
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, protocol)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	file := os.NewFile(uintptr(fd), network)
	defer file.Close()
	if d.Control != nil {
		raw, err := file.SyscallConn()
		if err != nil {
			return nil, err
		}
		if err := d.Control(network, ip.String(), raw); err != nil {
			return nil, err
		}
	}
	if err := unix.Connect(fd, to); err != nil {
		return nil, os.NewSyscallError("connect", err)
	}
	conn, err := net.FilePacketConn(file)
	if err != nil {
		return nil, err
	}
	return conn.(*net.UDPConn), nil
}

func (p *pinger) failed(e *PathError) {
	e.dest = netip.AddrPortFrom(p.remote, 0)
	if len(e.quoted) > echoHeader {
		e.quoted = e.quoted[echoHeader:]
	} else {
		e.quoted = nil
	}
	p.fail(e)
}

// Send sends a ping.
func (p *pinger) Send(b datagram.Batch) error {
	buf := datagram.Take()
	defer buf.Give()
	clear(buf[:echoHeader])
	if buf[0] = echoRequest4; p.remote.Is6() {
		buf[0] = echoRequest6
	}
	b.Payload = buf[:echoHeader+copy(buf[echoHeader:], b.Payload)]
	return p.socket.Send(b, netip.AddrPort{}, p.failed)
}

func (p *pinger) Done() <-chan struct{} { return p.ended }
func (p *pinger) LocalAddr() net.Addr   { return localAddr(p.socket.conn, p.remote) }
func (p *pinger) RemoteAddr() net.Addr {
	return net.UDPAddrFromAddrPort(netip.AddrPortFrom(p.remote, 0))
}

func (p *pinger) Close() error {
	p.stop()
	var err error
	p.closed.Do(func() { err = p.socket.close() })
	<-p.ended
	return err
}
