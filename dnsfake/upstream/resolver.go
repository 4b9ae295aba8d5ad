package upstream

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/miekg/dns"
)

const (
	defaultTimeout = 4 * time.Second        // glibc's stub gives up after 5 s
	defaultRetry   = 400 * time.Millisecond // well above a far resolver's round trip
	defaultMemory  = 4 << 20                // some 8,000 answers, about the names of 4,000 hosts
	maxJobs        = 4096                   // each holds a socket or two
	maxKept        = 4096                   // octets; a longer answer is not cached
	// staleAfter is how long a client waits for a fresh answer where there is
	// a stale one (RFC 8767, section 5).
	staleAfter = 1800 * time.Millisecond
)

// Config says whom a Resolver asks, and how.
type Config struct {
	// Servers returns the servers in the order of preference. It is called
	// for every question that the cache cannot answer.
	Servers func() ([]Server, error)
	// Control is called on each socket before it connects. It may be nil.
	Control func(network, address string, c syscall.RawConn) error
	// Connect opens a TCP connection to a server. It may be nil: as the host
	// does. With it "udp" is asked over TCP, too.
	Connect func(ctx context.Context, server netip.AddrPort) (net.Conn, error)
	// RootCAs vouch for servers that are asked over TLS. nil: the host's.
	RootCAs *x509.CertPool

	Timeout time.Duration    // for a question, all tries together; 0: 4 s
	Retry   time.Duration    // until the second try, at most; 0: 400 ms
	Memory  int              // of the cache, in octets; 0: 4 MiB
	Now     func() time.Time // nil: time.Now
	Logger  *slog.Logger     // nil: silent
}

// Resolver asks the servers, remembers what they said and asks no question
// twice at a time.
type Resolver struct {
	conf   Config
	ctx    context.Context // ends with Close; the jobs' own, since they outlive who asked
	cancel context.CancelFunc
	work   sync.WaitGroup // the jobs and the connections

	spellings spellings

	mu     sync.Mutex // guards what follows
	peers  []*peer
	cache  *cache
	jobs   map[question]*job
	closed bool
}

// job is a question on its way.
type job struct {
	done   chan struct{} // closed when answer is set
	answer *answer
}

// New returns a Resolver. Close it to end the questions it still has under way.
func New(conf Config) (*Resolver, error) {
	if conf.Servers == nil {
		return nil, errors.New("making a resolver: no servers")
	}
	if conf.Timeout < 0 || conf.Retry < 0 || conf.Memory < 0 {
		return nil, errors.New("making a resolver: negative time or size")
	}
	if conf.Timeout == 0 {
		conf.Timeout = defaultTimeout
	}
	if conf.Retry == 0 {
		conf.Retry = defaultRetry
	}
	if conf.Memory == 0 {
		conf.Memory = defaultMemory
	}
	if conf.Now == nil {
		conf.Now = time.Now
	}
	if conf.Logger == nil {
		conf.Logger = slog.New(slog.DiscardHandler)
	}
	r := &Resolver{conf: conf, cache: newCache(conf.Memory), jobs: make(map[question]*job)}
	r.ctx, r.cancel = context.WithCancel(context.Background())
	return r, nil
}

// Close ends all questions under way and waits for them. Later ones fail.
func (r *Resolver) Close() error {
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	r.cancel()
	r.work.Wait()
	return nil
}

// Forget forgets all answers, as when the servers are others than before.
func (r *Resolver) Forget() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cache = newCache(r.conf.Memory)
}

// Asks reports whether a server is just now asked for name, an absolute one, in
// this very mix of upper and lower case: who asks for it got it from that server.
// Short names may be by chance what somebody else asks for, and are not told.
func (r *Resolver) Asks(name string) bool { return r.spellings.contain(name) }

// Exchange returns the reply to q's question: from the cache while it is fresh,
// else from the servers, else, up to a day long, from the cache again. Of q only
// ID, question, CD, DO and whether it has an extended error matter. The reply
// has q's ID and question and holds records of the question's alias chain only;
// its RCODE is whatever the servers agreed on, and flags but TC and AD are not
// to be relied on. It has no OPT, unless q shows by an extended error in its own
// that it wants those of the reply, and there are any: see ExtendedError. A
// question goes on when ctx ends, for the others who wait for it.
func (r *Resolver) Exchange(ctx context.Context, q *dns.Msg) (*dns.Msg, error) {
	if len(q.Question) != 1 {
		return nil, fmt.Errorf("asking: %d questions in a query", len(q.Question))
	}
	key := question{
		name:   lowerName(q.Question[0].Name),
		qtype:  q.Question[0].Qtype,
		qclass: q.Question[0].Qclass,
		cd:     q.CheckingDisabled,
	}
	if opt := q.IsEdns0(); opt != nil {
		key.do = opt.Do()
	}
	a, err := r.join(key).wait(ctx)
	if err != nil {
		return nil, fmt.Errorf("asking for %s: %w", key, err)
	}
	return a.reply(q, r.conf.Now())
}

// lowerName returns name as question has it.
func lowerName(name string) string { return strings.ToLower(dns.Fqdn(name)) }

// share is one asker's part in a question.
type share struct {
	known *answer // maybe stale; nil if there is none
	job   *job    // that brings a fresh one; nil if known will do
	err   error   // why there is neither
}

// wait returns the answer: a stale one if there is no fresh one in time.
func (s share) wait(ctx context.Context) (*answer, error) {
	if s.job == nil {
		return s.known, s.err
	}
	var late <-chan time.Time
	if s.known != nil {
		late = time.After(staleAfter)
	}
	select {
	case <-s.job.done:
		return s.job.answer, nil
	case <-late:
		return s.known, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// join returns a share in the question key, which is put to the servers if it
// has to be and is not yet.
func (r *Resolver) join(key question) share {
	now := r.conf.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	e := r.cache.get(key, now)
	if e == nil {
		j, err := r.jobLocked(key, maxJobs)
		return share{job: j, err: err}
	}
	e.uses++
	switch {
	case now.Before(e.retry):
	case !e.answer.fresh(now):
		j, _ := r.jobLocked(key, maxJobs) // what is known serves without
		return share{known: e.answer, job: j}
	case e.tired(now):
		r.jobLocked(key, maxJobs/4) // when there is little else to do
	}
	return share{known: e.answer}
}

// jobLocked returns the job that has the question key, after starting it unless
// there are limit others.
func (r *Resolver) jobLocked(key question, limit int) (*job, error) {
	if j, ok := r.jobs[key]; ok {
		return j, nil
	}
	if r.closed {
		return nil, errClosed
	}
	if len(r.jobs) >= limit {
		return nil, errBusy
	}
	j := &job{done: make(chan struct{})}
	r.jobs[key] = j
	r.work.Go(func() { r.do(key, j) })
	return j, nil
}

var (
	errClosed = errors.New("resolver is closed")
	errBusy   = fmt.Errorf("too many questions at a time: %w", syscall.EAGAIN)
)

// do gets j's answer and lets those who wait for it go.
func (r *Resolver) do(key question, j *job) {
	asking := r.newAsking(key)
	defer asking.settle()
	var msg *dns.Msg
	peers, err := r.currentPeers()
	if err == nil {
		msg, err = asking.run(peers)
	}
	if err != nil {
		err = fmt.Errorf("asking for %s: %w", key, err)
	}
	j.answer = r.keep(key, newAnswer(msg, err, r.conf.Now()))
	close(j.done)
}

// keep ends the job for key with fresh, and returns what to answer: if that
// tells nothing, what was known before. The addresses that were known go first,
// in their order, however the servers rotate them: protocols of several flows
// want all of them to reach the same host.
func (r *Resolver) keep(key question, fresh *answer) *answer {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.jobs, key)
	if e := r.cache.get(key, fresh.at); e != nil && e.answer.definite() {
		if !fresh.definite() {
			e.retry = fresh.at.Add(refreshed)
			return e.answer
		}
		fresh.addrs = inOrder(fresh.addrs, e.answer.addrs)
	}
	if len(fresh.wire) <= maxKept {
		r.cache.put(key, fresh)
	} else {
		r.cache.forget(key) // what it replaces is not to be given again
	}
	return fresh
}

// maxOrdered is how many addresses are worth an order. Nobody tries more, and
// sorting them takes its time.
const maxOrdered = 64

// inOrder returns addrs with those that are in first in front, in its order.
func inOrder(addrs, first []netip.Addr) []netip.Addr {
	if max(len(addrs), len(first)) > maxOrdered {
		return addrs
	}
	var ordered []netip.Addr
	for _, ip := range slices.Concat(first, addrs) {
		if slices.Contains(addrs, ip) && !slices.Contains(ordered, ip) {
			ordered = append(ordered, ip)
		}
	}
	return ordered
}
