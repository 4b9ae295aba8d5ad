package stack

import (
	"sync"
	"time"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	netstack "gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/stack/gro"
)

// carrier moves packets between a Device and a link.
type carrier interface {
	// receive hands packets of the device to l until the device is closed,
	// which is no error when it was closed by us, or fails.
	receive(l *link) error
	// send writes packets of netstack to the device. What the device refuses
	// is lost: it is the transport's to repeat.
	send(pkts []*netstack.PacketBuffer)
	// write writes one packet, of which offload says what the device has to do
	// yet.
	write(head, payload []byte, o offload) error
	// mergesUDP reports whether offload is of any use.
	mergesUDP() bool
	// maxMerged is how many bytes of TCP payload a sent packet may have, for
	// the kernel to cut them into segments; 0 where it does not.
	maxMerged() uint32
}

// link is netstack's end of a Device.
type link struct {
	carrier
	mtu      uint32 // bytes
	counters *counters
	onSYN    func(packet)  // called before netstack gets a SYN
	past     *datagramSide // gets what is none of netstack's
	mender   *mender

	ipv4, ipv6 netstack.NetworkEndpoint // netstack's next layer
	merger     gro.GRO                  // segments of one read burst

	mu         sync.RWMutex // guards dispatcher
	dispatcher netstack.NetworkDispatcher
}

func newLink(carrier carrier, config Config, counters *counters) *link {
	l := &link{carrier: carrier, mtu: uint32(config.MTU), counters: counters, mender: newMender(time.Now, counters)}
	l.merger.Init(true)
	l.merger.Dispatcher = above{l}
	return l
}

// connect gives the packets of l to network, of which it is the nic.
func (l *link) connect(network *netstack.Stack) tcpip.Error {
	var terr tcpip.Error
	if l.ipv4, terr = network.GetNetworkEndpoint(nic, header.IPv4ProtocolNumber); terr != nil {
		return terr
	}
	l.ipv6, terr = network.GetNetworkEndpoint(nic, header.IPv6ProtocolNumber)
	return terr
}

// deliver hands one packet to who terminates its transport: to netstack at
// once, or with the segments that it continues at the next flush. Checksums of
// a packet that is not verified are theirs to look at. Where size is not 0, the
// packet is datagrams of this many bytes of payload each. give may return the
// memory that begins with b, of which it is told the length, for netstack to
// keep; where it is nil or returns nil, b is copied.
func (l *link) deliver(b []byte, verified bool, size int, give func(n int) *buffer.View) {
	l.counters.received.Add(1)
	p, ok := parsePacket(b)
	if !ok {
		l.counters.droppedNotIP.Add(1)
		return
	}
	if part, ok := p.fragment(); ok {
		if p, ok = l.mender.mend(part); !ok {
			return
		}
		verified, give = false, nil
	}
	if l.past.take(p, verified, size) {
		return
	}
	if p.isSYN() {
		l.onSYN(p)
	}
	pkt := netstack.NewPacketBuffer(netstack.PacketBufferOptions{Payload: keep(p.bytes, give)})
	pkt.NetworkProtocolNumber = p.network
	pkt.RXChecksumValidated = verified
	l.merger.Enqueue(pkt)
	pkt.DecRef()
}

// keep returns b for netstack, without copying it if give returns its memory.
func keep(b []byte, give func(n int) *buffer.View) buffer.Buffer {
	if give != nil {
		if view := give(len(b)); view != nil {
			return buffer.MakeWithView(view)
		}
	}
	return buffer.MakeWithData(b)
}

// bucketSize is how many packets each bucket of gro.GRO holds.
const bucketSize = 8

// flush delivers what waits for more. gro.GRO's Flush takes one packet out of
// each bucket only.
func (l *link) flush() {
	l.past.flush()
	for range bucketSize {
		l.merger.Flush()
	}
}

// above is netstack from a link's view. It is not what netstack attaches: that
// would take all packets for verified, or none.
type above struct{ *link }

func (a above) DeliverNetworkPacket(network tcpip.NetworkProtocolNumber, pkt *netstack.PacketBuffer) {
	if network == header.IPv4ProtocolNumber {
		a.ipv4.HandlePacket(pkt)
	} else {
		a.ipv6.HandlePacket(pkt)
	}
}

func (a above) DeliverLinkPacket(tcpip.NetworkProtocolNumber, *netstack.PacketBuffer) {}

// WritePackets implements netstack.LinkEndpoint.
func (l *link) WritePackets(pkts netstack.PacketBufferList) (int, tcpip.Error) {
	l.send(pkts.AsSlice())
	return pkts.Len(), nil
}

// SupportedGSO implements netstack.GSOEndpoint.
func (l *link) SupportedGSO() netstack.SupportedGSO {
	if l.maxMerged() > 0 {
		return netstack.HostGSOSupported
	}
	return netstack.GSONotSupported
}

// GSOMaxSize implements netstack.GSOEndpoint.
func (l *link) GSOMaxSize() uint32 { return l.maxMerged() }

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
