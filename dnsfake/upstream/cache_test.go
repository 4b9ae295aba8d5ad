package upstream

import (
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/miekg/dns"
)

func TestCacheIsBounded(t *testing.T) {
	now := time.Unix(0, 0)
	one := &answer{wire: make([]byte, 100), expires: now.Add(time.Second)}
	size := (&entry{key: question{name: "00"}, answer: one}).size()
	c := newCache(3 * size)
	for i := range 100 {
		c.put(question{name: fmt.Sprintf("%02d", i)}, one)
		c.get(question{name: "00"}, now) // keeps it
	}
	if len(c.entries) != 3 || c.order.Len() != 3 || c.used != 3*size {
		t.Errorf("%d entries of %d octets in a cache for 3", len(c.entries), c.used)
	}
	if c.get(question{name: "00"}, now) == nil || c.get(question{name: "50"}, now) != nil {
		t.Error("not the least recently used entry was dropped")
	}
	c.put(question{name: "00"}, &answer{wire: make([]byte, 4*size), expires: now.Add(time.Second)})
	if len(c.entries) != 0 || c.used != 0 {
		t.Errorf("%d octets after one that is larger than the cache", c.used)
	}
}

func TestCacheKeepsWhatIsUsable(t *testing.T) {
	now := time.Unix(0, 0)
	c := newCache(1 << 20)
	c.put(question{name: "address"}, &answer{expires: now})
	c.put(question{name: "SERVFAIL"}, &answer{rcode: dns.RcodeServerFailure, expires: now})
	c.put(question{name: "error"}, &answer{err: errBusy, expires: now})
	for _, name := range []string{"SERVFAIL", "error"} {
		if c.get(question{name: name}, now) != nil {
			t.Errorf("%s is given out stale", name)
		}
	}
	last := now.Add(maxStale - 1)
	if c.get(question{name: "address"}, last) == nil || c.get(question{name: "address"}, last.Add(1)) != nil {
		t.Errorf("an address is not stale for exactly %v", maxStale)
	}
	if len(c.entries) != 0 || c.used != 0 {
		t.Errorf("%d entries and %d octets stay", len(c.entries), c.used)
	}
}

// TestCacheKnowsItsSize compares what the cache reckons with what it takes.
func TestCacheKnowsItsSize(t *testing.T) {
	heap := func() int {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return int(m.HeapAlloc)
	}
	before := heap()
	c := newCache(1 << 30)
	for i := range 20000 {
		name := fmt.Sprintf("host-%d.department.example.", i)
		m := query(name, dns.TypeA)
		m.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 60}, A: []byte{192, 0, 2, 1}}}
		c.put(question{name: name, qtype: dns.TypeA}, newAnswer(m, nil, time.Unix(0, 0)))
	}
	taken := heap() - before
	if ratio := float64(c.used) / float64(taken); ratio < 0.8 || ratio > 1.5 {
		t.Errorf("reckons %d octets and takes %d", c.used, taken)
	}
	runtime.KeepAlive(c)
}
