package stack

import (
	"context"
	"errors"
	"fmt"
	"net"
	"syscall"
	"time"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	netstack "gvisor.dev/gvisor/pkg/tcpip/stack"
)

// ErrNotTaken is of a SYN that the kernel does not take back. The request is
// still without an answer, and may be accepted.
var ErrNotTaken = errors.New("the kernel does not take it")

// ErrLost is an ErrNotTaken of a SYN that was not sent back: it, or what the
// kernel had of it, is gone.
var ErrLost = fmt.Errorf("%w, and has not sent it back", ErrNotTaken)

// soonest is how soon a client may repeat a SYN, and has surely answered a
// SYN-ACK. What comes before is a copy that the network made.
const soonest = 200 * time.Millisecond

// HandBack gives the SYN back to the kernel, which should hand it to a
// listening socket of the caller's, and returns the connection that comes out of
// arrived, for the caller to close. Where arrived is closed, nobody waits for it
// any more. Until the handler returns, the stack answers no segment of it.
// carries reports whether the kernel has a connection of the request's, which
// may not be established yet.
//
// The error is ErrNotTaken where the kernel sends the SYN back here; ErrLost
// where it lets the client repeat it in vain, or does not carry it, be it that
// the client, who has given up, has reset it; and ETIMEDOUT where a client says
// nothing more for as long as it may take to answer a SYN-ACK.
func (r *TCPRequest) HandBack(ctx context.Context, arrived <-chan net.Conn, carries func() bool) (net.Conn, error) {
	syn := whole(r.quote)
	if syn == nil {
		return nil, ErrNotTaken
	}
	if r.answered.Swap(true) {
		return nil, r.errorf(errAnswered)
	}
	complete(syn)
	conn, err := r.side.offer(ctx, syn, r.side.lend(r), arrived, carries)
	if errors.Is(err, ErrNotTaken) {
		r.side.takeBack(r)
		r.answered.Store(false)
		r.side.counters.tcpNotTaken.Add(1)
		return nil, err
	}
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
func (t *tcpSide) offer(ctx context.Context, syn []byte, again <-chan uint8, arrived <-chan net.Conn, carries func() bool) (net.Conn, error) {
	abandon := time.NewTimer(handshake)
	defer abandon.Stop()
	began := time.Now()
	look := time.NewTimer(soonest)
	defer look.Stop()
	for range 2 {
		t.inject(syn)
		sent := time.Now()
		for repeated := false; !repeated; {
			select {
			case conn, ok := <-arrived:
				if !ok {
					return nil, net.ErrClosed
				}
				return conn, nil
			case hops := <-again:
				if hops < hopsLeft(syn) {
					return nil, ErrNotTaken // it was routed back
				}
				repeated = time.Since(sent) >= soonest
			case <-look.C:
				if !carries() && len(arrived) == 0 {
					return nil, ErrLost
				}
				look.Reset(time.Since(began)) // less and less often
			case <-abandon.C:
				return nil, syscall.ETIMEDOUT
			case <-ctx.Done():
				return nil, net.ErrClosed
			}
		}
	}
	return nil, ErrLost
}

// KeepAlive is how the stack finds clients that are gone, for sockets that
// carry connections in its stead.
func KeepAlive() net.KeepAliveConfig { return keepAlive }

// lend leaves the connection of r to the kernel, and returns where to hear of
// the hops that are left to a SYN that comes once more.
func (t *tcpSide) lend(r *TCPRequest) <-chan uint8 {
	again := make(chan uint8, 1)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.lent[r.id] = again
	return again
}

// takeBack ends what lend began, if it did.
func (t *tcpSide) takeBack(r *TCPRequest) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.lent, r.id)
}

// kernels reports whether pkt is of a connection that the kernel has. It comes
// here all the same where the kernel has not taken it, and where somebody has
// removed the rules that lead it there. These come back soon, and TCP repeats
// what is lost meanwhile; an RST would end the connection.
func (t *tcpSide) kernels(id netstack.TransportEndpointID, pkt *netstack.PacketBuffer) bool {
	t.mu.Lock()
	again, ok := t.lent[id]
	t.mu.Unlock()
	if ok && isSYN(header.TCP(pkt.TransportHeader().Slice()).Flags()) {
		if syn := whole(quote(pkt)); syn != nil {
			select {
			case again <- hopsLeft(syn):
			default: // one is enough, and nobody listens once the kernel has it
			}
		}
	}
	return ok
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
