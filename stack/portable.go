package stack

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"

	netstack "gvisor.dev/gvisor/pkg/tcpip/stack"
)

const (
	// headroom is what a Device wants free before each packet, in bytes: a TUN
	// device puts its virtio_net_hdr there.
	headroom = 10
	// readAttempts is how many reads may fail in a row. One failure may be
	// about one packet or about the device's netlink socket; many mean that
	// there is no device any more.
	readAttempts = 10
)

// portable is the carrier over a Device's own Read and Write: packets of MTU
// size, with all their checksums.
type portable struct {
	device   Device
	mtu      int // bytes
	counters *counters
	logger   *slog.Logger

	mu     sync.Mutex // guards packet
	packet []byte     // that is written, after the headroom
}

func newPortable(config Config, counters *counters) *portable {
	return &portable{
		device:   config.Device,
		mtu:      config.MTU,
		counters: counters,
		logger:   config.Logger,
		packet:   make([]byte, headroom, headroom+config.MTU),
	}
}

func (d *portable) receive(l *link) error {
	packets := make([][]byte, d.device.BatchSize())
	for i := range packets {
		packets[i] = make([]byte, headroom+d.mtu)
	}
	sizes := make([]int, len(packets))
	for failed := 0; ; {
		n, err := d.device.Read(packets, sizes, headroom)
		for i := range n {
			l.deliver(packets[i][headroom:headroom+sizes[i]], false, 0, nil)
		}
		l.flush()
		if err == nil {
			failed = 0
			continue
		}
		failed++
		d.counters.deviceErrors.Add(1)
		if errors.Is(err, os.ErrClosed) || failed == readAttempts {
			return fmt.Errorf("reading from the TUN device: %w", err)
		}
		d.logger.Warn("reading from the TUN device", "err", err)
	}
}

func (d *portable) send(pkts []*netstack.PacketBuffer) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, pkt := range pkts {
		d.packet = d.packet[:headroom]
		for _, part := range pkt.AsSlices() {
			d.packet = append(d.packet, part...)
		}
		if _, err := d.device.Write([][]byte{d.packet}, headroom); err != nil {
			d.counters.deviceErrors.Add(1)
			continue
		}
		d.counters.sent.Add(1)
	}
}

func (d *portable) write(head, payload []byte, _ offload) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.packet = append(append(d.packet[:headroom], head...), payload...)
	if _, err := d.device.Write([][]byte{d.packet}, headroom); err != nil {
		d.counters.deviceErrors.Add(1)
		return err
	}
	d.counters.sent.Add(1)
	return nil
}

func (d *portable) mergesUDP() bool { return false }

func (d *portable) maxMerged() uint32 { return 0 }
