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
	all := make([]Mapping, 0, t.names.len)
	for i := range t.size {
		if name := t.slots.name(i); name != "" {
			pair := t.pair(i)
			all = append(all, Mapping{Name: name, IPv4: pair.IPv4, IPv6: pair.IPv6, Flows: int(t.slots.at(i).flows)})
		}
	}
	return all
}
