package config

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"sixgate/socks"
	"sixgate/socks/nat64"
)

// maxDuration bounds all durations: a week is longer than any idle time that
// a peer keeps to.
const maxDuration = 7 * 24 * time.Hour

// as takes a value as it is.
func as[T any](v T) (T, error) { return v, nil }

// orEmpty is parse, with the zero value for the empty string.
func orEmpty[T any](parse func(string) (T, error)) func(string) (T, error) {
	return func(s string) (value T, err error) {
		if s == "" {
			return value, nil
		}
		return parse(s)
	}
}

func oneOf[T ~string](all ...T) func(string) (T, error) {
	return func(s string) (T, error) {
		if slices.Contains(all, T(s)) {
			return T(s), nil
		}
		known := make([]string, len(all))
		for i, v := range all {
			known[i] = string(v)
		}
		return "", fmt.Errorf("unknown value %q %s", s, didYouMean(s, known))
	}
}

func between[T int | uint16 | uint32](low, high int64) func(int64) (T, error) {
	return func(n int64) (T, error) {
		if n < low || n > high {
			return 0, fmt.Errorf("want %d to %d, got %d", low, high, n)
		}
		return T(n), nil
	}
}

func duration(s string) (time.Duration, error) {
	d, err := time.ParseDuration(s)
	if err != nil {
		return 0, fmt.Errorf("%q is no duration (write it like 10s, 5m or 2h4m)", s)
	}
	if d <= 0 || d > maxDuration {
		return 0, fmt.Errorf("want more than 0s and at most %v, got %v", maxDuration, d)
	}
	return d, nil
}

func logLevel(s string) (level slog.Level, err error) {
	if _, err := oneOf("debug", "info", "warn", "error")(s); err != nil {
		return 0, err
	}
	return level, level.UnmarshalText([]byte(s))
}

// logFormat reports whether the format is JSON.
func logFormat(s string) (bool, error) {
	format, err := oneOf("text", "json")(s)
	return format == "json", err
}

// interfaceName parses what Linux takes as the name of a network device.
func interfaceName(s string) (string, error) {
	const max = 15 // IFNAMSIZ with its zero octet is 16
	bad := func(r rune) bool { return r == '/' || r == ':' || r == '%' || unprintable(r) }
	if s == "" || len(s) > max || s == "." || s == ".." || strings.ContainsFunc(s, bad) {
		return "", fmt.Errorf("%q is no interface name (1 to %d octets without space, '/', ':' or '%%')", s, max)
	}
	return s, nil
}

func outletName(s string) (string, error) {
	if s == "" || strings.ContainsFunc(s, unprintable) {
		return "", fmt.Errorf("%q is no outlet name (write a word)", s)
	}
	return s, nil
}

// maxCredential is what SOCKS has room for (RFC 1929, section 2).
const maxCredential = 255

func userName(s string) (string, error) {
	if s == "" || len(s) > maxCredential {
		return "", fmt.Errorf("a user's name of %d octets (1 to %d)", len(s), maxCredential)
	}
	return s, nil
}

func plainPassword(s string) (string, error) {
	if len(s) > maxCredential {
		return "", fmt.Errorf("a password of %d octets (at most %d)", len(s), maxCredential)
	}
	return s, nil
}

func unprintable(r rune) bool { return unicode.IsSpace(r) || !unicode.IsPrint(r) }

// prefix parses a prefix, or an address as the prefix of only that address.
func prefix(s string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(s)
	if err != nil {
		ip, err := netip.ParseAddr(s)
		if err != nil || ip.Zone() != "" {
			return netip.Prefix{}, fmt.Errorf("%q is no prefix (write it like 192.0.2.0/24 or 2001:db8::/32)", s)
		}
		p = netip.PrefixFrom(ip, ip.BitLen())
	}
	if p.Addr().Is4In6() {
		return netip.Prefix{}, fmt.Errorf("%q is IPv4 in IPv6 form (write it as IPv4)", s)
	}
	if p != p.Masked() {
		return netip.Prefix{}, fmt.Errorf("%q has host bits set (write %s)", s, p.Masked())
	}
	return p, nil
}

// translator parses "auto" or the prefix of a NAT64.
func translator(s string) (NAT64, error) {
	if s == "auto" {
		return NAT64{Find: true}, nil
	}
	p, err := prefix(s)
	if err == nil && !nat64.Valid(p) {
		err = fmt.Errorf("%s is no prefix of a NAT64 (its length is 32, 40, 48, 56, 64 or 96)", p)
	}
	return NAT64{Prefix: p}, err
}

// addrPort parses an IP address with a port other than 0.
func addrPort(s string) (netip.AddrPort, error) {
	ap, err := netip.ParseAddrPort(s)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("%q is no address with a port (write it like 192.0.2.1:53 or [2001:db8::1]:53)", s)
	}
	if ap.Addr().Is4In6() {
		return netip.AddrPort{}, fmt.Errorf("%q is IPv4 in IPv6 form (write it as IPv4)", s)
	}
	if zone := ap.Addr().Zone(); zone != "" {
		if _, err := interfaceName(zone); err != nil {
			return netip.AddrPort{}, fmt.Errorf("zone of %q: %w", s, err)
		}
	}
	if ap.Port() == 0 {
		return netip.AddrPort{}, fmt.Errorf("port 0 in %q (1 to 65535)", s)
	}
	return ap, nil
}

// external parses an address that others can send to.
func external(s string) (netip.Addr, error) {
	ip, err := netip.ParseAddr(s)
	switch {
	case err != nil || ip.Zone() != "":
		return netip.Addr{}, fmt.Errorf("%q is no address (write it like 203.0.113.7 or 2001:db8::7)", s)
	case ip.Is4In6():
		return netip.Addr{}, fmt.Errorf("%q is IPv4 in IPv6 form (write it as IPv4)", s)
	case ip.IsUnspecified() || ip.IsLoopback() || ip.IsMulticast():
		return netip.Addr{}, fmt.Errorf("%q is no address that others reach this host by", s)
	}
	return ip, nil
}

// ports parses a range of ports.
func ports(s string) (socks.Ports, error) {
	first, last, ok := strings.Cut(s, "-")
	low, err := strconv.ParseUint(first, 10, 16)
	high, err2 := strconv.ParseUint(last, 10, 16)
	if !ok || err != nil || err2 != nil || low == 0 || high < low {
		return socks.Ports{}, fmt.Errorf("%q is no range of ports (write it like 50000-50999)", s)
	}
	return socks.Ports{First: uint16(low), Last: uint16(high)}, nil
}

// listenAddr is addrPort that gives ":port" an invalid Addr.
func listenAddr(s string) (netip.AddrPort, error) {
	if !strings.HasPrefix(s, ":") {
		return addrPort(s)
	}
	ap, err := addrPort("0.0.0.0" + s)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("%q is no port (write it like :53)", s)
	}
	return netip.AddrPortFrom(netip.Addr{}, ap.Port()), nil
}

func absolutePath(s string) (string, error) {
	if !filepath.IsAbs(s) {
		return "", fmt.Errorf("%q is no absolute path", s)
	}
	return filepath.Clean(s), nil
}

// server parses a name or an address with a port other than 0.
func server(s string) (socks.Addr, error) {
	addr, err := socks.ParseAddr(s)
	if err != nil {
		return socks.Addr{}, fmt.Errorf("%w (write it like gw.example:1080)", err)
	}
	if addr.Port == 0 {
		return socks.Addr{}, fmt.Errorf("port 0 in %q (1 to 65535)", s)
	}
	return addr, nil
}

// patternOrPrefix parses what pattern or prefix does.
func patternOrPrefix(s string) (string, error) {
	if _, err := netip.ParseAddr(s); err != nil && !strings.Contains(s, "/") {
		return pattern(s)
	}
	net, err := prefix(s)
	return net.String(), err
}

// pattern parses an FQDN, or "*." and an FQDN, into lower case without
// trailing dot.
func pattern(s string) (string, error) {
	suffix, wild := strings.CutPrefix(s, "*.")
	name, err := socks.ParseHost(suffix, 0)
	if err == nil && !name.IsName() {
		err = errors.New("an address where a name belongs")
	}
	if err != nil {
		return "", fmt.Errorf("%q is no name and no *.suffix: %w (write it like example.com or *.example.com, other scripts as xn--)", s, err)
	}
	if wild {
		return "*." + name.Name, nil
	}
	return name.Name, nil
}
