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
// "ip6", IPv6 before IPv4. While the answers are fresh it asks nobody.
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
	outcomes := make([]chan outcome, len(qtypes))
	for i, qtype := range qtypes {
		outcomes[i] = make(chan outcome, 1)
		q := new(dns.Msg).SetQuestion(dns.Fqdn(name), qtype)
		go func() {
			msg, err := r.Exchange(ctx, q)
			outcomes[i] <- outcome{msg, err}
		}()
	}
	var addrs []netip.Addr
	var failed error
	for _, c := range outcomes {
		o := <-c
		if o.err == nil && !definite(o.msg.Rcode) {
			o.err = fmt.Errorf("servers say %s", dns.RcodeToString[o.msg.Rcode])
		}
		if o.err != nil {
			failed = o.err
			continue
		}
		addrs = append(addrs, Addrs(o.msg)...)
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
