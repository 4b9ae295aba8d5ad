package stack

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/buffer"
	netstack "gvisor.dev/gvisor/pkg/tcpip/stack"
)

const (
	// virtioHeader is the size of a struct virtio_net_hdr, in bytes: flags,
	// gso_type, hdr_len, gso_size, csum_start, csum_offset, the last four of
	// 16 bits in the machine's byte order (Virtual I/O Device 1.2, section
	// 5.1.6).
	virtioHeader = 10
	// offloads are those of a TUN device that we know what to do with.
	offloads = unix.TUN_F_CSUM | unix.TUN_F_TSO4 | unix.TUN_F_TSO6
	// offloadsUDP are those since Linux 6.2: several datagrams of one size in a
	// packet.
	offloadsUDP = unix.TUN_F_USO4 | unix.TUN_F_USO6
	// burst is how many packets are read before those merged are delivered,
	// where no pause does it sooner: enough for some of each of many flows.
	burst = 256
	// maxParts is how many pieces of memory writev takes at once (IOV_MAX).
	maxParts = 1024
)

// virtio is the carrier over the descriptor of a TUN device whose packets come
// with a virtio_net_hdr: the kernel leaves several segments of a connection in
// one packet, and checksums to whoever sends the packet on.
type virtio struct {
	device    syscall.RawConn
	counters  *counters
	datagrams bool      // whether it takes several in a packet
	writes    sync.Pool // of *virtioWrite
}

// newCarrier returns the best carrier for config's device.
func newCarrier(config Config, counters *counters) (carrier, error) {
	file := config.Device.File()
	if file == nil {
		return newPortable(config, counters), nil
	}
	device, err := file.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("reaching the TUN device: %w", err)
	}
	offloading, datagrams := false, false
	if err := device.Control(func(fd uintptr) { offloading, datagrams = setOffloads(int(fd)) }); err != nil {
		return nil, fmt.Errorf("reaching the TUN device: %w", err)
	}
	if !offloading {
		return newPortable(config, counters), nil
	}
	return newVirtio(device, counters, datagrams), nil
}

// setOffloads asks for the offloads of a TUN device, and reports whether they
// are given, those of UDP among them.
func setOffloads(fd int) (given, datagrams bool) {
	request, err := unix.NewIfreq("")
	if err != nil || unix.IoctlIfreq(fd, unix.TUNGETIFF, request) != nil {
		return false, false
	}
	size, err := unix.IoctlGetUint32(fd, unix.TUNGETVNETHDRSZ) // an int of C, narrower than Go's
	if request.Uint16()&unix.IFF_VNET_HDR == 0 || err != nil || size != virtioHeader {
		return false, false
	}
	if unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, offloads|offloadsUDP) == nil {
		return true, true
	}
	return unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, offloads) == nil, false
}

func newVirtio(device syscall.RawConn, counters *counters, datagrams bool) *virtio {
	v := &virtio{device: device, counters: counters, datagrams: datagrams}
	v.writes.New = func() any { return newVirtioWrite() }
	return v
}

func (v *virtio) receive(l *link) error {
	frame := newVirtioRead()
	var failure error
	// Reads until nothing is there, as each wait costs more than a read.
	drain := func(fd uintptr) bool {
		defer l.flush()
		for range burst {
			n, err := readv(fd, frame.parts[:])
			switch {
			case err == nil:
				v.take(l, frame, n)
			case errors.Is(err, unix.EAGAIN):
				return false
			case !errors.Is(err, unix.EINTR):
				failure = err
				return true
			}
		}
		return true // between bursts, to see whether the device was closed
	}
	for failure == nil {
		waiting := v.device.Read(drain) // sets failure, too
		failure = errors.Join(failure, waiting)
	}
	v.counters.deviceErrors.Add(1)
	return fmt.Errorf("reading from the TUN device: %w", failure)
}

// take delivers the packet in frame, of which n bytes have been read, to l.
func (v *virtio) take(l *link, frame *virtioRead, n int) {
	n -= virtioHeader
	if n < 0 {
		v.counters.received.Add(1)
		v.counters.droppedNotIP.Add(1)
		return
	}
	h := frame.header
	// NEEDS_CSUM: it comes from this host or from a merging one, and its
	// checksum is not yet there. DATA_VALID: the kernel has looked.
	verified := h[0]&(unix.VIRTIO_NET_HDR_F_NEEDS_CSUM|unix.VIRTIO_NET_HDR_F_DATA_VALID) != 0
	size := 0
	if h[1] == unix.VIRTIO_NET_HDR_GSO_UDP_L4 {
		size = int(binary.NativeEndian.Uint16(h[4:]))
	}
	l.deliver(frame.packet.AsSlice()[:n], verified, size, frame.give)
}

// send writes in the caller's goroutine: that keeps the order in a connection,
// and a TUN device does not block.
func (v *virtio) send(pkts []*netstack.PacketBuffer) {
	w := v.writes.Get().(*virtioWrite)
	defer v.writes.Put(w)
	for _, pkt := range pkts {
		w.load(pkt)
		if err := v.device.Control(w.write); err != nil || w.err != nil {
			v.counters.deviceErrors.Add(1)
			continue
		}
		v.counters.sent.Add(1)
	}
	w.unload()
}

func (v *virtio) write(head, payload []byte, o offload) error {
	w := v.writes.Get().(*virtioWrite)
	defer v.writes.Put(w)
	defer w.unload()
	w.begin(encodeOffload(o, len(head)))
	w.add(head)
	w.add(payload)
	if err := v.device.Control(w.write); err != nil {
		return err
	}
	if w.err != nil {
		v.counters.deviceErrors.Add(1)
		return w.err
	}
	v.counters.sent.Add(1)
	return nil
}

func (v *virtio) mergesUDP() bool { return v.datagrams }

// maxMerged is the longest IP packet.
func (v *virtio) maxMerged() uint32 { return maxPacket }

// virtioRead is where a packet is read to.
type virtioRead struct {
	header [virtioHeader]byte
	packet *buffer.View // of maxPacket bytes
	parts  [2]unix.Iovec
}

// maxPacket is the longest packet, in bytes, that a TUN device has.
const maxPacket = 65535

func newVirtioRead() *virtioRead {
	r := &virtioRead{}
	r.parts[0].Base = &r.header[0]
	r.parts[0].SetLen(virtioHeader)
	r.renew()
	return r
}

// renew makes room for another packet.
func (r *virtioRead) renew() {
	r.packet = buffer.NewViewSize(maxPacket)
	r.parts[1].Base = &r.packet.AsSlice()[0]
	r.parts[1].SetLen(maxPacket)
}

// give returns the memory that a packet of n bytes was read to, for another
// owner. That of a short one stays, as netstack counts all of it as received.
func (r *virtioRead) give(n int) *buffer.View {
	if n <= maxPacket/2 {
		return nil
	}
	given := r.packet
	given.CapLength(n)
	r.renew()
	return given
}

// virtioWrite is one packet on its way to a descriptor.
type virtioWrite struct {
	header [virtioHeader]byte
	parts  []unix.Iovec // the header first
	rest   []byte       // what is beyond maxParts, copied
	err    error        // of the write
	write  func(fd uintptr)
}

func newVirtioWrite() *virtioWrite {
	w := &virtioWrite{}
	w.write = func(fd uintptr) { w.err = writev(fd, w.parts) }
	return w
}

// begin makes h the first part.
func (w *virtioWrite) begin(h [virtioHeader]byte) {
	w.header, w.parts, w.rest = h, w.parts[:0], w.rest[:0]
	w.add(w.header[:])
}

func (w *virtioWrite) load(pkt *netstack.PacketBuffer) {
	w.begin(encodeVirtio(pkt))
	views, offset := pkt.AsViewList()
	for view := views.Front(); view != nil; view = view.Next() {
		part := view.AsSlice()
		if skipped := min(offset, len(part)); skipped > 0 {
			part, offset = part[skipped:], offset-skipped
		}
		if len(w.parts) < maxParts-1 {
			w.add(part)
		} else { // data that was written octet by octet comes in as many parts
			w.rest = append(w.rest, part...)
		}
	}
	w.add(w.rest)
}

// add puts part behind the others.
func (w *virtioWrite) add(part []byte) {
	if len(part) > 0 {
		v := unix.Iovec{Base: &part[0]}
		v.SetLen(len(part))
		w.parts = append(w.parts, v)
	}
}

// unload forgets the packet's memory.
func (w *virtioWrite) unload() {
	clear(w.parts)
	w.parts = w.parts[:0]
}

// readv and writev are the system calls on a descriptor that never waits, made
// without telling Go's scheduler of them: for a call of a few microseconds that
// costs as much again.

func readv(fd uintptr, parts []unix.Iovec) (int, error) {
	n, _, errno := unix.RawSyscall(unix.SYS_READV, fd, uintptr(unsafe.Pointer(&parts[0])), uintptr(len(parts)))
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

func writev(fd uintptr, parts []unix.Iovec) error {
	_, _, errno := unix.RawSyscall(unix.SYS_WRITEV, fd, uintptr(unsafe.Pointer(&parts[0])), uintptr(len(parts)))
	if errno != 0 {
		return errno
	}
	return nil
}

// encodeVirtio returns the header that tells the kernel what netstack left to
// it: the checksum, and to cut the packet into segments.
func encodeVirtio(pkt *netstack.PacketBuffer) (h [virtioHeader]byte) {
	gso := &pkt.GSOOptions
	if gso.Type == netstack.GSONone || !gso.NeedsCsum {
		return h
	}
	h[0] = unix.VIRTIO_NET_HDR_F_NEEDS_CSUM
	binary.NativeEndian.PutUint16(h[2:], uint16(pkt.HeaderSize()))
	binary.NativeEndian.PutUint16(h[6:], gso.L3HdrLen)
	binary.NativeEndian.PutUint16(h[8:], gso.CsumOffset)
	if pkt.Data().Size() > int(gso.MSS) {
		h[1] = unix.VIRTIO_NET_HDR_GSO_TCPV4
		if gso.Type == netstack.GSOTCPv6 {
			h[1] = unix.VIRTIO_NET_HDR_GSO_TCPV6
		}
		binary.NativeEndian.PutUint16(h[4:], gso.MSS)
	}
	return h
}

// encodeOffload returns the header that tells the kernel what is left to it of
// a packet with headers of this many bytes.
func encodeOffload(o offload, headers int) (h [virtioHeader]byte) {
	if o.start == 0 {
		return h
	}
	h[0] = unix.VIRTIO_NET_HDR_F_NEEDS_CSUM
	binary.NativeEndian.PutUint16(h[2:], uint16(headers))
	binary.NativeEndian.PutUint16(h[6:], uint16(o.start))
	binary.NativeEndian.PutUint16(h[8:], uint16(o.at))
	if o.size > 0 {
		h[1] = unix.VIRTIO_NET_HDR_GSO_UDP_L4
		binary.NativeEndian.PutUint16(h[4:], uint16(o.size))
	}
	return h
}
