package appliance

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"sixgate/appliance/advert"
	"sixgate/socks/nat64"
	"sixgate/socks/outlet"
)

// translatorRefresh is how often it is looked whether the network's NAT64 has
// come, gone or changed. The resolver keeps its answer as long as it is valid.
const translatorRefresh = 30 * time.Second

// maxAdvertised bounds what routers make us hold.
const maxAdvertised = 16

// How the NAT64 of the network is known.
const (
	byRouter   = "its router advertises it"
	byDNS      = "its DNS tells of it"
	bySettings = "it is configured"
)

// translator knows the NAT64 of the network that the uplink leads to.
type translator struct {
	fixed    netip.Prefix // by configuration; invalid: none
	find     bool
	resolver outlet.Resolver
	current  func() *machine
	own      func() []netip.Prefix // that lead to the gateway itself
	logger   *slog.Logger
	changed  chan struct{} // holds one element when there is something new

	mu         sync.Mutex // guards the fields below
	advertised []pref64   // the first heard first; outdated ones may be among them
	answered   *netip.Prefix
	told       netip.Prefix // in the log
	silence    bool         // it was told that there is none
}

// pref64 is a prefix that a router has advertised (RFC 8781).
type pref64 struct {
	iface  int // index
	router netip.Addr
	prefix netip.Prefix
	expiry time.Time
}

// prefix returns the prefix by which IPv4 addresses are dialled, or an invalid
// one while the uplink has IPv4 itself.
func (t *translator) prefix() netip.Prefix {
	p, _ := t.known()
	return p
}

// known returns prefix, and how it is known. What a router advertises counts
// more than what DNS tells (RFC 8781, section 5).
func (t *translator) known() (p netip.Prefix, how string) {
	m := t.current()
	if m.uplink.IPv4 || !m.uplink.IPv6 {
		return netip.Prefix{}, ""
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	switch p := t.advertisedLocked(m); {
	case p.IsValid():
		return p, byRouter
	case t.answered != nil && t.foreign(*t.answered):
		return *t.answered, byDNS
	case t.fixed.IsValid():
		return t.fixed, bySettings
	}
	return netip.Prefix{}, ""
}

// advertisedLocked returns the prefix that a router of the uplink has
// advertised, or an invalid one.
func (t *translator) advertisedLocked(m *machine) netip.Prefix {
	now := time.Now()
	for _, a := range t.advertised {
		if now.Before(a.expiry) && slices.Contains(m.uplinks, a.iface) && t.foreign(a.prefix) {
			return a.prefix
		}
	}
	return netip.Prefix{}
}

// foreign reports whether p is valid and does not lead back to the gateway.
func (t *translator) foreign(p netip.Prefix) bool {
	return nat64.Valid(p) && !slices.ContainsFunc(t.own(), p.Overlaps)
}

// run keeps what DNS tells up to date until ctx ends, where the prefix is to be
// found.
func (t *translator) run(ctx context.Context) error {
	if !t.find {
		return nil
	}
	again := time.NewTicker(translatorRefresh)
	defer again.Stop()
	for {
		if m := t.current(); !m.uplink.IPv4 && m.uplink.IPv6 {
			if _, how := t.known(); how != byRouter {
				t.ask(ctx)
			}
			t.tell()
		}
		select {
		case <-ctx.Done():
			return nil
		case <-again.C:
		case <-t.changed:
		}
	}
}

// follow makes run look again, now that something is new.
func (t *translator) follow() {
	select {
	case t.changed <- struct{}{}:
	default:
	}
}

// hear takes what a router at an interface says.
func (t *translator) hear(iface int, router netip.Addr, m advert.Message) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	for _, o := range m.Options {
		if o.Kind != advert.NAT64 {
			continue
		}
		t.follow()
		heard := pref64{iface, router, o.Prefix, now.Add(o.Lifetime)}
		i := slices.IndexFunc(t.advertised, func(a pref64) bool {
			return a.iface == iface && a.router == router && a.prefix == o.Prefix
		})
		switch {
		case i >= 0:
			t.advertised[i] = heard
		case len(t.advertised) < maxAdvertised:
			t.advertised = append(t.advertised, heard)
		}
		t.advertised = slices.DeleteFunc(t.advertised, func(a pref64) bool { return !now.Before(a.expiry) })
	}
}

// ask finds the prefix by RFC 7050, section 3. While nobody answers, the last
// one is used.
func (t *translator) ask(ctx context.Context) {
	answers, err := t.resolver.LookupNetIP(ctx, "ip6", "ipv4only.arpa")
	if failure, ok := errors.AsType[*net.DNSError](err); err != nil && !(ok && failure.IsNotFound) {
		t.logger.Debug("asking for the NAT64 of the network", "err", err)
		return
	}
	p, _ := nat64.Find(answers)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.answered = &p
}

// tell logs how IPv4 is reached, where that is new. Before DNS has answered
// nobody knows.
func (t *translator) tell() {
	p, how := t.known()
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case p.IsValid() && p != t.told:
		t.logger.Info("IPv4 is reached through the NAT64 of the network", "prefix", p, "as", how)
	case !p.IsValid() && t.answered != nil && !t.silence:
		t.logger.Warn("the network has no NAT64, and the uplink no IPv4")
	}
	t.told, t.silence = p, !p.IsValid() && t.answered != nil
}

// String tells how IPv4 is reached where the uplink has none, else "".
func (t *translator) String() string {
	p, how := t.known()
	if !p.IsValid() {
		return how
	}
	return p.String() + ": " + how
}
