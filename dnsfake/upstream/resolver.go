package upstream

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/miekg/dns"
)

const (
	defaultTimeout = 4 * time.Second        // glibc's stub gives up after 5 s
	defaultRetry   = 400 * time.Millisecond // well above a far resolver's round trip
	defaultEntries = 8192
	maxJobs        = 4096 // each holds a socket or two
	maxKept        = 4096 // octets; a longer answer is not cached
)

// Config says whom a Resolver asks, and how.
type Config struct {
	// Servers returns the servers in the order of preference. It is called
	// for every question that the cache cannot answer.
	Servers func() ([]Server, error)
	// Control is called on each socket before it connects. It may be nil.
	Control func(network, address string, c syscall.RawConn) error

	Timeout time.Duration    // for a question, all tries together; 0: 4 s
	Retry   time.Duration    // until the second try; 0: 400 ms
	Entries int              // in the cache; 0: 8192
	Now     func() time.Time // nil: time.Now
}

// Resolver asks the servers, remembers what they said and asks no question
// twice at a time.
type Resolver struct {
	conf   Config
	ctx    context.Context // ends with Close; the jobs' own, since they outlive who asked
	cancel context.CancelFunc
	work   sync.WaitGroup // the jobs

	mu     sync.Mutex // guards what follows
	cache  *cache
	jobs   map[question]*job
	closed bool
}

// question is all that an answer depends on.
type question struct {
	name   string // presentation form of RFC 1035, section 5.1, lower case, absolute
	qtype  uint16
	qclass uint16
	do, cd bool
}

func (q question) String() string { return q.name + " " + dns.Type(q.qtype).String() }

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
	if conf.Timeout < 0 || conf.Retry < 0 || conf.Entries < 0 {
		return nil, errors.New("making a resolver: negative time or size")
	}
	if conf.Timeout == 0 {
		conf.Timeout = defaultTimeout
	}
	if conf.Retry == 0 {
		conf.Retry = defaultRetry
	}
	if conf.Entries == 0 {
		conf.Entries = defaultEntries
	}
	if conf.Now == nil {
		conf.Now = time.Now
	}
	r := &Resolver{conf: conf, cache: newCache(conf.Entries), jobs: make(map[question]*job)}
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

// Exchange returns the reply to q's question: from the cache while it is fresh,
// else from the servers. Of q only ID, question, CD and DO matter. The reply has
// q's ID and question, holds records of the question's alias chain only, and no
// OPT; its RCODE is whatever the servers agreed on, and flags but TC and AD
// are not to be relied on. A question goes on when ctx ends, for the others who
// wait for it.
func (r *Resolver) Exchange(ctx context.Context, q *dns.Msg) (*dns.Msg, error) {
	if len(q.Question) != 1 {
		return nil, fmt.Errorf("asking: %d questions in a query", len(q.Question))
	}
	key := question{
		name:   strings.ToLower(dns.Fqdn(q.Question[0].Name)),
		qtype:  q.Question[0].Qtype,
		qclass: q.Question[0].Qclass,
		cd:     q.CheckingDisabled,
	}
	if opt := q.IsEdns0(); opt != nil {
		key.do = opt.Do()
	}
	known, j, err := r.join(key)
	if err != nil {
		return nil, fmt.Errorf("asking for %s: %w", key, err)
	}
	if known == nil {
		select {
		case <-j.done:
			known = j.answer
		case <-ctx.Done():
			return nil, fmt.Errorf("asking for %s: %w", key, context.Cause(ctx))
		}
	}
	return known.reply(q, r.conf.Now())
}

// join returns the answer to key, or the job that will have it.
func (r *Resolver) join(key question) (*answer, *job, error) {
	now := r.conf.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	if a := r.cache.get(key, now); a != nil {
		return a, nil, nil
	}
	if j, ok := r.jobs[key]; ok {
		return nil, j, nil
	}
	if r.closed {
		return nil, nil, errClosed
	}
	if len(r.jobs) >= maxJobs {
		return nil, nil, errBusy
	}
	j := &job{done: make(chan struct{})}
	r.jobs[key] = j
	r.work.Go(func() { r.do(key, j) })
	return nil, j, nil
}

var (
	errClosed = errors.New("resolver is closed")
	errBusy   = fmt.Errorf("too many questions at a time: %w", syscall.EAGAIN)
)

// do gets j's answer and lets those who wait for it go.
func (r *Resolver) do(key question, j *job) {
	msg, err := r.ask(r.ctx, key)
	if err != nil {
		err = fmt.Errorf("asking for %s: %w", key, err)
	}
	j.answer = newAnswer(msg, err, r.conf.Now())
	r.mu.Lock()
	delete(r.jobs, key)
	if msg == nil || msg.Len() <= maxKept {
		r.cache.put(key, j.answer)
	}
	r.mu.Unlock()
	close(j.done)
}
