package outlet

import (
	"errors"
	"net/netip"
	"strings"
	"syscall"
	"testing"
)

func prefixes(s string) (ps []netip.Prefix) {
	for f := range strings.FieldsSeq(s) {
		ps = append(ps, netip.MustParsePrefix(f))
	}
	return ps
}

func TestGuard(t *testing.T) {
	const own = "198.18.0.0/15 2001:2::/48 192.168.77.0/24"
	for _, tt := range []struct{ deny, allow, denied, passed string }{
		{
			denied: "127.0.0.1 127.255.255.255 0.0.0.0 0.0.0.1 169.254.169.254 224.0.0.1 239.255.255.255 255.255.255.255 " +
				":: ::1 fe80::1 febf::1 ff02::1 fe80::1%lo 198.18.0.1 198.19.255.255 2001:2::1 192.168.77.1 " +
				"::ffff:127.0.0.1 ::ffff:198.18.0.1 64:ff9b::7f00:1 64:ff9b::c0a8:4d01 64:ff9b:1::c0a8:4d01 2002:7f00:1::1 2002:a9fe:a9fe::",
			passed: "1.1.1.1 10.0.0.1 172.16.0.1 192.168.78.1 100.64.0.1 198.20.0.1 223.255.255.255 " +
				"2001:db8::1 fd00::1 2001:2:1::1 64:ff9b::101:101 64:ff9b:1::101:101 2002:101:101::1 64:ff9c::7f00:1 ::ffff:1.1.1.1",
		},
		{
			allow:  "127.0.0.53/32 192.168.77.0/24",
			denied: "127.0.0.1 198.18.0.1",
			passed: "127.0.0.53 192.168.77.1 ::ffff:127.0.0.53 64:ff9b::7f00:35",
		},
		{
			allow:  "64:ff9b::/96 2002::/16", // no way around the IPv4 prefixes
			denied: "64:ff9b::7f00:1 2002:7f00:1::",
			passed: "64:ff9b::101:101",
		},
		{
			deny: "10.0.0.0/8 127.0.0.0/8 2001:db8:1::/48", allow: "10.0.0.0/8 127.0.0.1/32 2001:db8::/32",
			denied: "10.0.0.1 127.0.0.1 2001:db8:1::1 64:ff9b::a00:1 2002:a00:1::1",
			passed: "2001:db8::1 11.0.0.1",
		},
	} {
		g := NewGuard(func() []netip.Prefix { return prefixes(own) }, prefixes(tt.deny), prefixes(tt.allow))
		for s := range strings.FieldsSeq(tt.denied) {
			if err := g.Vet(netip.MustParseAddr(s)); !errors.Is(err, syscall.EACCES) {
				t.Errorf("deny %q, allow %q: %s passed: %v", tt.deny, tt.allow, s, err)
			}
		}
		for s := range strings.FieldsSeq(tt.passed) {
			if err := g.Vet(netip.MustParseAddr(s)); err != nil {
				t.Errorf("deny %q, allow %q: %v", tt.deny, tt.allow, err)
			}
		}
	}
	behind := NewGuard(nil, nil, nil).Behind(func() netip.Prefix { return netip.MustParsePrefix("2001:db8:64::/48") })
	if err := behind.Vet(netip.MustParseAddr("2001:db8:64:7f00:0:100::")); !errors.Is(err, syscall.EACCES) {
		t.Errorf("127.0.0.1 behind the host's NAT64 passed: %v", err)
	}
	if err := NewGuard(nil, nil, nil).Vet(netip.MustParseAddr("198.18.0.1")); err != nil {
		t.Error(err)
	}
}
