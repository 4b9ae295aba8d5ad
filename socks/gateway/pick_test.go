package gateway

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"sixgate/socks"
	"sixgate/socks/outlet"
	"sixgate/socks/route"
)

// answers is a resolver whose answer about any name changes each time it is
// asked for all addresses; the last one stays.
type answers struct {
	mu   sync.Mutex
	next [][]netip.Addr // guarded by mu
}

func (a *answers) LookupNetIP(_ context.Context, network, _ string) ([]netip.Addr, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	ips := a.next[0]
	if network == "ip" && len(a.next) > 1 {
		a.next = a.next[1:]
	}
	var found []netip.Addr
	for _, ip := range ips {
		if network == "ip" || ip.Is4() == (network == "ip4") {
			found = append(found, ip)
		}
	}
	return found, nil
}

// A rule by network holds for the address that is dialled in the end, whatever
// DNS has said before, and takes no other address from a name.
func TestRulesHoldForAddresses(t *testing.T) {
	v4, v6 := netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("::1")
	ln, err := net.Listen("tcp", "[::1]:0")
	if err != nil {
		t.Skip("no IPv6 on loopback: ", err)
	}
	defer ln.Close()
	port := socks.AddrPortOf(ln.Addr()).Port()
	for _, tt := range []struct {
		what    string
		outlet  string
		answers [][]netip.Addr
		want    error
	}{
		{"the other address is dialled", "no", [][]netip.Addr{{v4, v6}}, nil},
		{"the only address is rejected", "no", [][]netip.Addr{{v4}}, syscall.EACCES},
		{"the answer changes to a rejected one", "no", [][]netip.Addr{{v6}, {v4}}, syscall.EACCES},
		{"the answer changes to one that goes elsewhere", "far", [][]netip.Addr{{v6}, {v4}}, syscall.EACCES},
		{"a rule for the same outlet", "direct", [][]netip.Addr{{v4, v6}}, nil},
	} {
		t.Run(tt.what, func(t *testing.T) {
			resolver := &answers{next: tt.answers}
			direct := outlet.NewDirect(outlet.DirectConfig{Resolver: resolver})
			g := newGateway(t, Config{Resolver: resolver}, Policy{
				Outlets: map[string]outlet.Outlet{"": direct, "direct": direct, "no": outlet.Reject{}, "far": &world{}},
				Rules:   route.Rules{{Networks: []netip.Prefix{netip.PrefixFrom(v4, 32)}, Outlet: tt.outlet}},
			})
			f := &flow{policy: g.Policy(), Session: Session{Network: "tcp", Dest: socks.Addr{Name: "x.test", Port: port}}}
			f.goes.dest = f.Dest
			conn, err := g.dial(t.Context(), f)
			if !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
			if err == nil {
				conn.Close()
			}
		})
	}
}

// loop is an outlet that leads back to its own gateway.
type loop struct {
	gateway *Gateway
	mu      sync.Mutex
	dials   int // guarded by mu
}

func (l *loop) Dial(ctx context.Context, network string, dest socks.Addr) (net.Conn, error) {
	l.mu.Lock()
	l.dials++
	l.mu.Unlock()
	p := newPending()
	l.gateway.Serve(ctx, Session{Network: network, Client: netip.MustParseAddrPort("192.0.2.2:1"), Dest: dest}, p)
	return nil, p.refused
}

// A chain that is a circle comes to rest, and ends.
func TestLoopEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &loop{}
		l.gateway = newGateway(t, Config{}, Policy{Outlets: map[string]outlet.Outlet{"": l}})
		p := newPending()
		started := time.Now()
		l.gateway.Serve(t.Context(), Session{Network: "tcp", Client: netip.MustParseAddrPort("192.0.2.2:1"), Dest: addr("192.0.2.9:1")}, p)
		if !errors.Is(p.refused, context.DeadlineExceeded) || time.Since(started) != l.gateway.Policy().DialTimeout {
			t.Errorf("refused after %v with %v", time.Since(started), p.refused)
		}
		if l.dials > maxDials+1 {
			t.Errorf("dialled %d times", l.dials)
		}
		if len(l.gateway.dials.byClient) != 0 {
			t.Error("there are still dials under way")
		}
	})
}
