package socks

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"syscall"
)

// Addr is a destination: a name or an IP address, with a port. Exactly one of
// Name and IP is set in a valid Addr.
type Addr struct {
	Name string     // FQDN in lower case without trailing dot; empty when IP is valid
	IP   netip.Addr // unmapped, without zone; the zero Addr when Name is set
	Port uint16
}

// Address types of RFC 1928, section 5.
const (
	atypIPv4   = 1
	atypDomain = 3
	atypIPv6   = 4
)

// maxName is the longest name in presentation form (RFC 1035, section 2.3.4).
const maxName = 253

// errZone is an IPv6 zone in a host: an interface of the host that wrote it.
var errZone = errors.New("a zone has no meaning here")

// AddrFromAddrPort returns the Addr of ap; an IPv4-mapped address becomes
// IPv4, and a zone is dropped.
func AddrFromAddrPort(ap netip.AddrPort) Addr {
	return Addr{IP: ap.Addr().Unmap().WithZone(""), Port: ap.Port()}
}

// AddrPortOf returns the address and port of a, a *net.TCPAddr or a
// *net.UDPAddr, unmapped and without zone; that of any other is the zero
// AddrPort.
func AddrPortOf(a net.Addr) netip.AddrPort {
	if a, ok := a.(interface{ AddrPort() netip.AddrPort }); ok {
		return AddrFromAddrPort(a.AddrPort()).AddrPort()
	}
	return netip.AddrPort{}
}

// ParseHost returns the Addr of host, a name or an IP literal of either
// family, bracketed or not. RFC 3089, section 3 lets a literal travel as a
// DOMAINNAME, so a literal becomes IP and is never looked up. Names that no
// resolver should see are errors: empty, over 253 octets, with octets other
// than letters, digits, '-' and '_', or a legacy numeric form such as "127.1"
// or "0x7f.1".
func ParseHost(host string, port uint16) (Addr, error) {
	literal := host
	if inner, ok := strings.CutPrefix(host, "["); ok {
		inner, ok = strings.CutSuffix(inner, "]")
		if !ok || !strings.Contains(inner, ":") {
			return Addr{}, fmt.Errorf("parsing host %q: unbalanced bracket", host)
		}
		literal = inner
	}
	if ip, err := netip.ParseAddr(literal); err == nil {
		if ip.Zone() != "" {
			return Addr{}, fmt.Errorf("parsing host %q: %w", host, errZone)
		}
		return Addr{IP: ip.Unmap(), Port: port}, nil
	}
	name := strings.ToLower(strings.TrimSuffix(host, "."))
	if err := checkName(name); err != nil {
		return Addr{}, fmt.Errorf("parsing host %q: %w", host, err)
	}
	return Addr{Name: name, Port: port}, nil
}

// ParseAddr is ParseHost for the form "host:port".
func ParseAddr(s string) (Addr, error) {
	i := strings.LastIndexByte(s, ':')
	if i < 0 {
		return Addr{}, fmt.Errorf("parsing address %q: missing port", s)
	}
	port, err := strconv.ParseUint(s[i+1:], 10, 16)
	if err != nil {
		return Addr{}, fmt.Errorf("parsing address %q: bad port", s)
	}
	host := s[:i]
	if strings.Contains(host, ":") && !strings.HasPrefix(host, "[") {
		return Addr{}, fmt.Errorf("parsing address %q: an IPv6 address needs brackets", s)
	}
	return ParseHost(host, uint16(port))
}

func checkName(name string) error {
	if name == "" {
		return errors.New("empty name")
	}
	if len(name) > maxName {
		return errors.New("name over 253 octets")
	}
	last := ""
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || len(label) > 63 {
			return errors.New("label of 0 or over 63 octets")
		}
		for _, c := range []byte(label) {
			if !nameOctet(c) {
				return fmt.Errorf("octet %#02x in a name", c)
			}
		}
		last = label
	}
	// A name whose last label is a number is an IPv4 address to inet_aton and
	// to browsers, and no top-level domain is numeric.
	if strings.Trim(last, "0123456789") == "" || strings.HasPrefix(last, "0x") {
		return errors.New("numeric form that is no IP literal")
	}
	return nil
}

func nameOctet(c byte) bool {
	return 'a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '-' || c == '_'
}

// IsName reports whether a holds a name.
func (a Addr) IsName() bool { return a.Name != "" }

// IsValid reports whether a holds a name or an address.
func (a Addr) IsValid() bool { return a.IsName() || a.IP.IsValid() }

// AddrPort returns the address and port of an Addr without name.
func (a Addr) AddrPort() netip.AddrPort { return netip.AddrPortFrom(a.IP, a.Port) }

// Host returns the name or the address without port or brackets.
func (a Addr) Host() string {
	if a.IsName() {
		return a.Name
	}
	return a.IP.String()
}

// String returns "host:port", an IPv6 address in brackets.
func (a Addr) String() string {
	if a.IsName() {
		return a.Name + ":" + strconv.Itoa(int(a.Port))
	}
	return a.AddrPort().String()
}

// AppendTo appends ATYP, address and port as RFC 1928, section 5 has them. The
// zero Addr becomes 0.0.0.0:0.
func (a Addr) AppendTo(b []byte) []byte {
	switch {
	case a.IsName():
		b = append(b, atypDomain, byte(len(a.Name)))
		b = append(b, a.Name...)
	case a.IP.Is6():
		ip := a.IP.As16()
		b = append(append(b, atypIPv6), ip[:]...)
	case a.IP.Is4():
		ip := a.IP.As4()
		b = append(append(b, atypIPv4), ip[:]...)
	default:
		b = append(b, atypIPv4, 0, 0, 0, 0)
	}
	return binary.BigEndian.AppendUint16(b, a.Port)
}

// readAddr appends the octets of ATYP, address and port to b, and reads not one
// more. An unknown ATYP, whose length nobody can tell, is all that it reads.
func readAddr(r io.Reader, b []byte) ([]byte, error) {
	b, err := readOctets(r, b, 1)
	if err != nil {
		return b, err
	}
	switch b[len(b)-1] {
	case atypIPv4:
		return readOctets(r, b, 4+2)
	case atypIPv6:
		return readOctets(r, b, 16+2)
	case atypDomain:
		if b, err = readOctets(r, b, 1); err != nil {
			return b, err
		}
		return readOctets(r, b, int(b[len(b)-1])+2)
	}
	return b, nil
}

// readOctets appends the next n octets to b.
func readOctets(r io.Reader, b []byte, n int) ([]byte, error) {
	b = append(b, make([]byte, n)...)
	_, err := io.ReadFull(r, b[len(b)-n:])
	return b, err
}

// parseAddr parses what readAddr has read. Its errors are EAFNOSUPPORT for an
// unknown ATYP, EACCES for a host with a zone, EHOSTUNREACH for another host
// that ParseHost does not take, and EPROTO for a wrong length.
func parseAddr(b []byte) (Addr, error) {
	if len(b) == 1 { // readAddr stops at an ATYP that it does not know
		return Addr{}, fmt.Errorf("parsing address type %#02x: %w", b[0], syscall.EAFNOSUPPORT)
	}
	if len(b) < 1+2 {
		return Addr{}, fmt.Errorf("parsing an address of %d octets: %w", len(b), syscall.EPROTO)
	}
	atyp, host, port := b[0], b[1:len(b)-2], binary.BigEndian.Uint16(b[len(b)-2:])
	switch {
	case atyp == atypIPv4 && len(host) == 4:
		return Addr{IP: netip.AddrFrom4([4]byte(host)), Port: port}, nil
	case atyp == atypIPv6 && len(host) == 16:
		return Addr{IP: netip.AddrFrom16([16]byte(host)).Unmap(), Port: port}, nil
	case atyp == atypDomain && len(host) > 0 && len(host) == 1+int(host[0]):
		a, err := ParseHost(string(host[1:]), port)
		switch {
		case errors.Is(err, errZone):
			return Addr{}, fmt.Errorf("%w: %w", err, syscall.EACCES)
		case err != nil:
			return Addr{}, fmt.Errorf("%w: %w", err, syscall.EHOSTUNREACH)
		}
		return a, nil
	}
	return Addr{}, fmt.Errorf("parsing an address of %d octets, type %d: %w", len(b), atyp, syscall.EPROTO)
}
