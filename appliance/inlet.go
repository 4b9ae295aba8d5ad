package appliance

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/time/rate"

	"sixgate/dnsfake"
	"sixgate/socks"
	"sixgate/socks/datagram"
	"sixgate/socks/gateway"
	"sixgate/stack"
)

// portDNS is answered by the gateway's own DNS on every address of the pools.
const portDNS = 53

const (
	// dnsFlowIdle ends a UDP flow to our DNS; resolvers use a new port a query.
	dnsFlowIdle = 10 * time.Second

	// maxQuery is room for a query with every EDNS option in use; what is
	// longer is cut, and answered as malformed.
	maxQuery = 4096
)

// tunInlet hands what arrives on the TUN to the gateway or to the DNS server.
// It implements stack.Handler.
type tunInlet struct {
	table   *dnsfake.Table
	dns     *dnsfake.Server
	gateway *gateway.Gateway

	literal literal
	capture bool // the DNS server answers also what goes to port 53 of a literal address

	handover *handover
	current  func() *machine

	policy    func() *policy
	nat64     func() netip.Prefix // of the uplink's network
	strangers *rate.Limiter
	packets   atomic.Pointer[stack.Stack] // that begins flows of strangers; nil: none
}

// Admit lets through what is for the DNS server, for an address that stands for
// a name, or for a literal address.
func (in *tunInlet) Admit(network string, client, dst netip.AddrPort) bool {
	if in.toDNS(network, client, dst) {
		return true
	}
	_, ok := in.table.NameOf(dst.Addr())
	if !in.table.Contains(dst.Addr()) {
		_, ok = in.literal(client.Addr(), dst.Addr())
	}
	return ok
}

// toDNS reports whether a flow of client to dst is answered by the gateway's DNS.
func (in *tunInlet) toDNS(network string, client, dst netip.AddrPort) bool {
	if network == "icmp" || dst.Port() != portDNS {
		return false
	}
	_, literal := in.literal(client.Addr(), dst.Addr())
	return in.table.Contains(dst.Addr()) || literal && in.capture
}

// ServeTCP serves a connection until it ends.
func (in *tunInlet) ServeTCP(ctx context.Context, r *stack.TCPRequest) {
	if !in.toDNS("tcp", r.Client(), r.Dest()) {
		in.gateway.Serve(ctx, in.session("tcp", r.Client(), r.Dest()), in.pending(ctx, r))
		return
	}
	// The client that gives up between SYN and ACK is no concern of anybody.
	if conn, err := r.Accept(r.Dest()); err == nil {
		in.dns.ServeStream(ctx, conn)
	}
}

// pending returns r as what the gateway answers. The kernel takes back SYNs to
// the pools alone, others it would send to the world. And it takes no packet
// from outside that has an address of its own machine.
func (in *tunInlet) pending(ctx context.Context, r *stack.TCPRequest) gateway.Pending {
	if !in.table.Contains(r.Dest().Addr()) || slices.Contains(in.current().own, r.Client().Addr()) {
		return r
	}
	return kernelPending{r, ctx, in.handover}
}

// ServeDatagrams serves a flow until it ends.
func (in *tunInlet) ServeDatagrams(ctx context.Context, f *stack.DatagramFlow) {
	if !in.toDNS(f.Network(), f.Client(), f.Dest()) {
		in.gateway.Serve(ctx, in.session(f.Network(), f.Client(), f.Dest()), pendingDatagrams{f})
		return
	}
	if conn, err := f.Accept(f.Dest()); err == nil {
		in.serveDNS(ctx, conn, f.Client())
	}
}

// pendingDatagrams is a flow of datagrams for the gateway.
type pendingDatagrams struct{ *stack.DatagramFlow }

func (p pendingDatagrams) Accept(bound netip.AddrPort) (net.Conn, error) {
	conn, err := p.DatagramFlow.Accept(bound)
	if err != nil {
		return nil, err
	}
	return forwarder{conn}, nil
}

// forwarder is a stack's connection for a relay.
type forwarder struct{ *stack.DatagramConn }

func (f forwarder) Send(b datagram.Batch) error { return f.DatagramConn.Send(stack.Datagrams(b)) }

func (f forwarder) Forward(take func(datagram.Batch) error, _ func(error)) {
	f.DatagramConn.Forward(func(d stack.Datagrams) error { return take(datagram.Batch(d)) })
}

// serveDNS answers the queries of one flow in order.
func (in *tunInlet) serveDNS(ctx context.Context, conn net.Conn, client netip.AddrPort) {
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	buf := make([]byte, maxQuery)
	for {
		if err := conn.SetReadDeadline(time.Now().Add(dnsFlowIdle)); err != nil {
			return
		}
		n, err := conn.Read(buf)
		if err != nil {
			return
		}
		if reply := in.dns.Reply(ctx, buf[:n], client, false); reply != nil {
			if _, err := conn.Write(reply); err != nil {
				return
			}
		}
	}
}

func (in *tunInlet) session(network string, client, dst netip.AddrPort) gateway.Session {
	s := gateway.Session{Inlet: "tun", Network: network, Client: client, Dest: socks.AddrFromAddrPort(dst)}
	if s.Fake = in.table.Contains(dst.Addr()); s.Fake {
		return s
	}
	if ip, ok := in.literal(client.Addr(), dst.Addr()); ok {
		s.Dest.IP = ip
	}
	return s
}

// literal returns the destination that an address outside the pools stands for
// when client writes it, if it stands for one.
type literal func(client, ip netip.Addr) (netip.Addr, bool)

// socksInlet hands SOCKS requests to the gateway. It implements socks.Handler.
type socksInlet struct {
	table   *dnsfake.Table
	gateway *gateway.Gateway
	literal literal
	logger  *slog.Logger
	leaks   atomic.Uint64 // requests and datagrams to fake addresses

	mu   sync.Mutex
	told time.Time // when it was last told of a leak; guarded by mu
}

// ServeSOCKS serves a request until its connection ends.
func (in *socksInlet) ServeSOCKS(ctx context.Context, r *socks.Request) {
	s := gateway.Session{Inlet: "socks", Network: "tcp", Client: r.Client(), User: r.User(), Dest: r.Dest()}
	if r.Command() == socks.CommandUDPAssociate {
		s.Network, s.Dest = "udp", socks.Addr{} // where the client would send from, a hint of no use
	}
	if err := in.leaked(s.Client, s.Dest); err != nil {
		r.Refuse(err)
		return
	}
	if ip, ok := in.literal(s.Client.Addr(), s.Dest.IP); ok {
		s.Dest.IP = ip
	}
	switch r.Command() {
	case socks.CommandConnect:
		in.gateway.Serve(ctx, s, r)
	case socks.CommandBind:
		in.gateway.ServeBind(ctx, s, r)
	case socks.CommandUDPAssociate:
		in.gateway.ServeAssociation(ctx, s, pendingAssociation{r, in})
	case socks.CommandResolve:
		if ip, err := in.gateway.Resolve(ctx, s); err != nil {
			r.Refuse(err)
		} else {
			r.Resolved(socks.Addr{IP: ip})
		}
	case socks.CommandResolvePTR:
		if name, err := in.gateway.ResolvePTR(ctx, s); err != nil {
			r.Refuse(err)
		} else {
			r.Resolved(socks.Addr{Name: name})
		}
	default:
		r.Refuse(fmt.Errorf("serving %s: %w", r.Command(), syscall.EOPNOTSUPP))
	}
}

// thisNetwork are addresses that no host has (RFC 1122, section 3.2.1.3), so
// that programs take them as fake ones: RFC 3089's own example does, SOCKS 4A,
// and Dante's client.
var thisNetwork = netip.MustParsePrefix("0.0.0.0/8")

// leaked refuses a fake address, ours or another's: it means nothing here, and
// is a client's that resolved elsewhere than it connects. 0.0.0.0 is none, it
// means any.
func (in *socksInlet) leaked(client netip.AddrPort, dest socks.Addr) error {
	if !in.table.Contains(dest.IP) && (!thisNetwork.Contains(dest.IP) || dest.IP.IsUnspecified()) {
		return nil
	}
	in.leaks.Add(1)
	in.tell(client, dest)
	return fmt.Errorf("reaching the fake address %s through SOCKS: %w", dest, syscall.EACCES)
}

// tell logs a leak, at most one a minute: each client may have thousands.
func (in *socksInlet) tell(client netip.AddrPort, dest socks.Addr) {
	in.mu.Lock()
	now := time.Now()
	due := now.Sub(in.told) >= time.Minute
	if due {
		in.told = now
	}
	in.mu.Unlock()
	if due {
		in.logger.Warn("a SOCKS client sends a fake address where it should send the name", "client", client, "dest", dest)
	}
}

// pendingAssociation is a UDP ASSOCIATE for the gateway.
type pendingAssociation struct {
	*socks.Request
	inlet *socksInlet
}

func (p pendingAssociation) Associate() (gateway.Association, error) {
	a, err := p.Request.Associate()
	if err != nil {
		return nil, err
	}
	return &association{Association: a, inlet: p.inlet, client: p.Client()}, nil
}

// maxWritten bounds how many addresses an association remembers the other form
// of, as the gateway does its destinations.
const maxWritten = 1024

// association drops what goes to fake addresses. What goes to an address that
// stands for another goes there, and is answered by the one that the client has
// written.
type association struct {
	*socks.Association
	inlet  *socksInlet
	client netip.AddrPort // of its connection

	mu      sync.Mutex
	written map[netip.Addr]netip.Addr // by the addresses that they stand for; guarded by mu
}

func (a *association) Forward(take func(datagram.Batch, socks.Addr)) {
	a.Association.Forward(func(b datagram.Batch, dest socks.Addr) {
		if a.inlet.leaked(a.client, dest) == nil {
			dest.IP = a.meant(dest.IP)
			take(b, dest)
		}
	})
}

// meant returns the address that one which the client has written stands for,
// or itself.
func (a *association) meant(written netip.Addr) netip.Addr {
	ip, ok := a.inlet.literal(a.client.Addr(), written)
	a.mu.Lock()
	defer a.mu.Unlock()
	if !ok || ip == written {
		delete(a.written, written) // the client knows it by itself
		return written
	}
	if a.written == nil || len(a.written) == maxWritten {
		a.written = make(map[netip.Addr]netip.Addr)
	}
	a.written[ip] = written
	return ip
}

func (a *association) Send(b datagram.Batch, from socks.Addr) error {
	a.mu.Lock()
	if written, ok := a.written[from.IP]; ok {
		from.IP = written
	}
	a.mu.Unlock()
	return a.Association.Send(b, from)
}
