package dnsfake

import "hash/maphash"

// index finds the slots of names. It keeps their numbers alone, since the names
// are in the slots: a map would hold each name's header once more, and be the
// most of what a name takes. Collisions go to the next place (linear probing);
// who does not know the seed cannot make them.
type index struct {
	seed   maphash.Seed
	places []int32 // slots, or none; a power of two, of which a quarter is free
	len    int
}

// minPlaces is how large an index begins.
const minPlaces = 64

func newIndex() index { return index{seed: maphash.MakeSeed(), places: freePlaces(minPlaces)} }

func freePlaces(size int) []int32 {
	places := make([]int32, size)
	for i := range places {
		places[i] = none
	}
	return places
}

// home returns the place where name would be, had it no company.
func (x *index) home(name string) int {
	return int(maphash.String(x.seed, name) & uint64(len(x.places)-1))
}

// after returns the place behind p.
func (x *index) after(p int) int { return (p + 1) & (len(x.places) - 1) }

// place returns the place of name, or the free one where it would go.
func (x *index) place(slots slots, name string) int {
	p := x.home(name)
	for x.places[p] != none && slots.name(x.places[p]) != name {
		p = x.after(p)
	}
	return p
}

// find returns the slot of name, if it has one.
func (x *index) find(slots slots, name string) (slot int32, ok bool) {
	slot = x.places[x.place(slots, name)]
	return slot, slot != none
}

// add takes in a slot, whose name no other has.
func (x *index) add(slots slots, slot int32) {
	if 4*(x.len+1) > 3*len(x.places) {
		before := x.places
		x.places = freePlaces(2 * len(before))
		for _, s := range before {
			if s != none {
				x.places[x.place(slots, slots.name(s))] = s
			}
		}
	}
	x.places[x.place(slots, slots.name(slot))] = slot
	x.len++
}

// remove forgets name, if it has a slot. What follows moves up, so that none is
// behind a free place.
func (x *index) remove(slots slots, name string) {
	free := x.place(slots, name)
	if x.places[free] == none {
		return
	}
	x.len--
	for p := x.after(free); x.places[p] != none; p = x.after(p) {
		// From its home to p there is no free place; free must be among them.
		home := x.home(slots.name(x.places[p]))
		if mask := len(x.places) - 1; (p-home)&mask >= (p-free)&mask {
			x.places[free] = x.places[p]
			free = p
		}
	}
	x.places[free] = none
}
