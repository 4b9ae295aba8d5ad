package stack

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	netstack "gvisor.dev/gvisor/pkg/tcpip/stack"
)

const (
	// headroom is what a Device wants free before each packet, in bytes: a TUN
	// device puts its virtio_net_hdr there.
	headroom = 10
	// sendQueue is how many packets wait for the device at most: the
	// txqueuelen of an Ethernet device on Linux.
	sendQueue = 1000
	// sendBatch is how many packets one write carries at most: 64 KiB, which
	// is what the device can merge into one, are 45 of 1460 bytes.
	sendBatch = 48
	// sendBuffer is the size of a packet that others were merged into.
	sendBuffer = headroom + 65535
	// readAttempts is how many reads may fail in a row. One failure may be
	// about one packet or about the device's netlink socket; many mean that
	// there is no device any more.
	readAttempts = 10
)

// link is netstack's end of a Device.
type link struct {
	device   Device
	mtu      uint32 // bytes
	counters *counters
	logger   *slog.Logger
	onSYN    func(packet) // called before netstack gets a SYN

	queue chan *netstack.PacketBuffer // to the device
	done  chan struct{}               // closed when nothing more will be queued

	mu         sync.RWMutex // guards dispatcher
	dispatcher netstack.NetworkDispatcher
}

func newLink(config Config, counters *counters) *link {
	return &link{
		device:   config.Device,
		mtu:      uint32(config.MTU),
		counters: counters,
		logger:   config.Logger,
		queue:    make(chan *netstack.PacketBuffer, sendQueue),
		done:     make(chan struct{}),
	}
}

// receive hands packets of the device to netstack until the device is closed,
// which is no error when it was closed by us, or fails.
func (l *link) receive() error {
	packets := make([][]byte, l.device.BatchSize())
	for i := range packets {
		packets[i] = make([]byte, headroom+int(l.mtu))
	}
	sizes := make([]int, len(packets))
	for failed := 0; ; {
		n, err := l.device.Read(packets, sizes, headroom)
		for i := range n {
			l.deliver(packets[i][headroom : headroom+sizes[i]])
		}
		if err == nil {
			failed = 0
			continue
		}
		failed++
		l.counters.deviceErrors.Add(1)
		if errors.Is(err, os.ErrClosed) || failed == readAttempts {
			return fmt.Errorf("reading from the TUN device: %w", err)
		}
		l.logger.Warn("reading from the TUN device", "err", err)
	}
}

// deliver hands one packet to netstack, unless netstack must not see it.
func (l *link) deliver(b []byte) {
	l.counters.received.Add(1)
	p, ok := parsePacket(b)
	if !ok {
		l.counters.droppedNotIP.Add(1)
		return
	}
	// A fake address answers for itself only where the far host did: netstack
	// would answer pings to hosts that are dead.
	if p.isEchoRequest() {
		l.counters.droppedEcho.Add(1)
		return
	}
	l.mu.RLock()
	dispatcher := l.dispatcher
	l.mu.RUnlock()
	if dispatcher == nil {
		return
	}
	if p.isSYN() {
		l.onSYN(p)
	}
	pkt := netstack.NewPacketBuffer(netstack.PacketBufferOptions{Payload: buffer.MakeWithData(b)})
	dispatcher.DeliverNetworkPacket(p.network, pkt)
	pkt.DecRef()
}

// WritePackets queues packets for the device. Where the queue is full it waits
// for the writer, which waits for nobody: a loss here would be one of our own
// making, and netstack repairs bursts of them slowly.
func (l *link) WritePackets(pkts netstack.PacketBufferList) (int, tcpip.Error) {
	for _, pkt := range pkts.AsSlice() {
		select {
		case l.queue <- pkt.IncRef():
		case <-l.done:
			pkt.DecRef()
		}
	}
	return pkts.Len(), nil
}

// send writes queued packets to the device, as many at once as there are,
// until done is closed and the queue is empty.
func (l *link) send() {
	buffers := make([][]byte, sendBatch)
	for i := range buffers {
		buffers[i] = make([]byte, sendBuffer)
	}
	batch := make([][]byte, 0, sendBatch)
	for pkt := l.next(); pkt != nil; pkt = l.next() {
		batch = append(batch[:0], fill(buffers[0], pkt))
		for len(batch) < sendBatch && len(l.queue) > 0 {
			batch = append(batch, fill(buffers[len(batch)], <-l.queue))
		}
		if _, err := l.device.Write(batch, headroom); err != nil {
			l.counters.deviceErrors.Add(1) // what is lost is the transport's to repeat
			continue
		}
		l.counters.sent.Add(uint64(len(batch)))
	}
}

// fill puts pkt into b, after the headroom, and lets go of it.
func fill(b []byte, pkt *netstack.PacketBuffer) []byte {
	b = b[:headroom]
	for _, part := range pkt.AsSlices() {
		b = append(b, part...)
	}
	pkt.DecRef()
	return b
}

// next waits for a packet to send. It is nil when there will be no more.
func (l *link) next() *netstack.PacketBuffer {
	select {
	case pkt := <-l.queue:
		return pkt
	case <-l.done:
	}
	select {
	case pkt := <-l.queue:
		return pkt
	default:
		return nil
	}
}

// Attach connects netstack, or disconnects it when dispatcher is nil.
func (l *link) Attach(dispatcher netstack.NetworkDispatcher) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.dispatcher = dispatcher
}

// IsAttached implements netstack.LinkEndpoint.
func (l *link) IsAttached() bool {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.dispatcher != nil
}

// The rest of netstack.LinkEndpoint: a link of IP packets has no addresses and
// no header of its own, and its life is Stack.Run's.

func (l *link) MTU() uint32                                     { return l.mtu }
func (l *link) SetMTU(uint32)                                   {}
func (l *link) MaxHeaderLength() uint16                         { return 0 }
func (l *link) LinkAddress() tcpip.LinkAddress                  { return "" }
func (l *link) SetLinkAddress(tcpip.LinkAddress)                {}
func (l *link) Capabilities() netstack.LinkEndpointCapabilities { return 0 }
func (l *link) ARPHardwareType() header.ARPHardwareType         { return header.ARPHardwareNone }
func (l *link) AddHeader(*netstack.PacketBuffer)                {}
func (l *link) ParseHeader(*netstack.PacketBuffer) bool         { return true }
func (l *link) Wait()                                           {}
func (l *link) Close()                                          {}
func (l *link) SetOnCloseAction(func())                         {}
