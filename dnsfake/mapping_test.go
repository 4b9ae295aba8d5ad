package dnsfake

import (
	"slices"
	"testing"
	"time"
)

func TestMappings(t *testing.T) {
	tab := table(t, "198.18.0.0/24", "2001:2::/48", nil)
	for m := range tab.Mappings() {
		t.Errorf("an empty table has %v", m)
	}
	want := map[string]Pair{}
	for _, name := range []string{"a.example", "b.example", "c.example"} {
		pair, err := tab.Issue(name, time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		want[name] = pair
	}
	_, release, err := tab.Hold(want["b.example"].IPv4)
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	all := slices.Collect(tab.Mappings())
	if len(all) != len(want) {
		t.Errorf("got %v", all)
	}
	for i, m := range all {
		if (Pair{m.IPv4, m.IPv6}) != want[m.Name] || (m.Flows == 1) != (m.Name == "b.example") {
			t.Errorf("got %+v, want %+v", m, want[m.Name])
		}
		if i > 0 && !all[i-1].IPv4.Less(m.IPv4) {
			t.Errorf("%v comes after %v", m.IPv4, all[i-1].IPv4)
		}
	}
}
