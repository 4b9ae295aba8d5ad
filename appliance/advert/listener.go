package advert

import (
	"context"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// How hosts ask for advertisements (RFC 4861, section 10).
const (
	solicitations        = 3
	solicitationInterval = 4 * time.Second
)

// Listener hears the routers of interfaces (RFC 4861, section 6.3).
type Listener struct {
	link   Link
	heard  func(iface int, router netip.Addr, m Message)
	logger *slog.Logger

	changed chan struct{} // holds one element when there are other interfaces

	mu     sync.Mutex // guards the fields below
	ifaces []int
	asked  map[int]int // how often at an interface where nobody has answered yet
}

// NewListener returns a Listener by a link, which Run closes. It calls heard
// with each advertisement, one after the other. A nil logger is silent.
func NewListener(link Link, heard func(iface int, router netip.Addr, m Message), logger *slog.Logger) *Listener {
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	return &Listener{link: link, heard: heard, logger: logger, changed: make(chan struct{}, 1), asked: map[int]int{}}
}

// Follow makes ifaces, by their indexes, those whose routers are heard. Routers
// of new ones are asked to say what they have to.
func (l *Listener) Follow(ifaces []int) {
	l.mu.Lock()
	for _, iface := range ifaces {
		if !slices.Contains(l.ifaces, iface) {
			l.asked[iface] = 0
		}
	}
	l.ifaces = slices.Clone(ifaces)
	l.mu.Unlock()
	select {
	case l.changed <- struct{}{}:
	default: // told already
	}
}

// Run hears routers until ctx ends.
func (l *Listener) Run(ctx context.Context) error {
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		hear(ctx, l.link, l.logger, l.take)
	}()
	again := time.NewTicker(solicitationInterval)
	defer again.Stop()
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-again.C:
			l.solicit(solicitations)
		case <-l.changed:
			l.solicit(1)
		}
	}
	err := l.link.Close()
	<-ended
	return err
}

// solicit asks the routers of interfaces that have not answered, if they were
// asked less often than that.
func (l *Listener) solicit(times int) {
	l.mu.Lock()
	var ifaces []int
	for iface, n := range l.asked {
		switch {
		case n == solicitations || !slices.Contains(l.ifaces, iface):
			delete(l.asked, iface)
		case n < times:
			l.asked[iface]++
			ifaces = append(ifaces, iface)
		}
	}
	l.mu.Unlock()
	for _, iface := range ifaces {
		if err := l.link.Send(iface, allRouters(), solicitation()); err != nil {
			l.logger.Debug("soliciting routers", "interface", iface, "err", err)
		}
	}
}

// take takes what a neighbour said. Only routers of the wanted interfaces count.
func (l *Listener) take(p Packet) {
	m, err := Parse(p.Octets)
	if err != nil || p.HopLimit != neighbourly || !p.From.IsLinkLocalUnicast() {
		return
	}
	l.mu.Lock()
	wanted := slices.Contains(l.ifaces, p.Interface)
	if wanted {
		delete(l.asked, p.Interface)
	}
	l.mu.Unlock()
	if wanted {
		l.heard(p.Interface, p.From, m)
	}
}
