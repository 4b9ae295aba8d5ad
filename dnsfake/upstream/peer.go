package upstream

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
)

const (
	// maxInFlight is how many queries a server may have before it at a time.
	// Half of them can be repeated ones, so that those do not add to a storm.
	maxInFlight = 2048
	// maxFailures is how many failures in a row put a server down.
	maxFailures = 3
	// minPause and maxPause bound the time between the probes of a server that
	// is down. It doubles from one to the other.
	minPause = time.Second
	maxPause = 30 * time.Second
	// minPatience is the least time to wait for a server before the next one
	// is asked too. A resolver that asks the world itself needs some.
	minPatience = 50 * time.Millisecond
	// withoutEDNS is how long a server that does not know EDNS is taken to stay
	// so. RFC 6891, section 6.2.2 lets this be remembered for a while.
	withoutEDNS = 15 * time.Minute
)

// peer is a server with the way to it and what is known of its health.
type peer struct {
	Server
	carrier transport
	tcp     transport // for what UDP cannot carry; nil but for "udp"
	now     func() time.Time
	log     *slog.Logger
	close   func() // ends its connections, does not wait
	forged  atomic.Uint64

	spellings *spellings

	mu     sync.Mutex // guards what follows
	health Health
	spread time.Duration // smoothed deviation of health.RTT
	pause  time.Duration // until the next probe, while it is down
	probe  time.Time     // when to ask it again, while it is down
	plain  time.Time     // no EDNS until then
}

// Health is what a Resolver knows of a server.
type Health struct {
	Server   Server
	Down     bool          // asked only now and then, to see if it is back
	RTT      time.Duration // until it answers, smoothed; 0: has not answered yet
	InFlight int           // queries
	Asked    uint64        // queries; each try of a question counts
	Failed   uint64        // queries without reply
	Forged   uint64        // datagrams that were no reply to the query that they came for
	Failures int           // of the last queries in a row
	Err      error         // of the last failure; nil since it answered again
}

// newPeer makes a peer that connects when it is first asked. ctx ends all its
// connections, work waits for them, spellings gets what it is asked for.
func newPeer(ctx context.Context, work *sync.WaitGroup, conf *Config, server Server, spellings *spellings) *peer {
	p := &peer{Server: server, now: conf.Now, log: conf.Logger, spellings: spellings, health: Health{Server: server}}
	ctx, p.close = context.WithCancel(ctx)
	pipe := func(dial dial) *pipeline {
		return &pipeline{ctx: ctx, work: work, dial: dial, timeout: conf.Timeout}
	}
	switch {
	case server.Network == "tls":
		p.carrier = pipe(conf.encrypted(server))
	case server.Network == "https":
		h := conf.https(server)
		p.carrier = h
		context.AfterFunc(ctx, h.close)
	case server.Network == "tcp", conf.Connect != nil:
		p.carrier = pipe(conf.plainTCP(server))
	default:
		p.carrier = newUDP(conf.plainUDP(server), &p.forged)
		p.tcp = pipe(conf.plainTCP(server))
	}
	return p
}

// try asks p once, and more than once only to get over TCP or without EDNS what
// it cannot give otherwise.
func (p *peer) try(ctx context.Context, key question) (*dns.Msg, error) {
	reply, err := p.send(ctx, p.carrier, key)
	// A connection protects against forgers, where there are such, and where the
	// server gives no protection over UDP, as it does not keep the case.
	if p.tcp != nil && (errors.Is(err, errForged) || errors.Is(err, errCase) || err == nil && reply.Truncated) {
		reply, err = p.send(ctx, p.tcp, key)
	}
	if err != nil {
		return nil, fmt.Errorf("asking %s: %w", p.Server, err)
	}
	scrub(reply)
	if reply.Truncated && len(reply.Answer) == 0 { // what is cut off may be the answer
		reply.Rcode = dns.RcodeServerFailure
	}
	return reply, nil
}

// send asks over one transport, with EDNS if the server knows it.
func (p *peer) send(ctx context.Context, over transport, key question) (*dns.Msg, error) {
	if !p.knowsEDNS() {
		return p.exchange(ctx, over, key, false)
	}
	reply, err := p.exchange(ctx, over, key, true)
	if err == nil && !formed(reply) { // a server from before EDNS (RFC 6891, section 7)
		reply, err = p.exchange(ctx, over, key, false)
		if err == nil && formed(reply) {
			p.mu.Lock()
			p.plain = p.now().Add(withoutEDNS)
			p.mu.Unlock()
		}
	}
	return reply, err
}

// formed reports whether the server understood the query that m replies to.
func formed(m *dns.Msg) bool {
	return m.Rcode != dns.RcodeFormatError && m.Rcode != dns.RcodeNotImplemented
}

func (p *peer) knowsEDNS() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return !p.now().Before(p.plain)
}

func (p *peer) exchange(ctx context.Context, over transport, key question, edns bool) (*dns.Msg, error) {
	query, spelled, err := key.query(edns, p.Network == "tls" || p.Network == "https")
	if err != nil {
		return nil, err
	}
	p.spellings.add(spelled)
	defer p.spellings.remove(spelled)
	reply, err := over.exchange(ctx, query)
	return reply, cause(ctx, err)
}

// cause returns the reason for which ctx ended, if it did, instead of err.
func cause(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// begin counts a query in, unless p has too many.
func (p *peer) begin(repeated bool) bool {
	limit := maxInFlight
	if repeated {
		limit /= 2
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.health.InFlight >= limit {
		return false
	}
	p.health.InFlight++
	p.health.Asked++
	return true
}

// end counts a query out that took rtt and failed with err, or did not, and tells
// when p goes down or comes back.
func (p *peer) end(rtt time.Duration, err error) {
	p.mu.Lock()
	before := p.health.Down
	p.endLocked(rtt, err)
	now := p.health.Down
	p.mu.Unlock()
	if now && !before {
		p.log.Warn("a resolver is down", "server", p.Server, "err", err)
	} else if before && !now {
		p.log.Info("a resolver is back", "server", p.Server)
	}
}

func (p *peer) endLocked(rtt time.Duration, err error) {
	p.health.InFlight--
	if short(err) {
		return // it says nothing of the server
	}
	p.health.Err = err
	if errors.Is(err, errMalformed) { // of the zone, mostly: others must not pay for it
		p.health.Failed++
		return
	}
	if err != nil {
		p.failedLocked()
		return
	}
	p.health.Failures, p.health.Down = 0, false
	if p.health.RTT == 0 {
		p.health.RTT, p.spread = rtt, rtt/2
		return
	}
	// The estimator of RFC 6298, section 2.
	p.spread += ((p.health.RTT - rtt).Abs() - p.spread) / 4
	p.health.RTT += (rtt - p.health.RTT) / 8
}

func (p *peer) failedLocked() {
	p.health.Failed++
	p.health.Failures++
	if p.health.Failures >= maxFailures && !p.health.Down {
		p.health.Down = true
		p.pause = minPause
		p.probe = p.now().Add(jitter(p.pause))
	}
}

// jitter returns d with up to a quarter more, so that what began at one time
// does not stay in step.
func jitter(d time.Duration) time.Duration { return d + rand.N(d/4+1) }

// patience returns how long to wait for p alone: what it nearly always needs,
// at most limit.
func (p *peer) patience(limit time.Duration) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.health.RTT == 0 {
		return limit
	}
	return min(max(p.health.RTT+4*p.spread, minPatience), limit)
}

// state returns whether p is down, and if it is, whether to probe it now. It
// says so once for each probe.
func (p *peer) state() (down, probe bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.now()
	if !p.health.Down || now.Before(p.probe) {
		return p.health.Down, false
	}
	p.pause = min(2*p.pause, maxPause)
	p.probe = now.Add(jitter(p.pause))
	return true, true
}

func (p *peer) snapshot() Health {
	p.mu.Lock()
	defer p.mu.Unlock()
	health := p.health
	health.Forged = p.forged.Load()
	return health
}
