package upstream

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/miekg/dns"
)

const (
	// maxTries is how many queries one question can cause.
	maxTries = 8
	// maxProbes is how many of them can be probes.
	maxProbes = maxTries / 2
	// shortPause is how long to wait for others to give up what is short here.
	shortPause = 50 * time.Millisecond
)

// errOvertaken is of a server that has not answered when another one has, and
// not soon after that either.
var errOvertaken = fmt.Errorf("another server was faster by far: %w", syscall.ETIMEDOUT)

// outcome is what came of one try.
type outcome struct {
	msg *dns.Msg
	err error
}

// asking is a question put to the servers. One goroutine runs it; each try has
// its own, and reports by a channel.
type asking struct {
	key    question
	conf   *Config
	ctx    context.Context // of the tries
	cancel context.CancelCauseFunc

	tries    sync.WaitGroup
	outcomes chan outcome // with room for all
	started  int          // tries
	pending  int          // tries that have not reported
	best     outcome      // so far
}

func (r *Resolver) newAsking(key question) *asking {
	a := &asking{key: key, conf: &r.conf, outcomes: make(chan outcome, maxTries)}
	a.ctx, a.cancel = context.WithCancelCause(r.ctx)
	return a
}

// run asks peers in turn: the next one when one fails, or has not answered when
// it should have. The first definite reply wins; when there is none, a server's
// failure is returned rather than an error.
func (a *asking) run(peers []*peer) (*dns.Msg, error) {
	deadline := time.NewTimer(a.conf.Timeout)
	defer deadline.Stop()
	next := time.NewTimer(0)
	defer next.Stop()
	peers = a.order(peers)
	wait := a.conf.Retry
	for turn := 0; ; {
		select {
		case <-next.C:
			p, first := peers[turn%len(peers)], turn < len(peers)
			begun := a.start(p, !first)
			turn++
			switch {
			case turn < len(peers) && !begun:
				next.Reset(0)
			case turn < len(peers):
				next.Reset(jitter(p.patience(wait)))
			case a.started == 0:
				return nil, errBusy
			case a.started < maxTries:
				next.Reset(jitter(wait))
				if turn%len(peers) == 0 {
					wait *= 2
				}
			}
		case o := <-a.outcomes:
			a.pending--
			if o.err == nil && definite(o.msg.Rcode) {
				return o.msg, nil
			}
			if a.best.msg == nil {
				a.best = o
			}
			if short(o.err) { // nobody was asked
				a.started--
				turn = max(0, turn-1) // it may have been a probe
				next.Reset(jitter(shortPause))
			} else if turn < len(peers) {
				next.Reset(0)
			} else if a.pending == 0 {
				return a.best.msg, a.best.err
			}
		case <-deadline.C:
			a.cancel(syscall.ETIMEDOUT)
			if a.best.msg == nil && a.best.err == nil {
				a.best.err = fmt.Errorf("no answer from %v: %w", peers, syscall.ETIMEDOUT)
			}
			return a.best.msg, a.best.err
		case <-a.ctx.Done():
			return nil, context.Cause(a.ctx)
		}
	}
}

// short reports whether err is of this machine, which lacks something for now.
func short(err error) bool {
	for _, errno := range []syscall.Errno{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, syscall.EAGAIN} {
		if errors.Is(err, errno) {
			return true
		}
	}
	return false
}

// order returns peers in the order of use: as configured, but those that are
// down last. One that is due for a probe is asked at once beside those that are
// up, so that the probe costs nobody time.
func (a *asking) order(peers []*peer) []*peer {
	var up, down, due []*peer
	for _, p := range peers {
		isDown, probe := p.state()
		if probe {
			due = append(due, p)
		}
		if isDown {
			down = append(down, p)
		} else {
			up = append(up, p)
		}
	}
	if len(up) > 0 {
		for _, p := range due[:min(len(due), maxProbes)] {
			a.start(p, false)
		}
	}
	return append(up, down...)
}

// start asks p, unless it has too many queries before it, or it has this one
// and cannot have lost it, or there were too many tries.
func (a *asking) start(p *peer, repeated bool) bool {
	if a.started == maxTries || repeated && p.tcp == nil || !p.begin(repeated) {
		return false
	}
	a.started++
	a.pending++
	a.tries.Go(func() {
		began := a.conf.Now()
		msg, err := p.try(a.ctx, a.key)
		p.end(a.conf.Now().Sub(began), err)
		a.outcomes <- outcome{msg, err}
	})
	return true
}

// settle gives the tries that were overtaken a little longer, since who never
// answers must be known, then ends them.
func (a *asking) settle() {
	if a.pending > 0 {
		late := time.NewTimer(a.conf.Retry)
		defer late.Stop()
		for expired := false; a.pending > 0 && !expired; {
			select {
			case <-a.outcomes:
				a.pending--
			case <-late.C:
				expired = true
			}
		}
	}
	a.cancel(errOvertaken)
	a.tries.Wait()
}

// currentPeers returns the servers that there are now. Those that are there no more
// are closed.
func (r *Resolver) currentPeers() ([]*peer, error) {
	servers, err := r.conf.Servers()
	if err != nil {
		return nil, err
	}
	if len(servers) == 0 {
		return nil, ErrNoServer
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if slices.EqualFunc(r.peers, servers, func(p *peer, s Server) bool { return p.Server == s }) {
		return r.peers, nil
	}
	var peers []*peer
	for _, s := range servers {
		is := func(p *peer) bool { return p.Server == s }
		if slices.ContainsFunc(peers, is) {
			continue // named twice
		}
		if i := slices.IndexFunc(r.peers, is); i >= 0 {
			peers = append(peers, r.peers[i])
		} else {
			peers = append(peers, newPeer(r.ctx, &r.work, &r.conf, s, &r.spellings))
		}
	}
	for _, p := range r.peers {
		if !slices.Contains(peers, p) {
			p.close()
		}
	}
	r.peers = peers
	return peers, nil
}

// Health returns what is known of each server that is in use, in the order of
// preference.
func (r *Resolver) Health() []Health {
	peers, err := r.currentPeers()
	if err != nil {
		return nil
	}
	var all []Health
	for _, p := range peers {
		all = append(all, p.snapshot())
	}
	return all
}
