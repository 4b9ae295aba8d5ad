package dnsfake

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"syscall"
	"testing"

	"github.com/miekg/dns"
)

// relay is an upstream that passes questions on, changing the case as it likes.
type relay struct{ to **Server }

func (r relay) Exchange(ctx context.Context, q *dns.Msg) (*dns.Msg, error) {
	q = q.Copy()
	q.Question[0].Name = strings.ToUpper(q.Question[0].Name)
	wire, err := q.Pack()
	if err != nil {
		return nil, err
	}
	m := new(dns.Msg)
	return m, m.Unpack((*r.to).Reply(ctx, wire, netip.MustParseAddrPort("127.0.0.1:53"), false))
}

func TestFindLoop(t *testing.T) {
	straight := server(t, serve(t, testZone), Config{})
	if err := straight.FindLoop(t.Context()); err != nil {
		t.Errorf("without one: %v", err)
	}
	var circle *Server
	circle, err := New(Config{Table: table(t, "198.18.0.0/15", "2001:2::/48", nil), Resolver: relay{&circle}})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := circle.FindLoop(t.Context()); !errors.Is(err, syscall.ELOOP) {
			t.Errorf("with one: %v", err)
		}
	}
	if got := circle.Counters().Refused; got != 2 {
		t.Errorf("%d questions were refused, want ours", got)
	}
	dead, err := New(Config{Table: table(t, "198.18.0.0/15", "2001:2::/48", nil), Resolver: relay{&straight}})
	if err != nil {
		t.Fatal(err)
	}
	if err := dead.FindLoop(t.Context()); err != nil {
		t.Errorf("through another gateway: %v", err)
	}
}
