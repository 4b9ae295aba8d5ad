package outlet

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"time"

	"sixgate/socks"
)

const (
	resolutionDelay = 50 * time.Millisecond  // RFC 8305, section 3
	attemptDelay    = 250 * time.Millisecond // RFC 8305, section 5
)

// errNoAddress is of a name that has none of a family in use.
var errNoAddress = fmt.Errorf("no address of a family in use: %w", syscall.EHOSTUNREACH)

// race connects to the first of several addresses that answers (Happy Eyeballs
// version 2, RFC 8305). One goroutine runs it; each look-up that has to wait
// and each attempt that is not the last has its own, and reports by a channel.
type race struct {
	*Direct
	network string // "tcp" or "udp"
	dest    socks.Addr

	workers  sync.WaitGroup
	answers  chan answer
	attempts chan attempt
	inUse    []string // families, the preferred one first: "ip4", "ip6"
	lookups  int      // that have not reported
	dialling int      // attempts that have not reported

	first   netip.Addr              // to be tried before the others, if it is one of them
	waiting map[string][]netip.Addr // to be tried, by family: "ip4" or "ip6"
	last    string                  // family tried last, "" at the start
	ready   bool                    // the next attempt need not wait

	failed     error // of the attempt that says most
	denied     error // of an address that was vetted
	unresolved error // of a look-up
}

// answer is the outcome of a look-up.
type answer struct {
	family string
	ips    []netip.Addr
	err    error
}

// attempt is the outcome of an attempt.
type attempt struct {
	conn net.Conn
	err  error
}

func (d *Direct) race(ctx context.Context, network string, dest socks.Addr) (net.Conn, error) {
	if !dest.IsName() {
		return d.connect(ctx, network, dest)
	}
	r := &race{
		Direct:  d,
		network: network,
		dest:    dest,
		inUse:   d.networks(),
		waiting: map[string][]netip.Addr{},
	}
	if d.first != nil {
		r.first = d.meant(d.first(dest))
	}
	unknown := r.recall(ctx)
	if ip, ok := r.onlyOne(); ok {
		return r.attempt(ctx, network, netip.AddrPortFrom(ip, dest.Port))
	}
	r.answers, r.attempts = make(chan answer, len(unknown)), make(chan attempt)
	ctx, cancel := context.WithCancel(ctx)
	defer r.workers.Wait()
	defer cancel()
	r.lookUp(ctx, unknown)
	return r.run(ctx)
}

// connect connects to an address, against which there is none to race.
func (d *Direct) connect(ctx context.Context, network string, dest socks.Addr) (net.Conn, error) {
	if !slices.Contains(d.networks(), networkOf(dest.IP)) {
		return nil, fmt.Errorf("a family not in use: %w", syscall.EAFNOSUPPORT)
	}
	if err := d.vet(dest, dest.IP); err != nil {
		return nil, err
	}
	return d.attempt(ctx, network, netip.AddrPortFrom(dest.IP, dest.Port))
}

// attempt connects to an address, if need be through a translator.
func (d *Direct) attempt(ctx context.Context, network string, to netip.AddrPort) (net.Conn, error) {
	conn, err := d.dial(ctx, network, netip.AddrPortFrom(d.through(to.Addr()), to.Port()))
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return conn, socks.WithErrno(err)
}

// run returns the first connection, or why there is none.
func (r *race) run(ctx context.Context) (net.Conn, error) {
	timer := time.NewTimer(resolutionDelay) // for the preferred family's answer
	defer timer.Stop()
	if r.ready || len(r.waiting) == 0 {
		timer.Stop()
	}
	for {
		if ip, ok := r.onlyOne(); ok {
			conn, err := r.attempt(ctx, r.network, netip.AddrPortFrom(ip, r.dest.Port))
			if err == nil {
				return conn, nil
			}
			return nil, stronger(r.failed, err)
		}
		if r.ready && r.startNext(ctx) {
			r.ready = false
			timer.Reset(attemptDelay)
		}
		if r.lookups == 0 && r.dialling == 0 {
			return nil, cmp.Or(r.failed, r.denied, r.unresolved, errNoAddress)
		}
		select {
		case a := <-r.answers:
			r.lookups--
			if r.add(ctx, a); !r.ready && r.last == "" && len(a.ips) > 0 {
				timer.Reset(resolutionDelay)
			}
		case a := <-r.attempts:
			r.dialling--
			if a.err == nil {
				return a.conn, nil
			}
			r.failed = stronger(r.failed, a.err)
			r.ready = true
		case <-timer.C:
			r.ready = true
		case <-ctx.Done():
			return nil, stronger(r.failed, socks.WithErrno(context.Cause(ctx)))
		}
	}
}

// recall takes the answers that are known, and returns the families of the
// others.
func (r *race) recall(ctx context.Context) (unknown []string) {
	knowing, ok := r.Resolver.(KnowingResolver)
	if !ok {
		r.lookups = len(r.inUse)
		return r.inUse
	}
	var known []answer
	for _, family := range r.inUse {
		if ips, ok, err := knowing.KnownNetIP(family, r.dest.Name); ok {
			known = append(known, r.answer(family, ips, err))
		} else {
			unknown = append(unknown, family)
		}
	}
	r.lookups = len(unknown)
	for _, a := range known {
		r.add(ctx, a)
	}
	return unknown
}

// lookUp starts a look-up for each of the families.
func (r *race) lookUp(ctx context.Context, families []string) {
	for _, family := range families {
		r.workers.Go(func() {
			ips, err := r.Resolver.LookupNetIP(ctx, family, r.dest.Name)
			r.answers <- r.answer(family, ips, err)
		})
	}
}

func (r *race) answer(family string, ips []netip.Addr, err error) answer {
	if err != nil {
		err = fmt.Errorf("looking up %s of %s: %w: %w", family, r.dest.Name, err, syscall.EHOSTUNREACH)
	}
	return answer{family, ips, err}
}

// add takes the addresses that may be dialled. The first attempt may be made
// when they are of the family to begin with, or when no answer is missing.
func (r *race) add(ctx context.Context, a answer) {
	r.unresolved = cmp.Or(r.unresolved, a.err)
	for _, ip := range a.ips {
		ip = ip.Unmap().WithZone("")
		if networkOf(ip) != a.family {
			continue // an IPv4-mapped answer to a question for IPv6
		}
		if err := r.vet(r.dest, ip); err != nil {
			r.denied = err
			continue
		}
		r.waiting[a.family] = append(r.waiting[a.family], ip)
	}
	if a.family == "ip6" {
		r.order(ctx, r.waiting[a.family])
	}
	if r.first.IsValid() && networkOf(r.first) == a.family {
		r.putFirst(a.family)
	}
	if r.last == "" && (r.lookups == 0 || a.family == r.families()[0]) {
		r.ready = true
	}
}

// putFirst puts first in front of its family, or forgets it if it is not there.
func (r *race) putFirst(family string) {
	ips := r.waiting[family]
	i := slices.Index(ips, r.first)
	if i < 0 {
		r.first = netip.Addr{}
		return
	}
	copy(ips[1:i+1], ips[:i])
	ips[0] = r.first
}

// families returns those in use, that of first or else the preferred one first.
func (r *race) families() []string {
	families := slices.Clone(r.inUse)
	if r.first.IsValid() && networkOf(r.first) != families[0] {
		slices.Reverse(families)
	}
	return families
}

// startNext starts an attempt, unless no address waits.
func (r *race) startNext(ctx context.Context) bool {
	ip, ok := r.next()
	if !ok {
		return false
	}
	r.dialling++
	r.workers.Go(func() {
		conn, err := r.attempt(ctx, r.network, netip.AddrPortFrom(ip, r.dest.Port))
		select {
		case r.attempts <- attempt{conn, err}:
		case <-ctx.Done(): // lost
			if err == nil {
				conn.Close()
			}
		}
	})
	return true
}

// onlyOne takes the address that is left to try, if there is nothing to wait
// for beside it.
func (r *race) onlyOne() (netip.Addr, bool) {
	if !r.ready || r.lookups > 0 || r.dialling > 0 || len(r.waiting["ip4"])+len(r.waiting["ip6"]) != 1 {
		return netip.Addr{}, false
	}
	return r.next()
}

// next takes the address to try next. The families take turns (RFC 8305, section
// 4).
func (r *race) next() (netip.Addr, bool) {
	families := r.families()
	if families[0] == r.last {
		slices.Reverse(families)
	}
	for _, family := range families {
		if ips := r.waiting[family]; len(ips) > 0 {
			r.waiting[family], r.last = ips[1:], family
			return ips[0], true
		}
	}
	return netip.Addr{}, false
}

// evidence lists what a failed attempt can tell of the destination, the least
// first: a refusal comes from the very host, no route may be our own fault.
var evidence = []syscall.Errno{
	syscall.ENETUNREACH,
	syscall.EHOSTUNREACH,
	syscall.ETIMEDOUT,
	syscall.ECONNREFUSED,
}

// stronger returns the one of a, which may be nil, and b that tells more.
func stronger(a, b error) error {
	weight := func(err error) int {
		return slices.IndexFunc(evidence, func(errno syscall.Errno) bool { return errors.Is(err, errno) })
	}
	if a == nil || weight(b) > weight(a) {
		return b
	}
	return a
}
