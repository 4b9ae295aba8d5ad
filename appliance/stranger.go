package appliance

import (
	"net/netip"
	"time"

	"golang.org/x/time/rate"

	"sixgate/appliance/config"
	"sixgate/dnsfake"
	"sixgate/socks"
	"sixgate/socks/nat64"
	"sixgate/socks/route"
)

const (
	// maxStrangers is how many hosts that no client has called may get an address
	// of the pools in a second; ten times as many at once.
	maxStrangers = 20
	// strangerLife is about how long each takes an address for at the least.
	strangerLife = 150 * time.Second
)

// newStrangerLimit returns the limit to how many strangers get an address of the
// table: whoever forges their sources has no more than an eighth of it.
func newStrangerLimit(table *dnsfake.Table) *rate.Limiter {
	share := float64(table.Cap()) / 8
	return rate.NewLimiter(min(maxStrangers, rate.Limit(share/strangerLife.Seconds())), int(min(10*maxStrangers, share)))
}

// meet begins a flow between client and from, who sends it datagrams uninvited:
// it comes from an address that the client can answer.
func (in *tunInlet) meet(client, from netip.AddrPort) bool {
	p, packets := in.policy(), in.packets.Load()
	f := route.Flow{Network: "udp", Client: client.Addr(), Dest: socks.AddrFromAddrPort(from)}
	if packets == nil || p.config.Direct.Filtering != config.FilterNobody || from.Port() == portDNS || // that is ours
		p.guard.Vet(from.Addr()) != nil || !p.flows.Reaches(f) || !in.strangers.Allow() {
		return false
	}
	written, ok := in.current().written(client.Addr(), from.Addr(), in.nat64())
	if !ok {
		pair, err := in.table.Issue(from.Addr().String(), 0)
		if err != nil {
			return false
		}
		if written = pair.IPv4; client.Addr().Is6() {
			written = pair.IPv6
		}
	}
	return packets.BeginDatagrams(client, netip.AddrPortFrom(written, from.Port()))
}

// written returns the address by which client writes to ip through the gateway,
// if there is one besides fake addresses: what literal takes for it. uplink is
// the prefix of the network's NAT64, if any.
func (m *machine) written(client, ip netip.Addr, uplink netip.Prefix) (netip.Addr, bool) {
	if m.translated && client.Is4() {
		return nat64.Extract(uplink, ip)
	}
	p, ok := m.ownNAT64()
	if !ok || client.Is4() || ip.Is6() {
		return netip.Addr{}, false
	}
	return nat64.Embed(p, ip), true
}
