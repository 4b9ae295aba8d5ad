package dnsfake

import (
	"fmt"
	"math/rand/v2"
	"testing"
)

// TestIndex compares an index with a map, while names come and go.
func TestIndex(t *testing.T) {
	const names = 400
	random := rand.New(rand.NewPCG(1, 2))
	slots := make(slots, (names+chunkSlots-1)/chunkSlots)
	index, want := newIndex(), map[string]int32{}
	for round := range 20_000 {
		i := random.Int32N(names)
		name := fmt.Sprintf("n%d.example", i)
		// Now most of the names are there, now few.
		switch _, known := want[name]; {
		case !known && (round/2000%2 == 0 || random.IntN(4) == 0):
			slots.at(i).name = name
			index.add(slots, i)
			want[name] = i
		case known && (round/2000%2 == 1 || random.IntN(4) == 0):
			index.remove(slots, name)
			slots.at(i).name = ""
			delete(want, name)
		}
		if index.len != len(want) {
			t.Fatalf("after %d rounds it has %d names, want %d", round, index.len, len(want))
		}
		if round%100 != 0 {
			continue
		}
		for i := range int32(names) {
			name := fmt.Sprintf("n%d.example", i)
			slot, ok := index.find(slots, name)
			if wanted, known := want[name]; ok != known || ok && slot != wanted {
				t.Fatalf("after %d rounds %s is at %d, %v, want %d, %v", round, name, slot, ok, wanted, known)
			}
		}
	}
	index.remove(slots, "never.example")
	if index.len != len(want) {
		t.Error("it forgot a name that it did not have")
	}
}
