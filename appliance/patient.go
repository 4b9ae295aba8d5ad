package appliance

import (
	"errors"
	"log/slog"
	"net"
	"sync"
	"time"
)

const (
	// Between attempts to accept, others give up what is short.
	shortestWait = 5 * time.Millisecond
	longestWait  = time.Second
)

// patient is a Listener that waits out a shortage of descriptors or memory, and
// whatever befalls a client before it is accepted: of the errors of Accept only
// that of a closed listener is returned.
type patient struct {
	net.Listener
	what  string // it does, for the log
	log   *slog.Logger
	ended chan struct{} // closed by Close
	close sync.Once
	told  time.Time // when it last logged, once a minute; Accept's alone
}

func newPatient(ln net.Listener, what string, logger *slog.Logger) *patient {
	return &patient{Listener: ln, what: what, log: logger, ended: make(chan struct{})}
}

// Accept is called by one at a time.
func (p *patient) Accept() (net.Conn, error) {
	for wait := shortestWait; ; wait = min(2*wait, longestWait) {
		conn, err := p.Listener.Accept()
		if err == nil || errors.Is(err, net.ErrClosed) {
			return conn, err
		}
		if now := time.Now(); now.Sub(p.told) >= time.Minute {
			p.told = now
			p.log.Warn(p.what, "err", err)
		}
		select {
		case <-time.After(wait):
		case <-p.ended:
			return nil, net.ErrClosed
		}
	}
}

func (p *patient) Close() error {
	p.close.Do(func() { close(p.ended) })
	return p.Listener.Close()
}
