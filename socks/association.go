package socks

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"

	"sixgate/socks/datagram"
)

// Association is the relay of a UDP ASSOCIATE (RFC 1928, section 7): the
// client's side of it. It ends with the connection that asked for it.
type Association struct {
	control net.Conn
	relay   *net.UDPConn
	client  netip.Addr    // unmapped, with the zone of a link-local address
	port    atomic.Uint32 // of client, once it has sent something; 0 before
	ended   sync.WaitGroup
}

// Associate opens a relay on the address that the client has connected to, and
// tells the client of it. The caller is to close the Association.
func (r *Request) Associate() (*Association, error) {
	local, ok := r.conn.LocalAddr().(*net.TCPAddr)
	peer, ok2 := r.conn.RemoteAddr().(*net.TCPAddr)
	if !ok || !ok2 {
		return nil, fmt.Errorf("opening a UDP relay beside %v: %w", r.conn.LocalAddr(), syscall.EAFNOSUPPORT)
	}
	var relay *net.UDPConn
	err := r.listening.Ports.Open(func(port uint16) (err error) {
		relay, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(local.AddrPort().Addr().Unmap(), port)))
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("opening a UDP relay: %w", WithErrno(err))
	}
	told := r.listening.Told(AddrPortOf(relay.LocalAddr()))
	if err := r.reply(Succeeded, AddrFromAddrPort(told)); err != nil {
		relay.Close()
		return nil, fmt.Errorf("answering SOCKS client %s: %w", r.Client(), WithErrno(err))
	}
	a := &Association{control: r.conn, relay: relay, client: peer.AddrPort().Addr().Unmap()}
	a.ended.Go(func() {
		io.Copy(io.Discard, a.control) // its end is all that it tells
		a.relay.Close()
	})
	return a, nil
}

// ReadFrom returns the payload of the client's next datagram, and where it is
// to go. Room for less than any datagram cuts it off. Datagrams of others are
// dropped (RFC 1928, section 7), as are fragments and malformed ones; the port
// of the first that is none of these is the client's.
func (a *Association) ReadFrom(b []byte) (n int, dest Addr, err error) {
	for {
		n, from, err := a.relay.ReadFromUDPAddrPort(b)
		if err != nil {
			return 0, Addr{}, err
		}
		port := a.port.Load()
		if from.Addr().Unmap() != a.client || port != 0 && uint32(from.Port()) != port {
			continue
		}
		dest, payload, err := ParseDatagram(b[:n])
		if err != nil || dest.Port == 0 {
			continue
		}
		a.port.Store(uint32(from.Port()))
		return copy(b, payload), dest, nil
	}
}

// WriteTo sends the client a datagram that came from the address from. Before
// the client has sent one itself, nobody knows where to: it is dropped.
func (a *Association) WriteTo(b []byte, from Addr) error {
	port := a.port.Load()
	if port == 0 {
		return nil
	}
	buf := datagram.Take()
	defer buf.Give()
	_, err := a.relay.WriteToUDPAddrPort(AppendDatagram(buf[:0], from, b), netip.AddrPortFrom(a.client, uint16(port)))
	return err
}

// Close ends the association and the connection that asked for it.
func (a *Association) Close() error {
	err := a.control.Close()
	a.relay.Close() // the control's error tells all
	a.ended.Wait()
	return err
}
