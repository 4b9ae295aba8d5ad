package stack

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"io"
	"net/netip"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.zx2c4.com/wireguard/tun"
	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	netstack "gvisor.dev/gvisor/pkg/tcpip/stack"
)

// fed is a virtio carrier, and its device, that the test feeds with frames.
type fed struct {
	tun.Device // nil
	*virtio
	frames chan []byte
	taken  chan struct{}
	events chan tun.Event
}

func (d *fed) receive(l *link) error {
	room := newVirtioRead()
	for frame := range d.frames {
		d.take(l, room, copy(room.header[:], frame)+copy(room.packet.AsSlice(), frame[min(len(frame), virtioHeader):]))
		l.flush()
		d.taken <- struct{}{}
	}
	return os.ErrClosed
}

// put hands a frame to the stack.
func (d *fed) put(frame []byte) {
	d.frames <- frame
	<-d.taken
}

func (d *fed) Events() <-chan tun.Event { return d.events }
func (d *fed) Close() error {
	close(d.events)
	close(d.frames)
	return nil
}

// startFed runs a Stack until the test ends. What it sends is lost.
func startFed(tb testing.TB, handler Handler) *fed {
	tb.Helper()
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		tb.Fatal(err)
	}
	raw, err := null.SyscallConn()
	if err != nil {
		tb.Fatal(err)
	}
	d := &fed{frames: make(chan []byte), taken: make(chan struct{}), events: make(chan tun.Event)}
	s, err := New(Config{Device: d, MTU: 1500, Handler: handler, MaxPending: 100, MaxDatagramFlows: 100})
	if err != nil {
		tb.Fatal(err)
	}
	d.virtio = newVirtio(raw, &s.counters, true)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.run(ctx, d) }()
	tb.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			tb.Error(err)
		}
		null.Close()
	})
	return d
}

// serving is a Handler of one function.
type serving func(*TCPRequest)

func (h serving) Admit(string, netip.AddrPort, netip.AddrPort) bool { return true }
func (h serving) ServeTCP(_ context.Context, r *TCPRequest)         { h(r) }
func (h serving) ServeDatagrams(_ context.Context, f *DatagramFlow) { f.Refuse(syscall.ECONNREFUSED) }
func unhex(s string) []byte {
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		panic(err)
	}
	return b
}

// Headers of struct virtio_net_hdr, for a little-endian machine.
const (
	unflagged = "00 00 0000 0000 0000 0000"
	needsCsum = "01 00 0000 0000 1400 1000"
	dataValid = "02 00 0000 0000 0000 0000"
)

// synFrame returns the frame of a SYN from a port, with a header checksum and
// this TCP checksum.
func synFrame(virtio string, port, checksum uint16) []byte {
	b := unhex(virtio + "45000028 00000000 40060000" + ends4 + "0000 0050 00000001 00000000 5002ffff 0000 0000")
	ip := header.IPv4(b[virtioHeader:])
	ip.SetChecksum(^ip.CalculateChecksum())
	tcp := header.TCP(ip.Payload())
	tcp.SetSourcePort(port)
	tcp.SetChecksum(checksum)
	return b
}

// rightChecksum is that of synFrame from this port.
func rightChecksum(port uint16) uint16 {
	ip := header.IPv4(synFrame(unflagged, port, 0)[virtioHeader:])
	return ^header.TCP(ip.Payload()).CalculateChecksum(header.PseudoHeaderChecksum(
		header.TCPProtocolNumber, ip.SourceAddress(), ip.DestinationAddress(), header.TCPMinimumSize))
}

// Only what the kernel has not looked at is looked at.
func TestVirtioChecksums(t *testing.T) {
	served := make(chan uint16, 10)
	d := startFed(t, serving(func(r *TCPRequest) { served <- r.Client().Port() }))
	d.put(synFrame(unflagged, 1000, rightChecksum(1000)+1))
	d.put(synFrame(unflagged, 1001, rightChecksum(1001)))
	d.put(synFrame(needsCsum, 1002, 0))
	d.put(synFrame(dataValid, 1003, 0))
	var got []uint16
	for range 3 {
		got = append(got, <-served)
	}
	slices.Sort(got)
	if !slices.Equal(got, []uint16{1001, 1002, 1003}) {
		t.Errorf("served clients of ports %v", got)
	}
}

func TestEncodeVirtio(t *testing.T) {
	tests := []struct {
		name    string
		gso     netstack.GSO
		payload int
		want    [virtioHeader]byte // in network byte order
	}{
		{"complete", netstack.GSO{}, 5000, [virtioHeader]byte{}},
		{"one segment", netstack.GSO{Type: netstack.GSOTCPv4, NeedsCsum: true, CsumOffset: 16, MSS: 1448, L3HdrLen: 20}, 1448,
			[virtioHeader]byte{1, 0, 0, 52, 0, 0, 0, 20, 0, 16}},
		{"IPv4", netstack.GSO{Type: netstack.GSOTCPv4, NeedsCsum: true, CsumOffset: 16, MSS: 1448, L3HdrLen: 20}, 1449,
			[virtioHeader]byte{1, 1, 0, 52, 5, 168, 0, 20, 0, 16}},
		{"IPv6", netstack.GSO{Type: netstack.GSOTCPv6, NeedsCsum: true, CsumOffset: 16, MSS: 1428, L3HdrLen: 40}, 65000,
			[virtioHeader]byte{1, 4, 0, 72, 5, 148, 0, 40, 0, 16}},
	}
	for _, test := range tests {
		size := max(int(test.gso.L3HdrLen), header.IPv4MinimumSize)
		pkt := netstack.NewPacketBuffer(netstack.PacketBufferOptions{
			ReserveHeaderBytes: size + 32,
			Payload:            buffer.MakeWithData(make([]byte, test.payload)),
		})
		pkt.TransportHeader().Push(32)
		pkt.NetworkHeader().Push(size)
		pkt.GSOOptions = test.gso
		got := encodeVirtio(pkt)
		for i := 2; i < virtioHeader; i += 2 {
			binary.BigEndian.PutUint16(got[i:], binary.NativeEndian.Uint16(got[i:]))
		}
		if got != test.want {
			t.Errorf("%s: % d, want % d", test.name, got, test.want)
		}
		w := newVirtioWrite()
		w.load(pkt)
		n := 0
		for _, part := range w.parts {
			n += int(part.Len)
		}
		if n != virtioHeader+size+32+test.payload {
			t.Errorf("%s: %d bytes to write", test.name, n)
		}
		pkt.DecRef()
	}
}

// The kernel takes a limited number of parts, however many a packet has.
func TestVirtioManyParts(t *testing.T) {
	r, out, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer out.Close()
	raw, err := out.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	v := newVirtio(raw, &counters{}, true)
	for _, views := range []int{maxParts - 3, maxParts - 2, maxParts - 1, maxParts, 1500, 3} {
		var payload buffer.Buffer
		want := unhex(unflagged)
		for i := range views {
			octet := []byte{byte(i)}
			if err := payload.Append(buffer.NewViewWithData(octet)); err != nil {
				t.Fatal(err)
			}
			want = append(want, octet...)
		}
		pkt := netstack.NewPacketBuffer(netstack.PacketBufferOptions{Payload: payload})
		v.send([]*netstack.PacketBuffer{pkt})
		pkt.DecRef()
		if n := v.counters.deviceErrors.Load(); n != 0 {
			t.Fatalf("%d views: not sent", views)
		}
		got := make([]byte, len(want))
		if _, err := io.ReadFull(r, got); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%d views: sent otherwise, %v", views, err)
		}
	}
	if n := v.counters.sent.Load(); n != 6 {
		t.Errorf("%d packets sent", n)
	}
}

// collector is what stands above a link.
type collector struct{ payloads []string }

func (c *collector) DeliverNetworkPacket(_ tcpip.NetworkProtocolNumber, pkt *netstack.PacketBuffer) {
	b := pkt.Data().AsRange().ToSlice()
	c.payloads = append(c.payloads, string(b[40:]))
}
func (c *collector) DeliverLinkPacket(tcpip.NetworkProtocolNumber, *netstack.PacketBuffer) {}

// Segments that continue each other become one, whatever comes between, and
// none waits longer than its burst.
func TestMerge(t *testing.T) {
	l := newLink(nil, Config{MTU: 1500}, &counters{})
	l.past = &datagramSide{}
	got := &collector{}
	l.merger.Dispatcher = got
	const flows = bucketSize
	for _, part := range []string{"abcd", "efgh", "ij"} {
		for i := range uint16(flows) { // of one bucket: it is by the sum of both ports
			b := append(unhex("45000000 00000000 40060000"+ends4+"0000 0000 00000001 00000001 5010ffff 0000 0000"), part...)
			binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
			binary.BigEndian.PutUint16(b[20:], 1000+i)
			binary.BigEndian.PutUint16(b[22:], 1000-i)
			b[27] += part[0] - 'a'
			l.deliver(b, true, 0, nil)
		}
	}
	l.flush()
	want := slices.Repeat([]string{"abcdefghij"}, flows)
	if !slices.Equal(got.payloads, want) {
		t.Errorf("got %q", got.payloads)
	}
	// Without a shorter one to end them, they wait for the flush.
	got.payloads = nil
	for i := range uint16(flows) {
		b := append(unhex("4500002c 00000000 40060000"+ends4+"0000 0000 00000001 00000001 5010ffff 0000 0000"), "abcd"...)
		binary.BigEndian.PutUint16(b[20:], 1000+i)
		binary.BigEndian.PutUint16(b[22:], 1000-i)
		l.deliver(b, true, 0, nil)
	}
	l.flush()
	if len(got.payloads) != flows {
		t.Errorf("%d of %d flows delivered by a flush", len(got.payloads), flows)
	}
}

// Whatever comes from the descriptor, the stack lives on.
func FuzzVirtio(f *testing.F) {
	for _, b := range [][]byte{
		nil, {1}, unhex(unflagged), unhex(needsCsum + "45"),
		synFrame(unflagged, 1000, rightChecksum(1000)), synFrame(needsCsum, 1001, 0), synFrame(dataValid, 1001, 0)[:40],
		unhex("01 01 3400 a805 1400 1000 45000028 00000000 40060000" + ends4 + "03e90050 00000002 00000000 5010ffff 00000000 00000000"),
		unhex("01 04 0000 0100 2800 1000 60000000 00140640" + ends6 + "03e90050 00000001 00000000 5002ffff 00000000"),
		unhex("00 05 0000 0000 0000 0000 60000000 00103c40" + ends6 + "2c00000000000000 1100000100000001"),
		// Fragments of IPv4 and IPv6 that overlap, or say what cannot be.
		unhex(unflagged + "45000024 00012000 40060000" + ends4 + "03e90050000000010000000050020000"),
		unhex(unflagged + "45000024 00010001 40060000" + ends4 + "ffffffffffffffffffffffffffffffff"),
		unhex(unflagged + "45000024 00011fff 40060000" + ends4 + "ffffffffffffffffffffffffffffffff"),
		unhex(unflagged + "60000000 00182c40" + ends6 + "06000001 00000001 03e90050000000010000000050020000"),
		unhex(unflagged + "60000000 00182c40" + ends6 + "06000009 00000001 ffffffffffffffffffffffffffffffff"),
		// Options of IPv4 and TCP that are too long, too short, or do not end.
		unhex(dataValid + "46000030 00000000 40060000" + ends4 + "8303ffff 03e90050 00000001 00000000 6002ffff 00000000 020405b4"),
		unhex(dataValid + "4500002c 00000000 40060000" + ends4 + "03ea0050 00000001 00000000 6002ffff 00000000 0200ffff"),
		unhex(dataValid + "45000030 00000000 40060000" + ends4 + "03eb0050 00000001 00000000 7002ffff 00000000 080a0000 050aff01"),
	} {
		f.Add(b, b)
	}
	d := startFed(f, serving(func(r *TCPRequest) {
		if r.Dest().Port()%2 == 0 {
			r.Refuse(syscall.EHOSTUNREACH)
		} else if c, err := r.Accept(netip.AddrPort{}); err == nil {
			c.SetDeadline(time.Now().Add(time.Second))
			io.Copy(c, c)
		}
	}))
	f.Fuzz(func(t *testing.T, first, second []byte) {
		for _, b := range [][]byte{first, second} {
			d.put(b[:min(len(b), virtioHeader+65535)])
		}
	})
}

// What waits is not written over by what is read next, whether it was copied or
// keeps the memory that it was read to.
func TestReadBehindAnother(t *testing.T) {
	for _, size := range []int{1000, 60_000} {
		l := newLink(nil, Config{MTU: 1500}, &counters{})
		l.past = &datagramSide{}
		got := &collector{}
		l.merger.Dispatcher = got
		v := &virtio{counters: l.counters}
		room := newVirtioRead()
		first := room.packet
		var want []string
		for i, part := range []string{"a", "b"} {
			payload := strings.Repeat(part, size)
			b := append(unhex(dataValid+"45000000 00000000 40060000"+ends4+"0000 0050 00000001 00000001 5010ffff 0000 0000"), payload...)
			binary.BigEndian.PutUint16(b[virtioHeader+2:], uint16(len(b)-virtioHeader))
			binary.BigEndian.PutUint16(b[virtioHeader+20:], uint16(1000+i))
			copy(room.header[:], b)
			v.take(l, room, virtioHeader+copy(room.packet.AsSlice(), b[virtioHeader:]))
			want = append(want, payload)
		}
		l.flush()
		slices.Sort(got.payloads)
		if !slices.Equal(got.payloads, want) {
			t.Errorf("%d bytes: %d packets, not those that were read", size, len(got.payloads))
		}
		if kept := room.packet != first; kept != (size > maxPacket/2) {
			t.Errorf("%d bytes: memory kept by netstack: %t", size, kept)
		}
	}
}
