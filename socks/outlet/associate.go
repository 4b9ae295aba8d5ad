package outlet

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"syscall"
	"time"

	"sixgate/socks"
	"sixgate/socks/datagram"
)

// noUDPTime is how long a server that has refused UDP is not asked again.
// Clients of UDP send again within seconds, and each time would cost a
// connection (hev-socks5-tunnel#254).
const noUDPTime = time.Minute

// ListenPacket returns a PacketConn that a UDP ASSOCIATE of the server carries.
// The way to the server has to carry datagrams, too.
func (v *Via) ListenPacket(ctx context.Context) (PacketConn, error) {
	p, err := v.listenPacket(ctx)
	if err != nil {
		return nil, fmt.Errorf("sending datagrams through SOCKS server %s: %w", v.client.Server, err)
	}
	return p, nil
}

func (v *Via) listenPacket(ctx context.Context) (*viaPackets, error) {
	way, ok := v.over.(PacketOutlet)
	if !ok || v.health.refusesUDP() {
		return nil, fmt.Errorf("no UDP there: %w", syscall.EOPNOTSUPP)
	}
	control, err := v.reach(ctx)
	if err != nil {
		return nil, err
	}
	relay, err := v.client.Associate(ctx, control)
	if v.note(err) != nil {
		control.Close()
		if refused, ok := errors.AsType[*socks.ReplyError](err); ok && refused.Code == socks.CommandUnsupported {
			v.health.refusedUDP()
		}
		return nil, err
	}
	relay = v.relay(relay, control)
	if err := v.vetRelay(relay, control); err != nil {
		control.Close()
		return nil, err
	}
	conn, err := way.ListenPacket(ctx)
	if err != nil {
		control.Close()
		return nil, err
	}
	if err := conn.Find(ctx, relay); err != nil {
		control.Close()
		conn.Close()
		return nil, err
	}
	p := &viaPackets{control: control, conn: conn, relay: relay}
	p.ended.Go(func() {
		io.Copy(io.Discard, control) // the relay ends with it, however that is
		conn.Close()
	})
	return p, nil
}

// viaPackets is the PacketConn of a Via.
type viaPackets struct {
	control net.Conn
	conn    PacketConn // the way to relay
	relay   socks.Addr
	ended   sync.WaitGroup
}

// Forward drops what does not come from the relay, or is malformed.
func (p *viaPackets) Forward(take func(datagram.Batch, socks.Addr)) {
	p.conn.Forward(func(b datagram.Batch, from socks.Addr) {
		if !answers(p.relay, from) {
			return
		}
		socks.EachUnwrapped(b, func(b datagram.Batch, from socks.Addr) {
			if !from.IsName() {
				take(b, from)
			}
		})
	})
}

// answers reports whether a datagram of the address from can be an answer of
// dest. Who a name stands for is known to the hop that has looked it up, and
// it lets pass no other.
func answers(dest, from socks.Addr) bool {
	return from == dest || dest.IsName() && from.Port == dest.Port
}

// Find does nothing: the server finds dest.
func (p *viaPackets) Find(context.Context, socks.Addr) error { return nil }

func (p *viaPackets) Send(b datagram.Batch, dest socks.Addr) error {
	return socks.EachWrapped(b, dest, func(b datagram.Batch) error { return p.conn.Send(b, p.relay) })
}

func (p *viaPackets) Done() <-chan struct{} { return p.conn.Done() }

func (p *viaPackets) Close() error {
	err := p.control.Close()
	p.conn.Close() // the control's error tells all
	p.ended.Wait()
	return err
}
