package outlet

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
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

// hopsLeft has the kernel tell the hop limit of an answer: users look at that.
var hopsLeft = [2]datagram.Option{
	{Level: unix.SOL_IP, Name: unix.IP_RECVTTL, Value: 1}, {Level: unix.SOL_IPV6, Name: unix.IPV6_RECVHOPLIMIT, Value: 1},
}

var errNoPing = errors.New("opening a socket for pings, which sysctl net.ipv4.ping_group_range has to allow")

// pinger is a Peer that is pinged, by a socket of its own.
type pinger struct {
	*datagram.Socket
	poller *datagram.Poller
	remote netip.Addr
	receiver
	done   chan struct{}
	ended  sync.Once
	closed sync.Once
}

// ping returns the Peer at ip. The kernel has to let the process's group ping.
func (ps *Ports) ping(ip netip.Addr) (Peer, error) {
	family, protocol := unix.AF_INET, unix.IPPROTO_ICMP
	if ip.Is6() {
		family, protocol = unix.AF_INET6, unix.IPPROTO_ICMPV6
	}
	p := &pinger{poller: &ps.poller, remote: ip, done: make(chan struct{})}
	var err error
	if p.Socket, err = datagram.OpenSocket(family, protocol, ps.Control, p, hopsLeft[:]...); err != nil {
		return nil, fmt.Errorf("%w: %w", errNoPing, err)
	}
	if err = p.Connect(ip); err == nil {
		err = ps.poller.Watch(p.Socket)
	}
	if err != nil {
		p.Socket.Close()
		return nil, err
	}
	return p, nil
}

// Took hands over an answer.
func (p *pinger) Took(b datagram.Batch, _ netip.AddrPort) {
	if len(b.Payload) > echoHeader {
		b.Payload = b.Payload[echoHeader:]
		p.hand(b)
	}
}

func (p *pinger) Failed(e *datagram.PathError) {
	p.fail(e.Of(netip.AddrPortFrom(p.remote, 0), echoHeader))
}

func (p *pinger) Broke() { p.ended.Do(func() { close(p.done) }) }

// Send sends a ping.
func (p *pinger) Send(b datagram.Batch) error {
	buf := datagram.Take()
	defer buf.Give()
	clear(buf[:echoHeader])
	if buf[0] = echoRequest4; p.remote.Is6() {
		buf[0] = echoRequest6
	}
	b.Payload = buf[:echoHeader+copy(buf[echoHeader:], b.Payload)]
	return p.Socket.Send(b, netip.AddrPort{})
}

func (p *pinger) Done() <-chan struct{} { return p.done }
func (p *pinger) LocalAddr() net.Addr   { return localAddr(p.LocalPort(), p.remote) }
func (p *pinger) RemoteAddr() net.Addr {
	return net.UDPAddrFromAddrPort(netip.AddrPortFrom(p.remote, 0))
}

func (p *pinger) Close() (err error) {
	p.closed.Do(func() {
		p.stop()
		p.Broke()
		p.poller.Leave(p.Socket)
		err = p.Socket.Close()
	})
	return err
}
