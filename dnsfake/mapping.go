package dnsfake

import (
	"iter"
	"net/netip"
)

// Mapping is a name and what stands for it.
type Mapping struct {
	Name  string     `json:"name"`
	IPv4  netip.Addr `json:"ipv4"`
	IPv6  netip.Addr `json:"ipv6"`
	Flows int        `json:"flows"` // that hold it now
}

// listed is how many slots are looked at before others may use the table.
const listed = 1024

// Mappings yields all mappings in the order of their addresses. Those that
// change meanwhile may be missed, or yielded twice.
func (t *Table) Mappings() iter.Seq[Mapping] {
	return func(yield func(Mapping) bool) {
		var some []Mapping
		for from := int32(0); from < t.size; from += listed {
			some = t.mappings(some[:0], from, min(from+listed, t.size))
			for _, m := range some {
				if !yield(m) {
					return
				}
			}
		}
	}
}

// mappings appends those of the slots from one up to another.
func (t *Table) mappings(to []Mapping, from, end int32) []Mapping {
	t.mu.Lock()
	defer t.mu.Unlock()
	for i := from; i < end; i++ {
		if name := t.slots.name(i); name != "" {
			pair := t.pair(i)
			to = append(to, Mapping{Name: name, IPv4: pair.IPv4, IPv6: pair.IPv6, Flows: int(t.slots.at(i).flows)})
		}
	}
	return to
}
