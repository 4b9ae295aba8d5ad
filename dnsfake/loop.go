package dnsfake

import (
	"context"
	"crypto/rand"
	"strings"
	"sync"

	"github.com/miekg/dns"
)

// loops tells whether what we ask upstream comes back to us.
type loops struct {
	mu   sync.Mutex // guards what follows
	name string     // that nobody else asks for, in the form of key; "": nothing is asked
	back bool       // it came back
}

// begin returns a name to ask for.
func (l *loops) begin() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.name, l.back = strings.ToLower(rand.Text()), false
	return l.name
}

// end reports whether the name came back.
func (l *loops) end() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.name = ""
	return l.back
}

// see looks at the name of a query, and reports whether it is ours.
func (l *loops) see(name string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.name == "" || name != l.name {
		return false
	}
	l.back = true
	return true
}

// FindLoop returns an error if an upstream server asks us in its turn, or is us: no
// name would get an answer then. It may not be called twice at a time. The
// sockets that serve queries have to be open. What else upstream says is no
// error here.
func (s *Server) FindLoop(ctx context.Context) error {
	// Forwarders may keep back questions for addresses of a name without dots,
	// but pass on others.
	q := dns.Question{Name: s.loops.begin() + ".", Qtype: dns.TypeHINFO, Qclass: dns.ClassINET}
	s.ask(ctx, s.conf.Resolver, q, false, false)
	if s.loops.end() {
		return errCircle
	}
	return nil
}
