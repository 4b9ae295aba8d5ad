package nat64

import (
	"net/netip"
	"strings"
	"testing"
)

// TestText has the examples of RFC 6052, section 2.4, and those of the well-known
// and the local prefixes.
func TestText(t *testing.T) {
	for _, c := range []struct{ prefix, ipv4, ipv6 string }{
		{"2001:db8::/32", "192.0.2.33", "2001:db8:c000:221::"},
		{"2001:db8:100::/40", "192.0.2.33", "2001:db8:1c0:2:21::"},
		{"2001:db8:122::/48", "192.0.2.33", "2001:db8:122:c000:2:2100::"},
		{"2001:db8:122:300::/56", "192.0.2.33", "2001:db8:122:3c0:0:221::"},
		{"2001:db8:122:344::/64", "192.0.2.33", "2001:db8:122:344:c0:2:2100::"},
		{"2001:db8:122:344::/96", "192.0.2.33", "2001:db8:122:344::192.0.2.33"},
		{"64:ff9b::/96", "192.0.2.33", "64:ff9b::192.0.2.33"},
		{"64:ff9b:1::/96", "10.1.2.3", "64:ff9b:1::10.1.2.3"},
		{"64:ff9b:1::/48", "10.1.2.3", "64:ff9b:1:a01:2:300::"},
	} {
		prefix, ipv4, ipv6 := netip.MustParsePrefix(c.prefix), netip.MustParseAddr(c.ipv4), netip.MustParseAddr(c.ipv6)
		if !Valid(prefix) {
			t.Errorf("%s is not valid", c.prefix)
		}
		if got := Embed(prefix, ipv4); got != ipv6 {
			t.Errorf("%s behind %s is %s, want %s", c.ipv4, c.prefix, got, ipv6)
		}
		if got, ok := Extract(prefix, ipv6); !ok || got != ipv4 {
			t.Errorf("%s behind %s is %s, %v, want %s", c.ipv6, c.prefix, got, ok, ipv4)
		}
	}
}

func TestNoText(t *testing.T) {
	for _, c := range []struct{ prefix, ipv6 string }{
		{"64:ff9b::/96", "64:ff9b::1:192.0.2.33"},
		{"2001:db8:122::/48", "2001:db8:123:c000:2:2100::"},
		{"2001:db8:122::/48", "2001:db8:122:c000:102:2100::"}, // bits 64 to 71
		{"64:ff9b::/96", "192.0.2.33"},
	} {
		if got, ok := Extract(netip.MustParsePrefix(c.prefix), netip.MustParseAddr(c.ipv6)); ok {
			t.Errorf("%s behind %s is %s", c.ipv6, c.prefix, got)
		}
	}
}

func TestThrough(t *testing.T) {
	for _, c := range []struct{ prefix, ip, want string }{
		{"64:ff9b::/96", "192.0.2.33", "64:ff9b::192.0.2.33"},
		{"64:ff9b::/96", "10.0.0.1", "10.0.0.1"},
		{"2001:db8:64::/96", "10.0.0.1", "2001:db8:64::10.0.0.1"},
		{"64:ff9b::/96", "2001:db8::1", "2001:db8::1"},
		{"", "192.0.2.33", "192.0.2.33"},
	} {
		var prefix netip.Prefix
		if c.prefix != "" {
			prefix = netip.MustParsePrefix(c.prefix)
		}
		if got := Through(prefix, netip.MustParseAddr(c.ip)); got != netip.MustParseAddr(c.want) {
			t.Errorf("%s through %s is %s, want %s", c.ip, c.prefix, got, c.want)
		}
	}
}

func TestLiteral(t *testing.T) {
	for text, want := range map[string]string{
		"64:ff9b::192.0.2.33":           "192.0.2.33",
		"64:ff9b:1::10.1.2.3":           "10.1.2.3",
		"64:ff9b:1:fffe:0:1:10.1.2.3":   "10.1.2.3",
		"64:ff9b:1:fffe:100:1:10.1.2.3": "", // bits 64 to 71
		"64:ff9b:2::10.1.2.3":           "",
		"64:ff9b::1:10.1.2.3":           "",
		"2001:db8::10.1.2.3":            "",
		"10.1.2.3":                      "",
	} {
		got, ok := Literal(netip.MustParseAddr(text))
		if ok != (want != "") || ok && got.String() != want {
			t.Errorf("%s: %v, %v, want %q", text, got, ok, want)
		}
	}
}

func TestValid(t *testing.T) {
	for _, text := range []string{
		"64:ff9b::/95", "64:ff9b::/128", "2001:db8::/16", "10.0.0.0/32", "::ffff:0:0/96",
		"2001:db8::1/64", "2001:db8:0:0:100::/96",
	} {
		if Valid(netip.MustParsePrefix(text)) {
			t.Errorf("%s is valid", text)
		}
	}
	if Valid(netip.Prefix{}) {
		t.Error("no prefix is valid")
	}
}

func TestFind(t *testing.T) {
	for _, c := range []struct{ answers, want string }{
		{"64:ff9b::192.0.0.170 64:ff9b::192.0.0.171", "64:ff9b::/96"},
		{"2001:db8:64::192.0.0.171", "2001:db8:64::/96"},
		{"2001:db8:c000:aa:: 2001:db8:c000:ab::", "2001:db8::/32"},
		{"2001:db8:122:c000:0:aa00:: 2001:db8:122:c000:0:ab00::", "2001:db8:122::/48"},
		{"2001:db8:122:344:c0:0:aa00:0", "2001:db8:122:344::/64"},
		// The prefix has the octets of an address, too: two answers decide.
		{"2001:db8:c000:aa::192.0.0.170 2001:db8:c000:aa::192.0.0.171", "2001:db8:c000:aa::/96"},
		// Two translators: the first.
		{"64:ff9b::192.0.0.170 2001:db8:64::192.0.0.170 64:ff9b::192.0.0.171 2001:db8:64::192.0.0.171", "64:ff9b::/96"},
		{"2001:db8::1 64:ff9b::192.0.0.170", "64:ff9b::/96"},
		{"64:ff9b::192.0.0.172", ""},
		{"2001:db8::1", ""},
		{"192.0.0.170", ""},
		{"::ffff:192.0.0.170", ""},
		{"", ""},
	} {
		var answers []netip.Addr
		for _, text := range strings.Fields(c.answers) {
			answers = append(answers, netip.MustParseAddr(text))
		}
		got, ok := Find(answers)
		if ok != (c.want != "") || ok && got.String() != c.want {
			t.Errorf("of %s: %v, %v, want %q", c.answers, got, ok, c.want)
		}
	}
}

func FuzzFind(f *testing.F) {
	f.Add([]byte("0123456789abcdef0123456789abcdef"))
	known := Embed(WellKnown(), Known()[0]).As16()
	f.Add(known[:])
	f.Fuzz(func(t *testing.T, b []byte) {
		var answers []netip.Addr
		for ; len(b) >= 16; b = b[16:] {
			ip, _ := netip.AddrFromSlice(b[:16])
			answers = append(answers, ip)
		}
		if p, ok := Find(answers); ok && behind(p, answers) == 0 {
			t.Errorf("found %v in %v", p, answers)
		}
	})
}
