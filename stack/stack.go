package stack

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	netstack "gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
)

// Handler decides what becomes of flows. All methods are called concurrently.
type Handler interface {
	// Admit reports whether dst stands for something and the flow of client
	// may start; network is "tcp", "udp", or "icmp" for a ping. It runs on the
	// packet path and must not block. A flow that is not admitted is refused at once.
	Admit(network string, client, dst netip.AddrPort) bool
	// ServeTCP answers r and returns when the connection is over, soon after
	// ctx is done. What it leaves unanswered is refused, what it leaves open
	// is closed.
	ServeTCP(ctx context.Context, r *TCPRequest)
	// ServeDatagrams is the same for f.
	ServeDatagrams(ctx context.Context, f *DatagramFlow)
}

// Config is what a Stack needs. Zero bounds have the defaults named here.
type Config struct {
	Device  Device  // never nil
	MTU     int     // of the Device, in bytes: 1280 (RFC 8200, section 5) to 65535
	Handler Handler // never nil

	// Memory is that of the machine, in bytes. The default bounds and the TCP
	// buffers are smaller where it is less than 4 GiB; 0 is taken for more.
	Memory uint64

	// TCP requests not yet established, and connections closed with bytes that
	// the client has not yet taken; 8192 or by Memory.
	MaxPending                int
	MaxPendingPerClient       int // the same of one client address; two thirds of MaxPending
	MaxDatagramFlows          int // flows of UDP and ICMP alive; 8192 or by Memory
	MaxDatagramFlowsPerClient int // the same of one client address; two thirds of MaxDatagramFlows

	// Router is the IPv4 address of ours that speaks for IPv6 routers, invalid
	// for the destination itself.
	Router netip.Addr

	Logger *slog.Logger // nil is silent
}

// Stack terminates the flows that arrive on a Device.
type Stack struct {
	config   Config
	share    share
	counters counters
	running  running
	network  atomic.Pointer[netstack.Stack] // nil unless Run runs, like datagrams

	datagrams atomic.Pointer[datagramSide]
}

// New returns a Stack. Nothing moves before Run.
func New(config Config) (*Stack, error) {
	switch {
	case config.Device == nil:
		return nil, errors.New("making a stack: no device")
	case config.Handler == nil:
		return nil, errors.New("making a stack: no handler")
	case config.MTU < 1280 || config.MTU > 65535:
		return nil, fmt.Errorf("making a stack: MTU %d is not from 1280 to 65535", config.MTU)
	}
	if config.Logger == nil {
		config.Logger = slog.New(slog.DiscardHandler)
	}
	share := plenty
	if config.Memory != 0 {
		share = shareOf(config.Memory)
	}
	config.MaxPending = cmp.Or(config.MaxPending, share.max)
	config.MaxDatagramFlows = cmp.Or(config.MaxDatagramFlows, share.max)
	return &Stack{config: config, share: share}, nil
}

// Counters returns what s has done so far.
func (s *Stack) Counters() Counters { return s.counters.snapshot() }

// Endpoints returns how many TCP connections netstack knows, among them those
// that no handler has any more and that only wait for the client's last words.
func (s *Stack) Endpoints() int {
	network := s.network.Load()
	if network == nil {
		return 0
	}
	return len(network.RegisteredEndpoints())
}

// Run carries packets until ctx is done, then resets what is left, waits for
// every goroutine, the Handler's methods included, and returns nil. It fails
// when the Device does. Run closes the Device before it returns, and may be
// called once.
func (s *Stack) Run(ctx context.Context) error {
	carrier, err := newCarrier(s.config, &s.counters)
	if err != nil {
		return errors.Join(err, s.config.Device.Close())
	}
	return s.run(ctx, carrier)
}

// run is Run over one way to reach the Device.
func (s *Stack) run(ctx context.Context, carrier carrier) error {
	link := newLink(carrier, s.config, &s.counters)
	network, err := newNetwork(link, s.share)
	if err != nil {
		return errors.Join(err, s.config.Device.Close())
	}
	s.network.Store(network)
	defer s.network.Store(nil)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	errs := &teller{link: link, network: network, counters: &s.counters}
	tcpSide, datagramSide := newTCPSide(ctx, s, network, errs), newDatagramSide(ctx, s, link, errs)
	s.datagrams.Store(datagramSide)
	defer s.datagrams.Store(nil)
	network.SetTransportProtocolHandler(tcp.ProtocolNumber, tcpSide.handle)
	link.onSYN, link.past = tcpSide.reopen, datagramSide

	var workers sync.WaitGroup
	received := make(chan error, 1)
	workers.Go(func() { received <- link.receive(link) })
	workers.Go(func() {
		for range s.config.Device.Events() { // full, it would block the device
		}
	})
	select {
	case <-ctx.Done():
	case err = <-received:
	}

	cancel()
	s.running.close(func() {
		datagramSide.close()
		for _, endpoint := range network.RegisteredEndpoints() {
			endpoint.Abort()
		}
	})
	network.Destroy()
	if closing := s.config.Device.Close(); closing != nil && !errors.Is(closing, os.ErrClosed) {
		err = errors.Join(err, fmt.Errorf("closing the TUN device: %w", closing))
	}
	workers.Wait()
	return err
}

// running are the handlers that run.
type running struct {
	mu       sync.Mutex // guards closed, and Add of handlers against Wait
	closed   bool
	handlers sync.WaitGroup
}

// begin counts a handler. It is false when s is about to end.
func (r *running) begin() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return false
	}
	r.handlers.Add(1)
	return true
}

// end uncounts a handler.
func (r *running) end() { r.handlers.Done() }

// ending reports whether no new flow or connection may begin.
func (r *running) ending() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.closed
}

// close calls abort, which ends every connection and flow, and waits until no
// handler runs.
func (r *running) close(abort func()) {
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.handlers.Wait()
	}()
	// A handler that was about to accept may still open a connection.
	again := time.NewTicker(10 * time.Millisecond)
	defer again.Stop()
	for {
		abort()
		select {
		case <-done:
			return
		case <-again.C:
		}
	}
}
