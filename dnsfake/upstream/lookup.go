package upstream

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"

	"github.com/miekg/dns"
)

// LookupNetIP returns the addresses of name in network, which is "ip", "ip4" or
// "ip6", IPv6 before IPv4. While the answers are known it asks nobody: who
// connects is better served by addresses that were right not long ago than by
// waiting, so that stale ones are returned at once, while fresh ones are asked
// for. That there were none is believed only when nothing fresh comes in time.
//
// An error that does not come from ctx is a *net.DNSError: IsNotFound when
// there is no such name or no such address, else IsTemporary, with IsTimeout
// when no server answered in time. It is EHOSTUNREACH to errors.Is.
func (r *Resolver) LookupNetIP(ctx context.Context, network, name string) ([]netip.Addr, error) {
	shares, err := r.shares(network, name)
	if err != nil {
		return nil, err
	}
	var answers []*answer
	for _, s := range shares {
		a, err := s.waitToConnect(ctx)
		if err != nil {
			a = &answer{err: err}
		}
		answers = append(answers, a)
	}
	addrs, err := addrsOf(name, answers)
	if err != nil && ctx.Err() != nil {
		err = fmt.Errorf("looking up %s: %w", name, context.Cause(ctx))
	}
	return addrs, err
}

// KnownNetIP returns what LookupNetIP would, where that need not wait.
func (r *Resolver) KnownNetIP(network, name string) (ips []netip.Addr, known bool, err error) {
	shares, err := r.shares(network, name)
	if err != nil {
		return nil, true, err
	}
	var answers []*answer
	for _, s := range shares {
		if !s.serves() {
			return nil, false, nil
		}
		answers = append(answers, s.known)
	}
	ips, err = addrsOf(name, answers)
	return ips, true, err
}

// shares returns one for each type of address in network.
func (r *Resolver) shares(network, name string) ([]share, error) {
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
	return shares, nil
}

// addrsOf returns the addresses in answers, or why there are none.
func addrsOf(name string, answers []*answer) ([]netip.Addr, error) {
	var addrs []netip.Addr
	var failed error
	for _, a := range answers {
		switch {
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
	case failed != nil:
		return nil, &net.DNSError{Name: name, Err: failed.Error(), UnwrapErr: syscall.EHOSTUNREACH,
			IsTemporary: true, IsTimeout: errors.Is(failed, syscall.ETIMEDOUT)}
	}
	return nil, &net.DNSError{Name: name, Err: "no such host", UnwrapErr: syscall.EHOSTUNREACH, IsNotFound: true}
}

// LookupAddr returns the names of the address addr, with a trailing dot. Its
// errors are those of LookupNetIP.
func (r *Resolver) LookupAddr(ctx context.Context, addr string) ([]string, error) {
	name, err := dns.ReverseAddr(addr)
	if err != nil {
		return nil, fmt.Errorf("looking up the name of %q: %w", addr, err)
	}
	q := new(dns.Msg).SetQuestion(name, dns.TypePTR)
	reply, err := r.Exchange(ctx, q)
	switch {
	case err != nil:
		return nil, err
	case reply.Rcode != dns.RcodeSuccess && reply.Rcode != dns.RcodeNameError:
		return nil, &net.DNSError{Name: addr, Err: "servers say " + dns.RcodeToString[reply.Rcode], UnwrapErr: syscall.EHOSTUNREACH, IsTemporary: true}
	}
	var names []string
	for _, rr := range reply.Answer {
		if ptr, ok := rr.(*dns.PTR); ok {
			names = append(names, ptr.Ptr)
		}
	}
	if len(names) == 0 {
		return nil, &net.DNSError{Name: addr, Err: "no such name", UnwrapErr: syscall.EHOSTUNREACH, IsNotFound: true}
	}
	return names, nil
}

// waitToConnect is wait for who wants to connect: stale addresses serve at once,
// but what was not there may be by now.
func (s share) waitToConnect(ctx context.Context) (*answer, error) {
	if s.serves() {
		return s.known, nil
	}
	return s.wait(ctx)
}

// serves reports whether what is known serves who wants to connect.
func (s share) serves() bool { return s.known != nil && (s.job == nil || len(s.known.addrs) > 0) }
