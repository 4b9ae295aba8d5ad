package dnsfake

import "net/netip"

// Mapping is a name and what stands for it.
type Mapping struct {
	Name  string     `json:"name"`
	IPv4  netip.Addr `json:"ipv4"`
	IPv6  netip.Addr `json:"ipv6"`
	Flows int        `json:"flows"` // that hold it now
}

// Mappings returns all mappings in the order of their addresses.
func (t *Table) Mappings() []Mapping {
	t.mu.Lock()
	defer t.mu.Unlock()
	all := make([]Mapping, 0, len(t.names))
	for i, s := range t.slots {
		if s.name != "" {
			pair := t.pair(int32(i))
			all = append(all, Mapping{Name: s.name, IPv4: pair.IPv4, IPv6: pair.IPv6, Flows: int(s.flows)})
		}
	}
	return all
}
