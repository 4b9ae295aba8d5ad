package upstream

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"time"

	"github.com/miekg/dns"
)

// Addresses is what the servers say of a name's addresses of one family.
type Addresses struct {
	Rcode int           // NXDOMAIN, no error, or that of a failure
	Addrs []netip.Addr  // shared with others: not to be changed
	TTL   time.Duration // what is left of the least on the alias chain
	Stale bool          // no fresh answer can be had, for now

	answer *answer
	at     time.Time // that TTL is of
}

// SOA returns the SOA that came with the absence of the name or of its
// addresses, nil if there is none or it is that of an alias' target. It is the
// caller's to change. Its TTL is what is left of the one that RFC 2308, section
// 5 gives the absence.
func (a Addresses) SOA() *dns.SOA {
	var m dns.Msg
	if a.answer == nil || m.Unpack(a.answer.wire) != nil || len(m.Answer) > 0 {
		return nil
	}
	soa := SOA(&m)
	if soa != nil {
		soa.Hdr.Ttl = a.answer.age(soa.Hdr.Ttl, a.at)
	}
	return soa
}

// Addresses returns the addresses of name of the family of qtype, A or AAAA. It
// is Exchange for who wants only these: while the answer is known, nothing is
// allocated for a name in lower case with its final dot.
func (r *Resolver) Addresses(ctx context.Context, name string, qtype uint16) (Addresses, error) {
	key := question{name: lowerName(name), qtype: qtype, qclass: dns.ClassINET}
	a, err := r.join(key).wait(ctx, staleAfter)
	if err == nil {
		err = a.err
	}
	if err != nil {
		return Addresses{}, fmt.Errorf("asking for %s: %w", key, err)
	}
	return a.addresses(r.conf.Now()), nil
}

// Known is Addresses without the wait: ok is false unless a fresh answer is at
// hand. It asks nobody.
func (r *Resolver) Known(name string, qtype uint16) (known Addresses, ok bool) {
	key := question{name: lowerName(name), qtype: qtype, qclass: dns.ClassINET}
	now := r.conf.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	e := r.cache.get(key, now)
	if e == nil || e.answer.err != nil || !e.answer.fresh(now) {
		return Addresses{}, false
	}
	r.useLocked(e, now)
	return e.answer.addresses(now), true
}

// addresses returns what a, which is no error, tells of addresses.
func (a *answer) addresses(now time.Time) Addresses {
	ttl := time.Duration(a.age(uint32(a.ttl/time.Second), now)) * time.Second
	return Addresses{a.rcode, a.addrs, ttl, !a.fresh(now), a, now}
}

// LookupNetIP returns the addresses of name in network, which is "ip", "ip4" or
// "ip6", IPv6 before IPv4. While the answers are known it asks nobody: who
// connects is better served by addresses that were right not long ago than by
// none, so that stale ones are returned at once, while fresh ones are asked for.
//
// An error that does not come from ctx is a *net.DNSError: IsNotFound when
// there is no such name or no such address, else IsTemporary, with IsTimeout
// when no server answered in time. It is EHOSTUNREACH to errors.Is.
func (r *Resolver) LookupNetIP(ctx context.Context, network, name string) ([]netip.Addr, error) {
	var qtypes []uint16
	switch network {
	case "ip":
		qtypes = []uint16{dns.TypeAAAA, dns.TypeA}
	case "ip4":
		qtypes = []uint16{dns.TypeA}
	case "ip6":
		qtypes = []uint16{dns.TypeAAAA}
	default:
		return nil, fmt.Errorf("looking up %s: unknown network %q", name, network)
	}
	var shares []share
	for _, qtype := range qtypes {
		shares = append(shares, r.join(question{name: lowerName(name), qtype: qtype, qclass: dns.ClassINET}))
	}
	var addrs []netip.Addr
	var failed error
	for _, s := range shares {
		a, err := s.wait(ctx, 0)
		switch {
		case err != nil:
			failed = err
		case a.err != nil:
			failed = a.err
		case !a.definite():
			failed = fmt.Errorf("servers say %s", dns.RcodeToString[a.rcode])
		default:
			addrs = append(addrs, a.addrs...)
		}
	}
	switch {
	case len(addrs) > 0:
		return addrs, nil
	case ctx.Err() != nil:
		return nil, fmt.Errorf("looking up %s: %w", name, context.Cause(ctx))
	case failed != nil:
		return nil, &net.DNSError{Name: name, Err: failed.Error(), UnwrapErr: syscall.EHOSTUNREACH,
			IsTemporary: true, IsTimeout: errors.Is(failed, syscall.ETIMEDOUT)}
	}
	return nil, &net.DNSError{Name: name, Err: "no such host", UnwrapErr: syscall.EHOSTUNREACH, IsNotFound: true}
}
