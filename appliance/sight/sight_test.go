package sight

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"sixgate/socks"
	"sixgate/socks/gateway"
)

var printer = netip.MustParseAddrPort("192.168.77.20:40000")

func flow(name string, t gateway.Type, up, down int64) gateway.Flow {
	return gateway.Flow{
		Session: gateway.Session{Network: "tcp", Client: printer},
		Real:    socks.Addr{Name: name, Port: 443}, Type: t, Up: up, Down: down,
	}
}

func TestClients(t *testing.T) {
	now := time.Unix(1e9, 0)
	s := New(func() time.Time { return now })
	refused := fmt.Errorf("dialling: %w", syscall.ECONNREFUSED)
	s.Dialled(flow("a.example", 0, 0, 0), time.Millisecond, nil)
	s.Ended(flow("a.example", gateway.B, 5, 7), nil)
	for range 3 {
		now = now.Add(time.Second)
		s.Dialled(flow("b.example", 0, 0, 0), time.Millisecond, refused)
		s.Ended(flow("b.example", 0, 0, 0), refused)
	}
	s.Answered(printer.Addr(), "c.example A", "no such name", time.Millisecond)
	s.Answered(printer.Addr(), "d.example A", "no such name", time.Millisecond)
	s.Answered(printer.Addr(), "d.example A", "", time.Millisecond) // it came to be
	s.Answered(netip.MustParseAddr("192.168.77.21"), "e.example A", "", time.Millisecond)
	got := s.Clients([]gateway.Flow{flow("a.example", gateway.A, 1, 1)})
	if len(got) != 1 {
		t.Fatalf("got %+v", got)
	}
	c := got[0]
	if c.Addr != printer.Addr() || !c.Seen.Equal(now) || c.Joined["A"] != 1 || c.Joined["B"] != 1 || c.Live != 1 || c.Up != 6 || c.Down != 8 || c.Failed != 5 {
		t.Errorf("got %+v", c)
	}
	if got := fmt.Sprint(c.Names); got != "[a.example]" {
		t.Errorf("names %s", got)
	}
	if len(c.Failures) != 2 || c.Failures[0].What != "DNS c.example A" || c.Failures[1].What != "tcp b.example:443" ||
		c.Failures[1].Times != 3 || !c.Failures[1].Last.Equal(now) || !strings.Contains(c.Failures[1].Why, "refused") {
		t.Errorf("failures %+v", c.Failures)
	}
	ping := flow("b.example", 0, 0, 0)
	ping.Network, ping.Real.Port = "icmp", 0
	s.Ended(ping, refused)
	if c = s.Clients(nil)[0]; c.Failures[0].What != "icmp b.example" {
		t.Errorf("a ping that failed is %+v", c.Failures[0])
	}
	s.Dialled(ping, time.Millisecond, nil)
	s.Dialled(flow("b.example", 0, 0, 0), time.Millisecond, nil)
	if c = s.Clients(nil)[0]; len(c.Failures) != 1 || fmt.Sprint(c.Names) != "[b.example a.example]" {
		t.Errorf("it works again, and there are %+v, %v", c.Failures, c.Names)
	}
}

// TestClientsAreBounded has more clients, names, failures and words than anybody
// reads.
func TestClientsAreBounded(t *testing.T) {
	s := New(nil)
	long := errors.New(strings.Repeat("x", 1000))
	for i := range 3 * maxNames {
		s.Dialled(flow(fmt.Sprintf("%d.example", i), 0, 0, 0), 0, nil)
		s.Ended(flow(fmt.Sprintf("%d.example", i), 0, 0, 0), long)
	}
	c := s.Clients(nil)[0]
	if len(c.Names) != maxNames || len(c.Failures) != maxFailures || len(c.Failures[0].Why) != maxWhy || c.Names[0] != "29.example" {
		t.Errorf("%d names from %s on, %d failures of %d octets", len(c.Names), c.Names[0], len(c.Failures), len(c.Failures[0].Why))
	}
	addr := netip.MustParseAddr("10.0.0.1")
	for range 2 * maxClients {
		end(s, addr)
		addr = addr.Next()
	}
	if got := s.Clients(nil); len(got) != maxClients || len(s.clients.known) != maxClients || len(s.clients.members) != maxClients || got[0].Addr != addr.Prev() {
		t.Errorf("%d clients, %d known, %d networks, the last %v", len(got), len(s.clients.known), len(s.clients.members), got[0].Addr)
	}
}

// TestOneOfManyAddresses has a host take a new address for each flow.
func TestOneOfManyAddresses(t *testing.T) {
	s := New(nil)
	end(s, printer.Addr())
	end(s, netip.MustParseAddr("2001:db8:0:1::1"))
	addr := netip.MustParseAddr("2001:db8::1")
	for range 2 * maxClients {
		end(s, addr)
		addr = addr.Next()
	}
	got := s.Clients(nil)
	if len(got) != maxNetwork+2 || got[0].Addr != addr.Prev() || got[maxNetwork+1].Addr != printer.Addr() {
		t.Errorf("%d clients, from %v to %v", len(got), got[0].Addr, got[len(got)-1].Addr)
	}
}

func end(s *Sight, client netip.Addr) {
	f := flow("a.example", gateway.D, 0, 0)
	f.Client = netip.AddrPortFrom(client, 1)
	s.Ended(f, nil)
}

func TestDials(t *testing.T) {
	s := New(nil)
	far := flow("a.example", 0, 0, 0)
	far.Outlet = "far"
	for _, err := range []error{nil, syscall.ECONNREFUSED, syscall.ETIMEDOUT, fmt.Errorf("dialling: %w", syscall.ETIMEDOUT)} {
		s.Dialled(far, time.Millisecond, err)
	}
	got := s.Dials()
	for result, want := range map[string]uint64{Connected: 1, "connection refused": 1, "connection timed out": 2} {
		if n := got[Dial{"far", result}]; n != want {
			t.Errorf("%s: %d, want %d", result, n, want)
		}
	}
	if n := s.Connects.Snapshot().Count; n != 1 {
		t.Errorf("%d delays", n)
	}
}

func TestDelays(t *testing.T) {
	d := newDelays()
	if _, ok := d.Snapshot().Quantile(0.5); ok {
		t.Error("nothing has a median")
	}
	for _, took := range []time.Duration{0, time.Millisecond, 2 * time.Millisecond, 50 * time.Millisecond, time.Minute} {
		d.add(took)
	}
	s := d.Snapshot()
	if s.Count != 5 || s.Sum != 60.053 || s.Buckets[0].Count != 2 || s.Buckets[1].Count != 3 || s.Buckets[len(s.Buckets)-1].Count != 4 {
		t.Errorf("got %+v", s)
	}
	if median, ok := s.Quantile(0.5); !ok || median != 0.003 {
		t.Errorf("the median is %v, %v", median, ok)
	}
	if _, ok := s.Quantile(0.99); ok {
		t.Error("the slowest has a bound")
	}
}
