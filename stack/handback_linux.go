package stack

import (
	"context"
	"errors"
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	netstack "gvisor.dev/gvisor/pkg/tcpip/stack"
)

// ErrNotTaken is of a SYN that the kernel does not take back. The request is
// still without an answer, and may be accepted.
var ErrNotTaken = errors.New("the kernel does not take it")

// soonest is how soon a client may repeat a SYN. What comes before is a copy
// that the network made.
const soonest = 200 * time.Millisecond

// lent is a connection that the kernel has.
type lent struct {
	again chan uint8 // hops left of a SYN that came once more, before conn
	conn  net.Conn   // nil until the kernel has taken the SYN; guarded by tcpSide.mu
}

// HandBack gives the SYN back to the kernel, which should hand it to a
// listening socket of the caller's, and returns the connection, which arrived
// tells of. Until the handler returns, the stack answers no segment of it.
//
// The error is ErrNotTaken where the kernel sends the SYN back here, or lets
// the client repeat it in vain, and ETIMEDOUT where a client says nothing more
// for 7 s.
func (r *TCPRequest) HandBack(ctx context.Context, arrived <-chan net.Conn) (net.Conn, error) {
	syn := whole(r.quote)
	if syn == nil {
		return nil, ErrNotTaken
	}
	if r.answered.Swap(true) {
		return nil, r.errorf(errAnswered)
	}
	complete(syn)
	l := &lent{again: make(chan uint8, 1)}
	r.side.lend(r, l)
	conn, err := r.side.offer(ctx, syn, l, arrived)
	if errors.Is(err, ErrNotTaken) {
		r.side.takeBack(r)
		r.answered.Store(false)
		r.side.counters.tcpNotTaken.Add(1)
		return nil, err
	}
	r.side.settle(l, conn)
	r.syn.Complete(false)
	r.side.release(r)
	r.quote = nil // no ICMP message will need it
	if err != nil {
		r.side.counters.tcpAbandoned.Add(1)
		return nil, r.errorf(err)
	}
	r.side.counters.tcpAccepted.Add(1)
	r.side.counters.tcpHandedBack.Add(1)
	return conn, nil
}

// offer sends syn to the kernel, and once more where a client repeats it.
func (t *tcpSide) offer(ctx context.Context, syn []byte, l *lent, arrived <-chan net.Conn) (net.Conn, error) {
	abandon := time.NewTimer(handshake)
	defer abandon.Stop()
	for range 2 {
		t.inject(syn)
		sent := time.Now()
		for repeated := false; !repeated; {
			select {
			case conn := <-arrived:
				return conn, nil
			case hops := <-l.again:
				if hops < hopsLeft(syn) {
					return nil, ErrNotTaken // it was routed back
				}
				repeated = time.Since(sent) >= soonest
			case <-abandon.C:
				return nil, syscall.ETIMEDOUT
			case <-ctx.Done():
				return nil, net.ErrClosed
			}
		}
	}
	return nil, ErrNotTaken
}

// lend leaves the connection of r to the kernel.
func (t *tcpSide) lend(r *TCPRequest, l *lent) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.lent[r.id] = l
}

// settle notes that the kernel has taken the SYN; conn is nil where it has not.
func (t *tcpSide) settle(l *lent, conn net.Conn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	l.conn = conn
}

// takeBack ends what lend began, if it did.
func (t *tcpSide) takeBack(r *TCPRequest) {
	t.mu.Lock()
	l := t.lent[r.id]
	delete(t.lent, r.id)
	t.mu.Unlock()
	if l != nil && l.conn != nil {
		l.conn.Close()
	}
}

// kernels reports whether pkt is of a connection that the kernel has. It comes
// here all the same where it asks for the connection anew, and where somebody
// has removed the rules that lead it to the kernel. These come back soon, and
// TCP repeats what is lost meanwhile; an RST would end the connection.
func (t *tcpSide) kernels(id netstack.TransportEndpointID, pkt *netstack.PacketBuffer) bool {
	t.mu.Lock()
	l, ok := t.lent[id]
	var conn net.Conn
	if ok {
		conn = l.conn
	}
	t.mu.Unlock()
	if !ok || !isSYN(header.TCP(pkt.TransportHeader().Slice()).Flags()) {
		return ok
	}
	syn := whole(quote(pkt))
	switch {
	case syn == nil:
	case conn == nil:
		select {
		case l.again <- hopsLeft(syn):
		default: // one is enough
		}
	case connected(conn):
		// The kernel answers with a challenge (RFC 5961, section 4), and a
		// client that has lost its connection with an RST.
		if pkt.RXChecksumValidated {
			complete(syn)
		}
		t.inject(syn)
	}
	return true
}

// tcpClose is TCP_CLOSE of Linux's include/net/tcp_states.h.
const tcpClose = 7

// connected reports whether c is a socket with a connection behind it. A SYN
// for one without would reach the listening socket, and open what nobody has
// dialled.
func connected(c net.Conn) bool {
	socket, ok := c.(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return false
	}
	state := uint8(tcpClose)
	raw.Control(func(fd uintptr) {
		if info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO); err == nil {
			state = info.State
		}
	})
	return state != tcpClose
}

// inject sends a packet out of the device, to the kernel of this host. Where
// it is lost, the client will repeat it.
func (t *tcpSide) inject(b []byte) {
	p, _ := parsePacket(b)
	t.network.WriteRawPacket(nic, p.network, buffer.MakeWithData(b))
}

// whole returns a copy of b where that is a SYN without extension headers and
// in one piece, and nil where it was cut or came as fragments.
func whole(b []byte) []byte {
	p, ok := parsePacket(b)
	if !ok || !p.isSYN() {
		return nil
	}
	if p.network == header.IPv4ProtocolNumber {
		if ip := header.IPv4(b); ip.More() || int(ip.TotalLength()) != len(b) {
			return nil
		}
	} else if ip := header.IPv6(b); ip.NextHeader() != uint8(header.TCPProtocolNumber) || header.IPv6MinimumSize+int(ip.PayloadLength()) != len(b) {
		return nil
	}
	return append([]byte(nil), b...)
}

// complete writes the TCP checksum of a whole packet, which hosts leave to
// their interfaces. Only of one that was verified, or a bad one would be good.
func complete(b []byte) {
	p, _ := parsePacket(b)
	segment := header.TCP(p.payload)
	var sum uint16
	if p.network == header.IPv4ProtocolNumber {
		ip := header.IPv4(b)
		sum = header.PseudoHeaderChecksum(header.TCPProtocolNumber, ip.SourceAddress(), ip.DestinationAddress(), uint16(len(segment)))
	} else {
		ip := header.IPv6(b)
		sum = header.PseudoHeaderChecksum(header.TCPProtocolNumber, ip.SourceAddress(), ip.DestinationAddress(), uint16(len(segment)))
	}
	segment.SetChecksum(0)
	segment.SetChecksum(^checksum.Checksum(segment, sum))
}

// hopsLeft returns the TTL or hop limit of an IP packet.
func hopsLeft(b []byte) uint8 {
	if header.IPVersion(b) == header.IPv4Version {
		return header.IPv4(b).TTL()
	}
	return header.IPv6(b).HopLimit()
}
