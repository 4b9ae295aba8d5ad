package config

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"strconv"
	"strings"

	"sixgate/socks"
)

// upstream parses the URI of a resolver. It holds an address, since there is
// nobody yet to look up a name.
func upstream(s string) (Upstream, error) {
	scheme, rest, ok := strings.Cut(s, "://")
	if !ok || scheme == "" {
		return Upstream{}, fmt.Errorf("%q has no scheme (write it like udp://192.0.2.1:53)", s)
	}
	switch scheme {
	case "udp", "tcp":
		ap, err := addrPort(rest)
		return Upstream{Network: scheme, Addr: ap}, err
	case "tls":
		return upstreamTLS(rest)
	case "https":
		return upstreamHTTPS(s)
	}
	return Upstream{}, fmt.Errorf("%q has an unknown scheme (write udp://, tcp://, tls:// or https://)", s)
}

// upstreamTLS parses "address:port", with "#name" if the certificate is for a
// name.
func upstreamTLS(s string) (Upstream, error) {
	address, name, named := strings.Cut(s, "#")
	ap, err := addrPort(address)
	if err == nil && named {
		name, err = certificateName(name)
	}
	return Upstream{Network: "tls", Addr: ap, Name: name}, err
}

// upstreamHTTPS parses a URL, with "#address" if its host is a name.
func upstreamHTTPS(s string) (Upstream, error) {
	u, err := url.Parse(s)
	switch {
	case err != nil || u.User != nil || u.Path == "" || strings.Contains(s, "{"):
		return Upstream{}, fmt.Errorf("%q is no URL of a resolver (write it like https://192.0.2.1/dns-query)", s)
	case u.Port() == "":
		u.Host += ":443"
	}
	up := Upstream{Network: "https", Path: u.RequestURI()}
	if up.Addr, err = netip.ParseAddrPort(u.Host); err == nil {
		if u.Fragment != "" {
			return Upstream{}, fmt.Errorf("%q has two addresses (leave out the one behind the #)", s)
		}
		up.Addr, err = addrPort(u.Host)
		return up, err
	}
	if up.Name, err = certificateName(u.Hostname()); err != nil {
		return Upstream{}, err
	}
	address, err := netip.ParseAddr(u.Fragment)
	if err != nil {
		return Upstream{}, fmt.Errorf("%q has a name and no address (write it like https://dns.example/dns-query#192.0.2.1)", s)
	}
	port, err := strconv.ParseUint(u.Port(), 10, 16)
	if err != nil {
		return Upstream{}, fmt.Errorf("port %s in %q (1 to 65535)", u.Port(), s)
	}
	up.Addr, err = addrPort(netip.AddrPortFrom(address, uint16(port)).String())
	return up, err
}

// certificateName parses the name of a host.
func certificateName(s string) (string, error) {
	host, err := socks.ParseHost(s, 0)
	if err == nil && !host.IsName() {
		err = errors.New("an address where a name belongs")
	}
	if err != nil {
		return "", fmt.Errorf("%q is no name: %w (write it like dns.example)", s, err)
	}
	return host.Name, nil
}
