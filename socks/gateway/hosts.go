package gateway

import (
	"net/netip"
	"sync"

	"sixgate/socks/outlet"
)

// hosts knows at which of its addresses each client has reached a name. Further
// flows go there as well while one lives: protocols of more than one, as FTP,
// SIP and IPsec are, want to meet the same host again.
type hosts struct {
	mu    sync.Mutex
	known map[clientName]*host // with flows; guarded by mu
}

type clientName struct {
	client netip.Addr
	name   string
}

type host struct {
	ip    netip.Addr
	flows int
}

func newHosts() hosts { return hosts{known: make(map[clientName]*host)} }

// of returns where client has reached name, invalid if nowhere.
func (h *hosts) of(client netip.Addr, name string) netip.Addr {
	h.mu.Lock()
	defer h.mu.Unlock()
	if one := h.known[clientName{client, name}]; one != nil {
		return one.ip
	}
	return netip.Addr{}
}

// hold notes that a flow of client has reached name at ip, until release is
// called. Where others have reached another address, that one has failed since,
// or is not the name's any more.
func (h *hosts) hold(client netip.Addr, name string, ip netip.Addr) (release func()) {
	key := clientName{client, name}
	h.mu.Lock()
	defer h.mu.Unlock()
	one := h.known[key]
	if one == nil {
		one = &host{}
		h.known[key] = one
	}
	one.ip = ip
	one.flows++
	return func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		if one.flows--; one.flows == 0 {
			delete(h.known, key)
		}
	}
}

// looksUp reports whether the outlet of this name looks up names itself.
func (p *Policy) looksUp(name string) bool {
	_, ok := p.Outlets[name].(*outlet.Direct)
	return ok
}
