package stack

import (
	"net/netip"
	"testing"
)

func TestQuota(t *testing.T) {
	a, b, c := netip.MustParseAddr("192.0.2.2"), netip.MustParseAddr("2001:db8::2"), netip.MustParseAddr("192.0.2.3")
	q := newQuota(4, 2)
	steps := []struct {
		client netip.Addr
		give   bool
		want   bool
	}{
		{a, false, true}, {a, false, true}, {a, false, false}, // a's own bound
		{b, false, true}, {c, false, true}, {c, false, false}, // the bound of all
		{a, true, true}, {c, false, true}, {a, false, false},
		{a, true, true}, {b, true, true}, {c, true, true}, {c, true, true},
	}
	for i, step := range steps {
		if step.give {
			q.give(step.client)
		} else if got := q.take(step.client); got != step.want {
			t.Errorf("step %d: %t", i, got)
		}
	}
	if q.taken != 0 || len(q.byClient)+len(q.byNetwork) != 0 {
		t.Errorf("at the end: %+v", q)
	}
	q = newQuota(6, 1)
	for _, client := range []string{"2001:db8::1", "2001:db8::2", "2001:db8::3", "2001:db8::4"} { // one host's, perhaps
		if !q.take(netip.MustParseAddr(client)) {
			t.Errorf("%s gets none", client)
		}
	}
	if q.take(netip.MustParseAddr("2001:db8::5")) || !q.take(netip.MustParseAddr("2001:db8:0:1::1")) || !q.take(a) {
		t.Error("one network's many are not bounded, or hinder another")
	}
	for _, test := range []struct{ max, perClient, wantMax, wantPerClient int }{
		{8192, 0, 8192, 5462}, {3, 0, 3, 2}, {1, 0, 1, 1}, {100, 7, 100, 7},
	} {
		if q := newQuota(test.max, test.perClient); q.max != test.wantMax || q.maxPerClient != test.wantPerClient {
			t.Errorf("newQuota(%d, %d): %d, %d", test.max, test.perClient, q.max, q.maxPerClient)
		}
	}
}
