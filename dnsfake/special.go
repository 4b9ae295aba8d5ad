package dnsfake

import (
	"context"
	"net/netip"
	"slices"
	"strings"

	"github.com/miekg/dns"
)

// treatment is how the names of a special zone are answered.
type treatment int

const (
	ordinary treatment = iota
	nonexistent
	nothing   // NODATA
	loopback  // the client itself
	discovery // of NAT64
)

// specialZones returns the zones of which no upstream server is asked.
func specialZones() map[string]treatment {
	zones := map[string]treatment{
		"localhost":     loopback,  // RFC 6761, section 6.3
		"ipv4only.arpa": discovery, // RFC 8880, section 7.1
		// The upstream server's own encrypted service would lead clients
		// around us (RFC 9462, section 6.4).
		"resolver.arpa": nothing,
	}
	for _, zone := range []string{
		"invalid", "test", // RFC 6761, sections 6.2 and 6.4
		"local",                   // RFC 6762, section 22.1
		"onion",                   // RFC 7686, section 2
		"alt",                     // RFC 9476, section 2
		"home.arpa",               // RFC 8375, section 4
		"internal",                // ICANN board resolution 2024.07.29.06
		"lan",                     // what many routers call their network
		"ipv6-literal.net",        // addresses, see literal
		"use-application-dns.net", // has Firefox use us
		"mask.icloud.com",         // has Apple's systems use us,
		"mask-h2.icloud.com",      // too
	} {
		zones[zone] = nonexistent
	}
	return zones
}

// localDomains are below which clients may look for the names of the LAN.
func localDomains() []string { return []string{"home.arpa", "internal", "lan"} }

// localNets are the networks whose reverse zones are nobody else's business (RFC
// 6303, section 4; RFC 7793).
func localNets() []netip.Prefix {
	var nets []netip.Prefix
	for _, text := range []string{
		"0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16",
		"172.16.0.0/12", "192.0.0.170/32", "192.0.0.171/32", "192.0.2.0/24", "192.168.0.0/16",
		"198.51.100.0/24", "203.0.113.0/24", "255.255.255.255/32",
		"::/128", "::1/128", "2001:db8::/32", "fd00::/8", "fe80::/10",
	} {
		nets = append(nets, netip.MustParsePrefix(text))
	}
	return nets
}

// treatmentOf returns how name, in the form of key, is answered, and the zone
// that says so.
func (p *Policy) treatmentOf(name string) (zone string, t treatment) {
	zone = p.SpecialZone(name)
	return zone, p.special[zone]
}

// loopbacks are the addresses of localhost.
func loopbacks() []netip.Addr {
	return []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()}
}

// discoveries are the addresses of ipv4only.arpa (RFC 7050, section 2.2).
func discoveries() []netip.Addr {
	return []netip.Addr{netip.AddrFrom4([4]byte{192, 0, 0, 170}), netip.AddrFrom4([4]byte{192, 0, 0, 171})}
}

// own answers for names and addresses that are special, or no names at all.
func (s *Server) own(ctx context.Context, req *request) (answer, bool) {
	q := req.question[0]
	if ip, ok := literal(req.name); ok {
		return s.literal(ctx, req, ip), true
	}
	if a, ok := reverse(q, req.name, s.localNets); ok {
		return a, true
	}
	zone, t := s.conf.Policy().treatmentOf(req.name)
	exact := zone == req.name
	switch {
	case t == loopback:
		return s.positive(req, loopbacks()...), true
	case t == discovery && exact:
		ips := discoveries()
		if s.conf.NAT64 != nil && !req.families.IPv4 {
			ips = append(ips, s.conf.NAT64()...)
		}
		return s.positive(req, ips...), true
	case t == nothing:
		return s.absence(req, zone, nodata), true
	case t == ordinary && !s.unasked(req):
		return answer{}, false
	case q.Qtype == dns.TypeDS && zone == "home.arpa" && exact: // RFC 8375, section 4
		return answer{}, false
	}
	return s.absence(req, zone, nxdomain), true
}

// unasked reports whether what req asks for is found in local files or nowhere.
func (s *Server) unasked(req *request) bool {
	switch req.question[0].Qtype {
	case dns.TypeA, dns.TypeAAAA, dns.TypeHTTPS, dns.TypeSVCB:
		return unasked(req.name)
	}
	return takesOver(req.name)
}

// unasked reports whether the addresses of name, in the form of key, are found in
// local files or nowhere: those of a name without dots are nobody's but this
// network's.
func unasked(name string) bool {
	return takesOver(name) || name != "" && !strings.Contains(name, ".")
}

// takesOver reports whether what is found by name takes over a host (VU#598349).
func takesOver(name string) bool {
	first, _, _ := strings.Cut(name, ".")
	return first == "wpad" || first == "isatap"
}

// positive answers with those of ips that have the family asked for.
func (s *Server) positive(req *request, ips ...netip.Addr) answer {
	q := req.question[0]
	a := answer{kind: local}
	for _, ip := range ips {
		if rr := addressRR(q, ip, s.conf.MinTTL); rr.Header().Rrtype == q.Qtype {
			a.rrs = append(a.rrs, rr)
		}
	}
	if len(a.rrs) == 0 {
		return s.absence(req, req.name, nodata)
	}
	return a
}

// absence answers that zone, above or at the name, has no such name or no such
// record.
func (s *Server) absence(req *request, zone string, kind kind) answer {
	name := req.question[0].Name
	soa := ownSOA(name, s.conf.MaxTTL)
	if zone != "" {
		labels := dns.Split(name)
		soa.Hdr.Name = name[labels[len(labels)-dns.CountLabel(zone)]:]
	}
	a := answer{kind: kind, ns: []dns.RR{soa}}
	if kind == nxdomain {
		a.rcode = dns.RcodeNameError
	}
	return a
}

// literal returns the address that name, in the form of key, spells (RFC 3089,
// section 3): as such, with a search domain behind it, or in a form that
// programs take for a name, with "-" for ":".
func literal(name string) (netip.Addr, bool) {
	first, rest, _ := strings.Cut(name, ".")
	switch {
	case rest == "ipv6-literal.net", slices.ContainsFunc(localDomains(), func(d string) bool { return rest == "ip6."+d }):
		first = strings.ReplaceAll(first, "-", ":")
	case !strings.Contains(first, ":"), strings.Contains(rest, ":"):
		first = name
	}
	for _, text := range []string{name, first} {
		if ip, err := netip.ParseAddr(text); err == nil && ip.Zone() == "" {
			return ip.Unmap(), true
		}
	}
	return netip.Addr{}, false
}

// literal answers for an address as for a name that has it: who cannot use it
// gets a fake one, and the table keeps the address as the name.
func (s *Server) literal(ctx context.Context, req *request, ip netip.Addr) answer {
	q := req.question[0]
	if q.Qtype != dns.TypeA && q.Qtype != dns.TypeAAAA {
		return s.absence(req, req.name, nodata)
	}
	its, other := view{finding: present, ttl: s.conf.MaxTTL}, view{finding: empty}
	if s.conf.Vet != nil && s.conf.Vet(ip) != nil {
		its.finding = denied
	}
	if has := req.families; (ip.Is4() && has.IPv4 || ip.Is6() && has.IPv6) && s.conf.Policy().bypassesAll(ip) {
		its.finding = passed
	}
	if ip.Is4() != (q.Qtype == dns.TypeA) {
		its, other = other, its
	}
	switch v := decide(s.want(req), its.finding, other.finding); v {
	case giveReal:
		return s.positive(req, ip)
	case giveFake:
		return s.fake(req, ip.String(), s.conf.MaxTTL)
	default:
		return s.give(ctx, req, v, its, other)
	}
}
