package appliance

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	"sixgate/appliance/advert"
	"sixgate/appliance/config"
)

// maxResolvers is as many DNS servers as hosts need to be told of (RFC 8106,
// section 5.3.1).
const maxResolvers = 3

// advertised returns what the hosts of l are told of.
func (m *machine) advertised(c *config.Config, l lan) (told advert.Message) {
	tell := func(kind advert.Kind, p netip.Prefix) {
		told.Options = append(told.Options, advert.Option{Kind: kind, Prefix: p, Lifetime: advert.Lifetime})
	}
	if c.Advertise.Router {
		told.Lifetime = advert.Lifetime
	}
	if c.Advertise.Prefixes {
		for _, p := range l.addresses {
			// Hosts can make addresses of no other length (RFC 4862, section
			// 5.5.3, and RFC 4291, section 2.5.1).
			if ip := p.Addr(); ip.Is6() && !ip.IsLinkLocalUnicast() && p.Bits() == 64 {
				told.Options = append(told.Options, advert.Option{
					Kind: advert.Prefix, Prefix: p.Masked(), Lifetime: advert.PrefixLifetime, Preferred: advert.PrefixPreferred,
				})
			}
		}
	}
	for _, p := range append(m.pools(c), m.literals...) {
		if p.Addr().Is6() {
			tell(advert.Route, p)
		}
	}
	for _, ip := range m.resolvers(c, l) {
		tell(advert.Resolver, netip.PrefixFrom(ip, ip.BitLen()))
	}
	if p, ok := m.ownNAT64(); ok {
		tell(advert.NAT64, p)
	}
	return told
}

// resolvers returns the IPv6 addresses at which the hosts of l find DNS, those
// that last longer first: link-local ones are of the interface.
func (m *machine) resolvers(c *config.Config, l lan) (found []netip.Addr) {
	for _, at := range m.listenDNS(c) {
		for _, p := range l.addresses {
			ip := p.Addr()
			if ip.Is6() && at.Port() == portDNS && (at.Addr().WithZone("") == ip || at.Addr() == netip.IPv6Unspecified()) &&
				!slices.Contains(found, ip) {
				found = append(found, ip)
			}
		}
	}
	slices.SortStableFunc(found, func(a, b netip.Addr) int {
		switch {
		case a.IsLinkLocalUnicast() == b.IsLinkLocalUnicast():
			return 0
		case b.IsLinkLocalUnicast():
			return -1
		}
		return 1
	})
	return found[:min(len(found), maxResolvers)]
}

// sending is a sender that runs.
type sending struct {
	sender *advert.Sender
	told   advert.Message
	stop   context.CancelFunc
}

// senders advertise the gateway on interfaces. They are set by one at a time.
type senders struct {
	logger *slog.Logger

	mu     sync.Mutex // guards the fields below
	open   map[advert.Interface]sending
	silent map[string]string // why nothing is told, by the interface's name
}

// set advertises the machine as it is now, in tasks until ctx ends, and on
// interfaces that are no more no longer. One that is not ready is no error: it
// will be noticed when it is.
func (s *senders) set(ctx context.Context, tasks *errgroup.Group, c *config.Config, m *machine) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := s.silent
	s.silent = map[string]string{}
	wanted := map[advert.Interface]advert.Message{}
	for _, l := range m.lan {
		if !slices.Contains(c.Advertise.Interfaces, l.name) {
			continue
		}
		iface, err := advert.Find(l.name)
		if err == nil {
			wanted[iface] = m.advertised(c, l)
			continue
		}
		s.silent[l.name] = err.Error()
		if before[l.name] == "" {
			s.logger.Warn("nothing is advertised", "interface", l.name, "err", err)
		}
	}
	for iface, running := range s.open {
		if _, ok := wanted[iface]; !ok {
			running.stop()
			delete(s.open, iface)
		}
	}
	var errs []error
	for iface, told := range wanted {
		errs = append(errs, s.tellLocked(ctx, tasks, iface, told))
	}
	return errors.Join(errs...)
}

// tellLocked advertises told on an interface.
func (s *senders) tellLocked(ctx context.Context, tasks *errgroup.Group, iface advert.Interface, told advert.Message) error {
	running, ok := s.open[iface]
	if !ok {
		link, err := advert.Open(iface)
		if err != nil {
			s.silent[iface.Name] = err.Error()
			return fmt.Errorf("advertising the gateway: %w", err)
		}
		ctx, stop := context.WithCancel(ctx)
		running = sending{sender: advert.NewSender(iface, link, s.logger), stop: stop}
		tasks.Go(func() error { return running.sender.Run(ctx) })
	}
	if !ok || !slices.Equal(running.told.Options, told.Options) {
		running.told = told
		running.sender.Set(told)
		s.logger.Info("advertised", "interface", iface.Name, "what", telling(told))
	}
	s.open[iface] = running
	return nil
}

// checkAdvertised tests whether what is configured can be told, and shows it.
func checkAdvertised(c *config.Config, m *machine) (findings []Finding) {
	for _, l := range m.lan {
		if !slices.Contains(c.Advertise.Interfaces, l.name) {
			continue
		}
		iface, err := advert.Find(l.name)
		advice := "bring it up, with IPv6"
		if err == nil {
			var link advert.Link
			if link, err = advert.Open(iface); err == nil {
				err = link.Close()
			}
			advice = grant(c)
		}
		findings = append(findings, finding("router advertisements on "+l.name, telling(m.advertised(c, l)), err, advice))
	}
	return findings
}

// telling writes what a message tells of.
func telling(m advert.Message) string {
	what := map[advert.Kind]string{advert.Prefix: "addresses from", advert.Route: "route to", advert.Resolver: "DNS", advert.NAT64: "NAT64"}
	var parts []string
	if m.Lifetime > 0 {
		parts = append(parts, "default router")
	}
	for _, o := range m.Options {
		text := o.Prefix.String()
		if o.Kind == advert.Resolver {
			text = o.Prefix.Addr().String()
		}
		parts = append(parts, what[o.Kind]+" "+text)
	}
	return strings.Join(parts, ", ")
}

// Advertised is what the hosts of an interface are told by router
// advertisements.
type Advertised struct {
	Interface string `json:"interface"`
	What      string `json:"what"` // or why nothing

	Sent         uint64 `json:"sent"`
	Solicited    uint64 `json:"solicited"`
	Malformed    uint64 `json:"malformed"`
	Contradicted uint64 `json:"contradicted"` // by other routers
}

// status returns what is told, by the names of interfaces.
func (s *senders) status() (all []Advertised) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for iface, running := range s.open {
		n := running.sender.Counters()
		all = append(all, Advertised{iface.Name, telling(running.told), n.Sent, n.Solicited, n.Malformed, n.Contradicted})
	}
	for _, name := range slices.Collect(maps.Keys(s.silent)) {
		all = append(all, Advertised{Interface: name, What: "nothing: " + s.silent[name]})
	}
	slices.SortFunc(all, func(a, b Advertised) int { return strings.Compare(a.Interface, b.Interface) })
	return all
}
