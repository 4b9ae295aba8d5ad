package appliance

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"sixgate/appliance/config"
	"sixgate/appliance/host"
	"sixgate/stack"
)

const (
	// misses is how many connections in a row may be lost in the kernel before
	// it gets no more for a pause: what it sends back at once costs nothing. A
	// client can feign such failures. What it gains is that connections go by
	// the stack for a while.
	misses = 3
	pause  = time.Minute

	// synAckRetries makes the kernel send a SYN-ACK at 0, 1, 3 and 7 s and
	// forget the SYN at 15 s, as the stack does.
	synAckRetries = 3
)

// handover has the kernel carry connections that the gateway has dialled: the
// stack gives a SYN back to it, and the connection comes in by a listening
// socket.
type handover struct {
	log *slog.Logger

	mu       sync.Mutex // guards what follows
	sockets  []*patient
	chosen   string
	room     int  // for connections that the kernel is to take
	tells    bool // the kernel tells which it has
	expected map[ends]chan net.Conn
	missed   int       // connections in a row
	resume   time.Time // no connection before
}

// ends are what tells a connection from others.
type ends struct{ client, dest netip.AddrPort }

func newHandover(logger *slog.Logger) *handover {
	return &handover{log: logger, chosen: "off", expected: make(map[ends]chan net.Conn)}
}

// open opens a socket for each pool of s, where the mode and the host allow it.
// The error is of the mode "on" alone.
func (h *handover) open(ctx context.Context, mode config.Handover, s host.State) error {
	if mode == config.HandoverOff {
		return nil
	}
	err := h.listen(ctx, s.Pools)
	if err == nil {
		s.Handover = h.addresses()
		err = host.CheckHandover(s)
	}
	if err == nil {
		h.choose("on")
		h.log.Info("the kernel takes over TCP connections of the LAN")
		return nil
	}
	h.close()
	if mode == config.HandoverOn {
		return fmt.Errorf("%w: having the kernel take over TCP connections: %w", ErrHost, err)
	}
	h.choose("off: " + err.Error())
	h.log.Info("the kernel takes over no TCP connections", "err", err)
	return nil
}

// handoverSocket is where connections to a pool come in, on a port.
func handoverSocket(pool netip.Prefix, port uint16) netip.AddrPort {
	if pool.Addr().Is4() {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), port)
	}
	return netip.AddrPortFrom(netip.IPv6Loopback(), port)
}

// listen opens the sockets.
func (h *handover) listen(ctx context.Context, pools []netip.Prefix) error {
	backlog, err := host.Backlog()
	if err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	// A queue that is full makes the kernel answer SYNs by cookies, whose
	// connections no rule finds.
	h.room = backlog / 2
	lc := net.ListenConfig{Control: transparent, KeepAlive: -1}
	lc.SetMultipathTCP(false) // it does not splice
	for _, pool := range pools {
		socket, err := lc.Listen(ctx, "tcp", handoverSocket(pool, 0).String())
		if err != nil {
			return err
		}
		h.sockets = append(h.sockets, newPatient(socket, "taking connections from the kernel", h.log))
		h.tells = host.TellsOf(socket.Addr().(*net.TCPAddr).AddrPort())
	}
	return nil
}

// addresses returns where the sockets are.
func (h *handover) addresses() (all []netip.AddrPort) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, socket := range h.sockets {
		all = append(all, socket.Addr().(*net.TCPAddr).AddrPort())
	}
	return all
}

// transparent lets a socket have connections to addresses that are not of this
// machine (IP_TRANSPARENT), and gives these what they inherit of it.
func transparent(network, _ string, c syscall.RawConn) (err error) {
	level, option := unix.SOL_IP, unix.IP_TRANSPARENT
	if network == "tcp6" {
		level, option = unix.SOL_IPV6, unix.IPV6_TRANSPARENT
	}
	keep := stack.KeepAlive()
	options := []struct{ level, option, value int }{
		{level, option, 1},
		{unix.SOL_TCP, unix.TCP_SYNCNT, synAckRetries},
		{unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1},
		{unix.SOL_TCP, unix.TCP_KEEPIDLE, int(keep.Idle.Seconds())},
		{unix.SOL_TCP, unix.TCP_KEEPINTVL, int(keep.Interval.Seconds())},
		{unix.SOL_TCP, unix.TCP_KEEPCNT, keep.Count},
	}
	controlled := c.Control(func(fd uintptr) {
		for _, o := range options {
			if err == nil {
				err = unix.SetsockoptInt(int(fd), o.level, o.option, o.value)
			}
		}
	})
	return errors.Join(controlled, err)
}

// serve starts a task for each socket, until h is closed.
func (h *handover) serve(tasks *errgroup.Group) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, socket := range h.sockets {
		tasks.Go(func() error { return h.receive(socket) })
	}
}

// receive takes what the kernel has taken.
func (h *handover) receive(socket net.Listener) error {
	for {
		conn, err := socket.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		h.deliver(conn.(*net.TCPConn)) // a patient has no other error
	}
}

// deliver gives conn to who waits for it. A stranger's, such as a program's of
// this machine, is reset.
func (h *handover) deliver(conn *net.TCPConn) {
	client, dest := conn.RemoteAddr().(*net.TCPAddr).AddrPort(), conn.LocalAddr().(*net.TCPAddr).AddrPort()
	e := ends{netip.AddrPortFrom(client.Addr().WithZone(""), client.Port()), dest}
	h.mu.Lock()
	arrived := h.expected[e]
	delete(h.expected, e)
	h.mu.Unlock()
	if arrived == nil {
		refuse(conn)
		return
	}
	arrived <- conn
}

// accept has the kernel take r. The error is stack.ErrNotTaken where r is
// better accepted by the stack.
func (h *handover) accept(ctx context.Context, r *stack.TCPRequest) (net.Conn, error) {
	e := ends{r.Client(), r.Dest()}
	arrived := h.expect(e)
	if arrived == nil {
		return nil, stack.ErrNotTaken
	}
	conn, err := r.HandBack(ctx, arrived, func() bool { return h.carries(e) })
	if err != nil {
		h.forget(e, arrived)
		return nil, err
	}
	h.taken()
	return conn, nil
}

// expect returns where the connection of e will arrive, or nil where none is to
// be handed over now.
func (h *handover) expect(e ends) chan net.Conn {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.sockets) == 0 || len(h.expected) >= h.room || time.Now().Before(h.resume) {
		return nil
	}
	arrived := make(chan net.Conn, 1)
	h.expected[e] = arrived
	return arrived
}

// forget ends what expect began.
func (h *handover) forget(e ends, arrived chan net.Conn) {
	h.mu.Lock()
	expected := h.expected[e] == arrived
	if expected {
		delete(h.expected, e)
	}
	h.mu.Unlock()
	if expected {
		return
	}
	if conn := <-arrived; conn != nil { // too late
		refuse(conn.(*net.TCPConn))
	}
}

// refuse resets conn.
func refuse(conn *net.TCPConn) {
	conn.SetLinger(0)
	conn.Close()
}

// carries reports whether the kernel has the connection of e, which is so as
// far as nobody knows better.
func (h *handover) carries(e ends) bool {
	h.mu.Lock()
	tells := h.tells
	h.mu.Unlock()
	if !tells {
		return true
	}
	carried, err := host.Carries(e.client, e.dest)
	return carried || err != nil
}

// taken notes that the kernel has taken a connection.
func (h *handover) taken() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.missed = 0
}

// lost notes that a connection was lost in the kernel although its client is
// there, and makes a pause where that is so of several.
func (h *handover) lost() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.missed++; h.missed >= misses {
		h.missed, h.resume = 0, time.Now().Add(pause)
		h.log.Warn("the kernel takes over no connections, perhaps another firewall drops what comes from the TUN device", "pause", pause)
	}
}

// choose notes what was chosen, and why.
func (h *handover) choose(chosen string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.chosen = chosen
}

// String tells whether connections are handed over, and why not.
func (h *handover) String() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	if wait := time.Until(h.resume).Round(time.Second); wait > 0 {
		return fmt.Sprintf("paused for %v: the kernel took no connections", wait)
	}
	return h.chosen
}

// close closes the sockets, and ends the wait for connections.
func (h *handover) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, socket := range h.sockets {
		socket.Close()
	}
	h.sockets = nil
	for e, arrived := range h.expected {
		close(arrived)
		delete(h.expected, e)
	}
}

// kernelPending is a connection of the TUN that the kernel may carry. It
// implements gateway.Pending.
type kernelPending struct {
	*stack.TCPRequest
	ctx      context.Context
	handover *handover
}

// Accept leaves the connection to the kernel where it can.
func (p kernelPending) Accept(bound netip.AddrPort) (net.Conn, error) {
	conn, failed := p.handover.accept(p.ctx, p.TCPRequest)
	if !errors.Is(failed, stack.ErrNotTaken) {
		return conn, failed
	}
	conn, err := p.TCPRequest.Accept(bound)
	if err == nil && errors.Is(failed, stack.ErrLost) {
		p.handover.lost()
	}
	return conn, err
}

// checkHandover tells what a gateway would do here.
func checkHandover(c *config.Config, m *machine) Finding {
	const what = "handover"
	if c.TUN.Handover == config.HandoverOff {
		return Finding{OK: true, What: what, Result: "off, the gateway's own stack carries TCP"}
	}
	s := m.state(c)
	for _, pool := range s.Pools {
		s.Handover = append(s.Handover, handoverSocket(pool, 1)) // its port does not matter
	}
	err := host.CheckHandover(s)
	if err != nil && c.TUN.Handover == config.HandoverAuto {
		return Finding{OK: true, What: what, Result: "not possible, the gateway's own stack carries TCP: " + err.Error()}
	}
	return finding(what, "the kernel carries TCP of the LAN", err, "see to that, or set [tun] handover to auto")
}
