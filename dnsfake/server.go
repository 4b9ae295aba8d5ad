package dnsfake

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
)

const (
	defaultMinTTL = 10 * time.Second
	defaultMaxTTL = 5 * time.Minute
)

// Families is a set of address families.
type Families struct{ IPv4, IPv6 bool }

// Way is where connections to a name go.
type Way int

const (
	ToHost    Way = iota // to one of its addresses
	ToGateway            // to one of its addresses, or nowhere, as the gateway decides of each: it gets a fake address
	ToChain              // through gateways, the last of which looks it up: it gets a fake address on trust
	ToNobody             // none of them is let through: it does not exist
)

// Exchanger asks the real resolvers. upstream.Resolver says what Exchange owes.
type Exchanger interface {
	Exchange(ctx context.Context, q *dns.Msg) (*dns.Msg, error)
}

// Config says whom a Server answers, and how.
type Config struct {
	Table    *Table
	Resolver Exchanger // an *upstream.Resolver
	// Clients returns the families of the network that a client is in. None
	// means that it is not served. A link-local address has the name of the
	// interface as its zone. nil: both, for all.
	Clients func(client netip.Addr) Families
	// Always returns the families for which every name gets a fake address.
	// For the others a name gets one if it has no address that the client can
	// use. nil: none.
	Always func() Families
	// Policy returns the one in force now, never nil. nil: the one of no choice.
	Policy func() *Policy
	Hosts  *Hosts // the names of the LAN; nil: none
	// Way returns where the client's connections to name go. name is in lower
	// case without final dot. nil: all to the host.
	Way func(client netip.Addr, name string) Way
	// Beyond returns who is asked for what else than addresses a name has that
	// is a chain's to look up. nil, as a function or an Exchanger: nobody.
	Beyond func(client netip.Addr, name string) Exchanger
	// Asks reports whether an upstream server is just now asked for name, in this
	// very mix of upper and lower case that nobody else would choose. nil: never.
	Asks func(name string) bool
	// Vet returns nil if the gateway may dial an address. No fake is given
	// for a name that has no such address. nil: it may dial all.
	Vet func(netip.Addr) error
	// NAT64 returns the IPv6 addresses of ipv4only.arpa, by which clients
	// without IPv4 find out that the gateway takes IPv4 addresses behind a
	// prefix (RFC 7050). nil, or none: it does not.
	NAT64 func() []netip.Addr

	// Answered is told of answers that were not at hand: the question, as in
	// "a.example A", what the client was told of a failure, "" if none or of a
	// reverse look-up, and how long it took. It may be nil.
	Answered func(client netip.Addr, question, why string, took time.Duration)

	MaxWaiting     int           // queries that wait for upstream at a time, each with some 25 KiB; 0: 2048
	MinTTL, MaxTTL time.Duration // of fake answers, whole seconds; 0: 10 s and 5 min
	Logger         *slog.Logger  // nil: silent
}

// Server answers DNS queries.
type Server struct {
	conf      Config
	localNets []netip.Prefix
	quotas    *quotas
	waiting   *share // queries that upstream is asked for
	streams   *share // connections
	recent    *recent
	loops     loops
	tally     tally
	quiet     atomic.Int64 // until when warn is, in nanoseconds since the table's epoch
}

// New returns a Server of conf.
func New(conf Config) (*Server, error) {
	if conf.Table == nil || conf.Resolver == nil {
		return nil, errors.New("making a DNS server: no table or no resolver")
	}
	if conf.MinTTL == 0 {
		conf.MinTTL = defaultMinTTL
	}
	if conf.MaxTTL == 0 {
		conf.MaxTTL = max(defaultMaxTTL, conf.MinTTL)
	}
	if conf.MinTTL < time.Second || conf.MaxTTL < conf.MinTTL {
		return nil, fmt.Errorf("making a DNS server: TTL from %v to %v", conf.MinTTL, conf.MaxTTL)
	}
	if conf.Logger == nil {
		conf.Logger = slog.New(slog.DiscardHandler)
	}
	if conf.Policy == nil {
		ordinary, err := NewPolicy(PolicyConfig{})
		if err != nil {
			return nil, err
		}
		conf.Policy = func() *Policy { return ordinary }
	}
	if conf.MaxWaiting == 0 {
		conf.MaxWaiting = maxWaiting
	}
	return &Server{
		conf: conf, localNets: localNets(),
		quotas: newQuotas(), recent: newRecent(),
		waiting: newShare(conf.MaxWaiting, min(clientWaiting, conf.MaxWaiting/4)), streams: newShare(maxStreams, clientStreams),
	}, nil
}

func (s *Server) families(client netip.Addr) Families {
	if s.conf.Clients == nil {
		return Families{IPv4: true, IPv6: true}
	}
	return s.conf.Clients(client)
}

func (s *Server) way(client netip.Addr, name string) Way {
	if s.conf.Way == nil {
		return ToHost
	}
	return s.conf.Way(client, name)
}

func (s *Server) always() Families {
	if s.conf.Always == nil {
		return Families{}
	}
	return s.conf.Always()
}

func (s *Server) count(k kind) { s.tally.answers[k].Add(1) }

// addrPort returns a as a netip.AddrPort, the zero one if it is not one.
func addrPort(a net.Addr) netip.AddrPort {
	ap, err := netip.ParseAddrPort(a.String())
	if err != nil {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}
