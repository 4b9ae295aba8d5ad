package outlet

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"

	"sixgate/socks"
)

// TestOrder dials the addresses of a name until all have refused.
func TestOrder(t *testing.T) {
	const global, local = "2001:db8:1::9", "fd00::9"
	for _, tt := range []struct {
		what    string
		ips     string
		sources map[string]string // of IPv6 addresses by prefix; where none matches there is no route
		first   string
		want    string
		asked   int // sources
	}{
		{what: "of one kind as DNS has them", ips: "2001:db8:2::2 2001:db8:1::1 2001:db8:2::1", sources: map[string]string{"::/0": global},
			want: "2001:db8:2::2 2001:db8:1::1 2001:db8:2::1"},
		{what: "a site's after global ones", ips: "fd00::1 2001:db8::2 2001:db8::1", sources: map[string]string{"::/0": global},
			want: "2001:db8::2 2001:db8::1 fd00::1", asked: 3},
		{what: "also where the host is of the site", ips: "fd00::1 2001:db8::1", sources: map[string]string{"fd00::/8": local, "2001:db8::/32": global},
			want: "2001:db8::1 fd00::1", asked: 2},
		{what: "not where the host has no global address", ips: "2001:db8::1 fd00::1", sources: map[string]string{"::/0": local},
			want: "fd00::1 2001:db8::1", asked: 2},
		{what: "without a route last", ips: "2001:db8::1 fd00::1", sources: map[string]string{"fd00::/8": global},
			want: "fd00::1 2001:db8::1", asked: 2},
		{what: "tunnels after what is native", ips: "2001:0:1::1 2002:c000:201::1 2001:db8::2 2001:db8::1", sources: map[string]string{"::/0": global},
			want: "2001:db8::2 2001:db8::1 2002:c000:201::1 2001:0:1::1", asked: 4},
		{what: "what was used before stays first", ips: "2001:db8::1 fd00::1", sources: map[string]string{"::/0": global}, first: "fd00::1",
			want: "fd00::1 2001:db8::1", asked: 2},
		{what: "IPv4 as DNS has it", ips: "192.0.2.9 10.0.0.1 192.0.2.1", want: "192.0.2.9 10.0.0.1 192.0.2.1"},
	} {
		t.Run(tt.what, func(t *testing.T) {
			family := networkOf(netip.MustParseAddr(strings.Fields(tt.ips)[0]))
			prefer := map[string]Prefer{"ip4": OnlyIPv4, "ip6": OnlyIPv6}[family]
			d := NewDirect(DirectConfig{Resolver: &world{answers: map[string]lookup{family: {ips: tt.ips}}}, Prefer: prefer})
			if tt.first != "" {
				d = d.Starting(func(socks.Addr) netip.Addr { return netip.MustParseAddr(tt.first) })
			}
			var dialed []string
			asked := 0
			d.dial = func(_ context.Context, network string, to netip.AddrPort) (net.Conn, error) {
				if network == "tcp" {
					dialed = append(dialed, to.Addr().String()) // the next follows when this one has failed
					return nil, syscall.ECONNREFUSED
				}
				asked++
				for prefix, source := range tt.sources {
					if netip.MustParsePrefix(prefix).Contains(to.Addr()) {
						return sourced{addr: netip.MustParseAddr(source)}, nil
					}
				}
				return nil, syscall.ENETUNREACH
			}
			if _, err := d.Dial(t.Context(), "tcp", name); !errors.Is(err, syscall.ECONNREFUSED) {
				t.Error(err)
			}
			if got := strings.Join(dialed, " "); got != tt.want || asked != tt.asked {
				t.Errorf("dialled %s with %d sources asked for, want %s and %d", got, asked, tt.want, tt.asked)
			}
		})
	}
}

// sourced is a socket that has a source address, and no other use.
type sourced struct {
	net.Conn
	addr netip.Addr
}

func (s sourced) LocalAddr() net.Addr { return net.UDPAddrFromAddrPort(netip.AddrPortFrom(s.addr, 1)) }
func (s sourced) Close() error        { return nil }
