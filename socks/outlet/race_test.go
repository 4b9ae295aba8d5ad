package outlet

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"sixgate/socks"
)

// world is a resolver and a network in memory, with the bubble's clock.
type world struct {
	answers map[string]lookup // by family
	hosts   map[string]host   // by address

	mu     sync.Mutex
	dialed []string // "address@time since began", guarded by mu
	asked  []string // guarded by mu
	open   int      // connections not closed, guarded by mu
	began  time.Time
}

// knowing is a world whose resolver has at hand what it need not wait for.
type knowing struct{ *world }

func (k knowing) KnownNetIP(network, name string) (ips []netip.Addr, known bool, err error) {
	if k.answers[network].after > 0 {
		return nil, false, nil
	}
	ips, err = k.LookupNetIP(context.Background(), network, name)
	return ips, true, err
}

type lookup struct {
	after time.Duration
	ips   string // with spaces between
	err   error
}

type host struct {
	after time.Duration
	err   error
}

const forever = 1000 * time.Hour

func wait(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (w *world) LookupNetIP(ctx context.Context, network, name string) ([]netip.Addr, error) {
	w.mu.Lock()
	w.asked = append(w.asked, network)
	w.mu.Unlock()
	a, ok := w.answers[network]
	if !ok {
		return nil, &net.DNSError{Err: "no such host", Name: name, IsNotFound: true}
	}
	if err := wait(ctx, a.after); err != nil {
		return nil, &net.DNSError{Err: err.Error(), Name: name}
	}
	var ips []netip.Addr
	for s := range strings.FieldsSeq(a.ips) {
		ips = append(ips, netip.MustParseAddr(s))
	}
	return ips, a.err
}

func (w *world) dial(ctx context.Context, network string, to netip.AddrPort) (net.Conn, error) {
	w.mu.Lock()
	w.dialed = append(w.dialed, fmt.Sprintf("%s@%s", to.Addr(), time.Since(w.began)))
	w.mu.Unlock()
	h := w.hosts[to.Addr().String()]
	if err := wait(ctx, h.after); err != nil {
		return nil, &net.OpError{Op: "dial", Err: err}
	}
	if h.err != nil {
		return nil, &net.OpError{Op: "dial", Err: os.NewSyscallError("connect", h.err)}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.open++
	return &fakeConn{world: w, to: to}, nil
}

type fakeConn struct {
	net.Conn
	*world
	to netip.AddrPort
}

func (c *fakeConn) RemoteAddr() net.Addr { return net.TCPAddrFromAddrPort(c.to) }

func (c *fakeConn) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.open--
	return nil
}

var name = socks.Addr{Name: "dual.test", Port: 80}

func TestRace(t *testing.T) {
	const a1, a2, b1, b2 = "2001:db8::1", "2001:db8::2", "192.0.2.1", "192.0.2.2"
	both := map[string]lookup{"ip6": {ips: a1 + " " + a2}, "ip4": {ips: b1 + " " + b2}}
	const soon = 10 * time.Millisecond
	refused := host{soon, syscall.ECONNREFUSED}
	unreachable := host{soon, syscall.EHOSTUNREACH}
	noNet := host{soon, syscall.ENETUNREACH}
	dead := host{after: forever}
	for _, tt := range []struct {
		what    string
		dest    socks.Addr
		prefer  Prefer
		nat64   string
		answers map[string]lookup
		hosts   map[string]host
		deny    string
		first   string // address to start with
		want    string // address connected to
		errno   syscall.Errno
		dialed  string
		took    time.Duration
	}{
		{what: "the first answers", answers: both, want: a1, dialed: a1 + "@0s"},
		{what: "IPv4 preferred", prefer: PreferIPv4, answers: both, want: b1, dialed: b1 + "@0s"},
		{what: "families take turns", answers: both,
			hosts: map[string]host{a1: dead, b1: dead, a2: dead},
			want:  b2, dialed: a1 + "@0s " + b1 + "@250ms " + a2 + "@500ms " + b2 + "@750ms", took: 750 * time.Millisecond},
		{what: "a failure starts the next at once", answers: both,
			hosts: map[string]host{a1: noNet, b1: refused},
			want:  a2, dialed: a1 + "@0s " + b1 + "@10ms " + a2 + "@20ms", took: 20 * time.Millisecond},
		{what: "the slow first wins over a slower second", answers: both,
			hosts: map[string]host{a1: {after: 300 * time.Millisecond}, b1: dead},
			want:  a1, dialed: a1 + "@0s " + b1 + "@250ms", took: 300 * time.Millisecond},
		{what: "dead AAAA", answers: map[string]lookup{"ip6": {after: forever}, "ip4": {ips: b1}},
			want: b1, dialed: b1 + "@50ms", took: 50 * time.Millisecond},
		{what: "dead A", answers: map[string]lookup{"ip4": {after: forever}, "ip6": {ips: a1}},
			want: a1, dialed: a1 + "@0s"},
		{what: "AAAA a little late", answers: map[string]lookup{"ip6": {after: 40 * time.Millisecond, ips: a1}, "ip4": {ips: b1}},
			want: a1, dialed: a1 + "@40ms", took: 40 * time.Millisecond},
		{what: "AAAA late, A does not answer",
			answers: map[string]lookup{"ip6": {after: 100 * time.Millisecond, ips: a1}, "ip4": {ips: b1 + " " + b2}},
			hosts:   map[string]host{b1: dead},
			want:    a1, dialed: b1 + "@50ms " + a1 + "@300ms", took: 300 * time.Millisecond},
		{what: "AAAA very late, A does not answer",
			answers: map[string]lookup{"ip6": {after: time.Second, ips: a1}, "ip4": {ips: b1}},
			hosts:   map[string]host{b1: dead},
			want:    a1, dialed: b1 + "@50ms " + a1 + "@1s", took: time.Second},
		{what: "IPv4 only name", answers: map[string]lookup{"ip6": {}, "ip4": {ips: b1}}, want: b1, dialed: b1 + "@0s"},
		{what: "IPv6 only name, IPv4 preferred", prefer: PreferIPv4, answers: map[string]lookup{"ip6": {ips: a1}}, want: a1, dialed: a1 + "@0s"},
		{what: "broken AAAA", answers: map[string]lookup{"ip6": {err: errors.New("SERVFAIL")}, "ip4": {ips: b1}}, want: b1, dialed: b1 + "@0s"},
		{what: "mapped answers", answers: map[string]lookup{"ip6": {ips: "::ffff:192.0.2.9"}, "ip4": {ips: "::ffff:192.0.2.1"}}, want: b1, dialed: b1 + "@0s"},
		{what: "only IPv6", prefer: OnlyIPv6, answers: both, hosts: map[string]host{a1: noNet}, want: a2, dialed: a1 + "@0s " + a2 + "@10ms", took: soon},
		{what: "only IPv4", prefer: OnlyIPv4, answers: both, want: b1, dialed: b1 + "@0s"},
		{what: "a denied address is passed over", answers: both, deny: a1, want: a2, dialed: a2 + "@0s"},
		{what: "literal", dest: socks.Addr{IP: netip.MustParseAddr(b2), Port: 80}, want: b2, dialed: b2 + "@0s"},

		{what: "a known one first", answers: both, first: a2, want: a2, dialed: a2 + "@0s"},
		{what: "a known one of the other family first", answers: both, first: b2, want: b2, dialed: b2 + "@0s"},
		{what: "the known one fails", answers: both, first: b2, hosts: map[string]host{b2: refused},
			want: a1, dialed: b2 + "@0s " + a1 + "@10ms", took: soon},
		{what: "the known one is silent", answers: both, first: a2, hosts: map[string]host{a2: dead, b1: dead},
			want: a1, dialed: a2 + "@0s " + b1 + "@250ms " + a1 + "@500ms", took: 500 * time.Millisecond},
		{what: "the known one is not the name's any more", answers: both, first: "192.0.2.3", want: a1, dialed: a1 + "@0s"},
		{what: "its family has gone", answers: map[string]lookup{"ip6": {ips: a1}}, first: b2, want: a1, dialed: a1 + "@0s"},
		{what: "its family is late", answers: map[string]lookup{"ip4": {after: 20 * time.Millisecond, ips: b1}, "ip6": {ips: a1}},
			first: b1, want: b1, dialed: b1 + "@20ms", took: 20 * time.Millisecond},
		{what: "it is denied by now", answers: both, first: a2, deny: a2, want: a1, dialed: a1 + "@0s"},
		{what: "it is of a family not in use", prefer: OnlyIPv6, answers: both, first: b2, want: a1, dialed: a1 + "@0s"},

		{what: "refusal over timeout and no route", answers: both,
			hosts: map[string]host{a1: noNet, b1: refused, a2: unreachable, b2: {soon, syscall.ETIMEDOUT}},
			errno: syscall.ECONNREFUSED, dialed: a1 + "@0s " + b1 + "@10ms " + a2 + "@20ms " + b2 + "@30ms", took: 4 * soon},
		{what: "timeout over no host", answers: map[string]lookup{"ip6": {ips: a1}, "ip4": {ips: b1}},
			hosts: map[string]host{a1: {soon, syscall.ETIMEDOUT}, b1: unreachable},
			errno: syscall.ETIMEDOUT, dialed: a1 + "@0s " + b1 + "@10ms", took: 2 * soon},
		{what: "no host over no network", answers: map[string]lookup{"ip6": {ips: a1}, "ip4": {ips: b1}},
			hosts: map[string]host{a1: noNet, b1: unreachable},
			errno: syscall.EHOSTUNREACH, dialed: a1 + "@0s " + b1 + "@10ms", took: 2 * soon},
		{what: "no network over what is ours", answers: map[string]lookup{"ip6": {ips: a1}, "ip4": {ips: b1}},
			hosts: map[string]host{a1: {soon, syscall.EMFILE}, b1: noNet},
			errno: syscall.ENETUNREACH, dialed: a1 + "@0s " + b1 + "@10ms", took: 2 * soon},
		{what: "denied does not count", answers: map[string]lookup{"ip6": {ips: a1}, "ip4": {ips: b1}}, deny: b1,
			hosts: map[string]host{a1: noNet}, errno: syscall.ENETUNREACH, dialed: a1 + "@0s", took: soon},
		{what: "all denied", answers: both, deny: a1 + a2 + b1 + b2, errno: syscall.EACCES},
		{what: "literal denied", dest: socks.Addr{IP: netip.MustParseAddr(b2), Port: 80}, deny: b2, errno: syscall.EACCES},
		{what: "literal of a family not in use", prefer: OnlyIPv6, dest: socks.Addr{IP: netip.MustParseAddr(b2), Port: 80}, errno: syscall.EAFNOSUPPORT},
		{what: "literal through a translator", nat64: "64:ff9b::/96", dest: socks.Addr{IP: netip.MustParseAddr(b2), Port: 80},
			want: "64:ff9b::c000:202", dialed: "64:ff9b::c000:202@0s"},
		{what: "literal through a translator, with IPv6 only", nat64: "64:ff9b::/96", prefer: OnlyIPv6, dest: socks.Addr{IP: netip.MustParseAddr(b2), Port: 80},
			want: "64:ff9b::c000:202", dialed: "64:ff9b::c000:202@0s"},
		{what: "private literal by the well-known prefix", nat64: "64:ff9b::/96", dest: socks.Addr{IP: netip.MustParseAddr("10.0.0.1"), Port: 80},
			want: "10.0.0.1", dialed: "10.0.0.1@0s"},
		{what: "literal denied before a translator", nat64: "64:ff9b::/96", dest: socks.Addr{IP: netip.MustParseAddr(b2), Port: 80}, deny: b2, errno: syscall.EACCES},
		{what: "translator denied", nat64: "64:ff9b::/96", dest: socks.Addr{IP: netip.MustParseAddr(b2), Port: 80}, deny: "64:ff9b::c000:202", errno: syscall.EACCES},
		{what: "IPv6 first, then through a translator", nat64: "2001:db8:64::/48", answers: map[string]lookup{"ip6": {ips: a1}, "ip4": {ips: b1}},
			hosts: map[string]host{a1: refused}, want: "2001:db8:64:c000:2:100::", dialed: a1 + "@0s 2001:db8:64:c000:2:100::@10ms", took: soon},
		{what: "no such name", errno: syscall.EHOSTUNREACH},
		{what: "no address", answers: map[string]lookup{"ip6": {}, "ip4": {}}, errno: syscall.EHOSTUNREACH},
		{what: "no address of the family", prefer: OnlyIPv4, answers: map[string]lookup{"ip6": {ips: a1}}, errno: syscall.EHOSTUNREACH},
		{what: "all silent until the deadline", answers: both,
			hosts: map[string]host{a1: dead, b1: dead, a2: dead, b2: dead}, errno: syscall.ETIMEDOUT,
			dialed: a1 + "@0s " + b1 + "@250ms " + a2 + "@500ms " + b2 + "@750ms", took: 10 * time.Second},
		{what: "refused, the rest silent", answers: map[string]lookup{"ip6": {ips: a1}, "ip4": {ips: b1}},
			hosts: map[string]host{a1: refused, b1: dead}, errno: syscall.ECONNREFUSED,
			dialed: a1 + "@0s " + b1 + "@10ms", took: 10 * time.Second},
		{what: "look-ups silent until the deadline", answers: map[string]lookup{"ip6": {after: forever}, "ip4": {after: forever}},
			errno: syscall.ETIMEDOUT, took: 10 * time.Second},
	} {
		run := func(t *testing.T, resolver func(*world) Resolver) {
			synctest.Test(t, func(t *testing.T) {
				w := &world{answers: tt.answers, hosts: tt.hosts, began: time.Now()}
				d := NewDirect(DirectConfig{Resolver: resolver(w), Prefer: tt.prefer, Vet: func(ip netip.Addr) error {
					if strings.Contains(tt.deny, ip.String()) {
						return fmt.Errorf("denied: %w", syscall.EACCES)
					}
					return nil
				}})
				d.dial = w.dial
				if tt.nat64 != "" {
					d.NAT64 = func() netip.Prefix { return netip.MustParsePrefix(tt.nat64) }
				}
				if tt.first != "" {
					d = d.Starting(func(socks.Addr) netip.Addr { return netip.MustParseAddr(tt.first) })
				}
				dest := tt.dest
				if !dest.IsValid() {
					dest = name
				}
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
				defer cancel()
				conn, err := d.Dial(ctx, "tcp", dest)
				if took := time.Since(w.began); took != tt.took {
					t.Errorf("took %s, want %s", took, tt.took)
				}
				if got := strings.Join(w.dialed, " "); got != tt.dialed {
					t.Errorf("dialled %s, want %s", got, tt.dialed)
				}
				if tt.want == "" {
					if !errors.Is(err, tt.errno) || w.open != 0 {
						t.Errorf("error %v, %d open, want %v", err, w.open, tt.errno)
					}
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				if got := conn.(*fakeConn).to.Addr().String(); got != tt.want || w.open != 1 {
					t.Errorf("connected to %s, %d open, want %s", got, w.open, tt.want)
				}
			})
		}
		t.Run(tt.what, func(t *testing.T) {
			t.Run("asking", func(t *testing.T) { run(t, func(w *world) Resolver { return w }) })
			t.Run("knowing", func(t *testing.T) { run(t, func(w *world) Resolver { return knowing{w} }) })
		})
	}
}

// Two that connect in the same moment: one is kept, one is closed.
func TestRaceClosesLoser(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{
			began:   time.Now(),
			answers: map[string]lookup{"ip6": {ips: "2001:db8::1"}, "ip4": {ips: "192.0.2.1"}},
			hosts:   map[string]host{"2001:db8::1": {after: time.Second}, "192.0.2.1": {after: 750 * time.Millisecond}},
		}
		d := NewDirect(DirectConfig{Resolver: w})
		d.dial = func(ctx context.Context, network string, to netip.AddrPort) (net.Conn, error) {
			return w.dial(context.WithoutCancel(ctx), network, to) // too late to stop
		}
		if _, err := d.Dial(t.Context(), "tcp", name); err != nil || w.open != 1 {
			t.Errorf("%v, %d open", err, w.open)
		}
	})
}

func TestRaceCancel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{began: time.Now(), answers: map[string]lookup{"ip6": {after: forever}, "ip4": {after: forever}}}
		ctx, cancel := context.WithCancelCause(t.Context())
		gone := fmt.Errorf("gone: %w", syscall.ECONNABORTED)
		time.AfterFunc(time.Second, func() { cancel(gone) })
		_, err := NewDirect(DirectConfig{Resolver: w}).Dial(ctx, "tcp", name)
		if !errors.Is(err, gone) || time.Since(w.began) != time.Second {
			t.Errorf("after %s: %v", time.Since(w.began), err)
		}
	})
}

// A literal and a family not in use cost no look-up.
func TestLookUpsMade(t *testing.T) {
	for _, tt := range []struct {
		dest   string
		prefer Prefer
		want   []string
	}{
		{"dual.test:80", PreferIPv6, []string{"ip4", "ip6"}},
		{"dual.test:80", OnlyIPv4, []string{"ip4"}},
		{"192.0.2.1:80", PreferIPv6, nil},
	} {
		synctest.Test(t, func(t *testing.T) {
			dest, err := socks.ParseAddr(tt.dest)
			if err != nil {
				t.Fatal(err)
			}
			w := &world{began: time.Now()}
			d := NewDirect(DirectConfig{Resolver: w, Prefer: tt.prefer})
			d.dial = w.dial
			d.Dial(t.Context(), "tcp", dest)
			slices.Sort(w.asked)
			if !slices.Equal(w.asked, tt.want) {
				t.Errorf("%s %s: asked %v, want %v", tt.dest, tt.prefer, w.asked, tt.want)
			}
		})
	}
}
