package dnsfake

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"sixgate/dnsfake/upstream"
)

// TestResolver looks up names that nobody is asked for: every other one fails
// with an error of its own, as there are no servers.
func TestResolver(t *testing.T) {
	errNoServers := errors.New("no servers")
	up, err := upstream.New(upstream.Config{Servers: func() ([]upstream.Server, error) { return nil, errNoServers }})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "hosts")
	if err := os.WriteFile(file, []byte("192.168.77.9 printer\n2001:db8::9 printer\n192.168.77.8 nas.example.com\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	hosts := NewHosts([]string{file}, nil, nil)
	hosts.Reload()
	policy, err := NewPolicy(PolicyConfig{Bypass: []string{"*.corp.local"}, Known: []string{"test"}})
	if err != nil {
		t.Fatal(err)
	}
	r := &Resolver{Upstream: up, Hosts: hosts, Policy: func() *Policy { return policy }}
	for _, c := range []struct{ network, name, want string }{
		{"ip", "printer", "192.168.77.9 2001:db8::9"},
		{"ip4", "Printer.lan.", "192.168.77.9"},
		{"ip6", "printer.internal", "2001:db8::9"},
		{"ip", "nas.example.com", "192.168.77.8"},
		{"ip6", "nas.example.com", "none"},
		{"ip", "localhost", "127.0.0.1 ::1"},
		{"ip6", "a.LocalHost", "::1"},
		{"ip4", "ipv4only.arpa", "192.0.0.170 192.0.0.171"},
		{"ip4", "a.ipv4only.arpa", "none"},
		{"ip", "service.onion", "none"},
		{"ip", "scanner.local", "none"},
		{"ip", "resolver.arpa", "none"},
		{"ip", "scanner", "none"},
		{"ip", "wpad.example.com", "none"},
		{"ip", "dc.corp.local", "asked"}, // by bypass
		{"ip", "www.test", "asked"},      // by the servers
		{"ip4", "192-0-2-1.example", "asked"},
		{"ip", "2001-db8--1.ipv6-literal.net", "2001:db8::1"},
		{"ip", "www.example.com", "asked"},
		{"ip", "a.printer", "asked"},
	} {
		ips, err := r.LookupNetIP(context.Background(), c.network, c.name)
		if got := resolved(ips, err); got != c.want {
			t.Errorf("%s %s: got %s (%v), want %s", c.network, c.name, got, err, c.want)
		}
		if ips, known, err := r.KnownNetIP(c.network, c.name); c.want != "asked" && (!known || resolved(ips, err) != c.want) {
			t.Errorf("%s %s: known %v, %v, %v, want %s", c.network, c.name, ips, known, err, c.want)
		}
	}
}

// resolved is what a look-up came to: addresses, none for sure, or something
// that servers are asked for.
func resolved(ips []netip.Addr, err error) string {
	var failed *net.DNSError
	switch {
	case errors.As(err, &failed) && failed.IsNotFound && errors.Is(err, syscall.EHOSTUNREACH):
		return "none"
	case err != nil:
		return "asked"
	}
	var texts []string
	for _, ip := range ips {
		texts = append(texts, ip.String())
	}
	slices.Sort(texts)
	return strings.Join(texts, " ")
}
