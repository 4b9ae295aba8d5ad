package advert

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// cable is a Link in memory.
type cable struct {
	packets chan Packet
	closed  chan struct{}

	mu   sync.Mutex // guards the fields below
	sent []sent
	fail error // of sending
}

// sent is a message to hosts.
type sent struct {
	at time.Time
	Message
}

func newCable() *cable { return &cable{packets: make(chan Packet), closed: make(chan struct{})} }

func (c *cable) Receive() (Packet, error) {
	select {
	case p := <-c.packets:
		return p, nil
	case <-c.closed:
		return Packet{}, net.ErrClosed
	}
}

func (c *cable) Send(_ int, to netip.Addr, octets []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fail != nil || to != allNodes() {
		return c.fail
	}
	m, err := Parse(octets)
	c.sent = append(c.sent, sent{time.Now(), m})
	return err
}

func (c *cable) Close() error {
	close(c.closed)
	return nil
}

// take returns what was sent since the last time.
func (c *cable) take() (all []sent) {
	synctest.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	all, c.sent = c.sent, nil
	return all
}

func (c *cable) solicit(host string, hopLimit int) {
	c.packets <- Packet{Octets: solicitation(), From: netip.MustParseAddr(host), HopLimit: hopLimit}
}

func (c *cable) advertise(router string, m Message) {
	c.packets <- Packet{Octets: m.Marshal(), From: netip.MustParseAddr(router), HopLimit: neighbourly}
}

const ourAddress = "fe80::1"

var (
	pool   = Option{Kind: Route, Prefix: netip.MustParsePrefix("2001:2::/48"), Lifetime: Lifetime}
	server = Option{Kind: Resolver, Prefix: netip.MustParsePrefix("2001:db8::53/128"), Lifetime: Lifetime}
	home   = Option{Kind: Prefix, Prefix: netip.MustParsePrefix("2001:db8::/64"), Lifetime: PrefixLifetime, Preferred: PrefixPreferred}
)

// gone is o as it is taken back.
func gone(o Option) Option { return Option{Kind: o.Kind, Prefix: o.Prefix} }

// sending runs a sender of m until test returns.
func sending(t *testing.T, m Message, test func(*Sender, *cable)) (log string) {
	t.Helper()
	var lines bytes.Buffer
	synctest.Test(t, func(t *testing.T) {
		link := newCable()
		iface := Interface{Name: "lan0", Index: 2, Addr: netip.MustParseAddr(ourAddress), LinkAddress: "\x02\x00\x00\x00\x00\x01"}
		s := NewSender(iface, link, slog.New(slog.NewTextHandler(&lines, nil)))
		s.Set(m)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- s.Run(ctx) }()
		test(s, link)
		synctest.Wait() // what was said last is heard
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return lines.String()
}

// TestIntervals wants what is new to be told three times soon, and then again
// and again before it is forgotten.
func TestIntervals(t *testing.T) {
	sending(t, of(pool), func(s *Sender, c *cable) {
		start := time.Now()
		time.Sleep(time.Hour)
		all := c.take()
		if first := all[0].at.Sub(start); first != consult {
			t.Errorf("the first is sent after %v", first)
		}
		for i, m := range all {
			if !slices.Equal(m.Options, []Option{pool}) || m.Lifetime != 0 || m.LinkAddress.String() != "02:00:00:00:00:01" {
				t.Fatalf("number %d is %+v", i, m)
			}
			if i == 0 {
				continue
			}
			wait := m.at.Sub(all[i-1].at)
			if i < initial && wait != maxInitialInterval || i >= initial && (wait < minInterval || wait > maxInterval) {
				t.Errorf("number %d is sent after %v", i, wait)
			}
		}
		if n := s.Counters().Sent; n != uint64(len(all)) {
			t.Errorf("%d are counted of %d", n, len(all))
		}
	})
}

// TestSolicited wants a flood of solicitations answered, and at most each 3 s.
func TestSolicited(t *testing.T) {
	sending(t, of(pool), func(s *Sender, c *cable) {
		time.Sleep(time.Minute)
		c.take()
		start := time.Now()
		c.solicit("fe80::2", 64) // from afar
		c.solicit(ourAddress, neighbourly)
		time.Sleep(maxAnswerDelay)
		if len(c.take()) > 0 {
			t.Error("somebody else is answered")
		}
		const flood = 2000
		for range flood {
			c.solicit("fe80::2", neighbourly)
		}
		took := time.Since(start)
		answers := c.take()
		if len(answers) == 0 || answers[0].at.Sub(start) > 2*maxAnswerDelay {
			t.Errorf("the host is answered with %v", answers)
		}
		for i := range answers[1:] {
			if wait := answers[i+1].at.Sub(answers[i].at); wait < minDelay {
				t.Errorf("%v between two answers", wait)
			}
		}
		if took < (flood-2*heardPerSecond)/heardPerSecond*time.Second {
			t.Errorf("%d were heard in %v", flood, took)
		}
		if n := s.Counters(); n.Solicited != flood || n.Malformed != 1 {
			t.Errorf("counted %+v", n)
		}
	})
}

// TestWithdrawn wants back what is no longer so, and in the end everything but
// the hosts' own addresses.
func TestWithdrawn(t *testing.T) {
	var link *cable
	router := Message{Lifetime: Lifetime, Options: []Option{home, pool, server}}
	sending(t, router, func(s *Sender, c *cable) {
		link = c
		time.Sleep(time.Hour)
		c.take()
		s.Set(Message{Lifetime: Lifetime, Options: []Option{pool}})
		time.Sleep(time.Hour)
		for i, m := range c.take() {
			want := []Option{pool, gone(home), gone(server)}
			if i >= initial {
				want = want[:1]
			}
			if !slices.Equal(m.Options, want) {
				t.Errorf("number %d is %+v", i, m)
			}
		}
		s.Set(of(pool, server))
		s.Set(router) // before any was sent
		time.Sleep(minDelay)
		if all := c.take(); len(all) != 1 || !slices.Equal(all[0].Options, router.Options) {
			t.Errorf("set twice, it sent %+v", all)
		}
	})
	if all := link.sent; len(all) != 1 || all[0].Lifetime != 0 || !slices.Equal(all[0].Options, []Option{gone(pool), gone(server)}) {
		t.Errorf("the last words are %+v", all)
	}
}

// TestTwin has another program of the machine that speaks for the same router.
func TestTwin(t *testing.T) {
	var link *cable
	sending(t, of(pool), func(s *Sender, c *cable) {
		link = c
		c.advertise(ourAddress, Message{Lifetime: 30 * time.Minute, Other: true})
		time.Sleep(consult)
		if all := c.take(); len(all) != 1 || all[0].Lifetime != 30*time.Minute-consult || !all[0].Other {
			t.Errorf("it sent %+v", all)
		}
		time.Sleep(time.Hour)
		if all := c.take(); all[len(all)-1].Lifetime != 0 {
			t.Errorf("long after, it sent %+v", all[len(all)-1])
		}
		c.advertise("fe80::2", Message{Lifetime: 30 * time.Minute}) // another router
		c.advertise(ourAddress, Message{Lifetime: 30 * time.Minute})
	})
	if all := link.sent; len(all) != 1 || all[0].Lifetime != 30*time.Minute || !slices.Equal(all[0].Options, []Option{gone(pool)}) {
		t.Errorf("the last words are %+v", all)
	}
}

// TestContradicted wants to be told, once a minute, of a router that says
// otherwise.
func TestContradicted(t *testing.T) {
	log := sending(t, Message{Lifetime: Lifetime, Options: []Option{home, pool}}, func(s *Sender, c *cable) {
		for range 200 {
			c.advertise("fe80::2", of(gone(home)))
		}
		c.advertise("fe80::2", of(gone(pool), home)) // it may route no more
		if n := s.Counters().Contradicted; n != 200 {
			t.Errorf("counted %d", n)
		}
		time.Sleep(warnings)
		c.advertise(ourAddress, Message{})
		time.Sleep(warnings)
		c.advertise(ourAddress, Message{Lifetime: Lifetime, Options: []Option{gone(pool)}})
	})
	for what, n := range map[string]int{
		`what="2001:db8::/64 is no more"`:              1,
		`what="this machine is no default router"`:     1,
		`router=fe80::1 what="2001:2::/48 is no more"`: 1,
	} {
		if got := strings.Count(log, what); got != n {
			t.Errorf("%d times %s in\n%s", got, what, log)
		}
	}
}

// TestDown wants an interface that cannot send to be tried again soon.
func TestDown(t *testing.T) {
	sending(t, of(pool), func(s *Sender, c *cable) {
		c.mu.Lock()
		c.fail = errors.New("no address yet")
		c.mu.Unlock()
		time.Sleep(time.Minute)
		c.mu.Lock()
		c.fail = nil
		c.mu.Unlock()
		start := time.Now()
		time.Sleep(minDelay)
		if all := c.take(); len(all) != 1 || s.Counters().Sent != 1 {
			t.Errorf("%v after it could, it has sent %+v", time.Since(start), all)
		}
	})
}

func TestFind(t *testing.T) {
	if _, err := Find("no-such-link"); err == nil {
		t.Error("there is such an interface")
	}
	if got, err := Find("lo"); err == nil {
		t.Errorf("loopback is %+v", got)
	}
}
