package stacktest

import (
	"context"
	"os"
	"sync"

	"golang.zx2c4.com/wireguard/tun"
	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/link/channel"
	netstack "gvisor.dev/gvisor/pkg/tcpip/stack"
)

// batch is how many packets a device carries in one call.
const batch = 16

// device is a stack's end of the wire: what it reads the host has sent, and
// what it writes the host receives.
type device struct {
	wire   *channel.Endpoint // the host's end
	open   context.Context   // done when the device is closed
	close  context.CancelFunc
	once   sync.Once
	events chan tun.Event
}

func newDevice(wire *channel.Endpoint) *device {
	open, cancel := context.WithCancel(context.Background())
	return &device{wire: wire, open: open, close: cancel, events: make(chan tun.Event)}
}

func (d *device) Read(bufs [][]byte, sizes []int, offset int) (int, error) {
	pkt := d.wire.ReadContext(d.open)
	if pkt == nil {
		return 0, os.ErrClosed
	}
	n := 0
	for ; pkt != nil; pkt = d.wire.Read() {
		size := 0
		for _, part := range pkt.AsSlices() {
			size += copy(bufs[n][offset+size:], part)
		}
		pkt.DecRef()
		sizes[n] = size
		if n++; n == len(bufs) {
			break
		}
	}
	return n, nil
}

func (d *device) Write(bufs [][]byte, offset int) (int, error) {
	if d.open.Err() != nil {
		return 0, os.ErrClosed
	}
	for _, b := range bufs {
		d.receive(b[offset:])
	}
	return len(bufs), nil
}

// receive hands a packet to the host.
func (d *device) receive(b []byte) {
	var network tcpip.NetworkProtocolNumber
	switch header.IPVersion(b) {
	case header.IPv4Version:
		network = header.IPv4ProtocolNumber
	case header.IPv6Version:
		network = header.IPv6ProtocolNumber
	}
	pkt := netstack.NewPacketBuffer(netstack.PacketBufferOptions{Payload: buffer.MakeWithData(b)})
	d.wire.InjectInbound(network, pkt)
	pkt.DecRef()
}

func (d *device) Close() error {
	d.once.Do(func() {
		d.close()
		close(d.events)
	})
	return nil
}

func (d *device) File() *os.File           { return nil }
func (d *device) MTU() (int, error)        { return MTU, nil }
func (d *device) Name() (string, error)    { return "stacktest", nil }
func (d *device) Events() <-chan tun.Event { return d.events }
func (d *device) BatchSize() int           { return batch }
