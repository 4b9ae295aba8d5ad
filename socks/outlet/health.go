package outlet

import (
	"context"
	"errors"
	"sync"
	"syscall"
	"time"

	"sixgate/socks"
)

// Health is how a SOCKS server has done so far.
type Health struct {
	Server socks.Addr
	Asked  uint64 // connections, associations and look-ups asked for
	Failed uint64 // of them, those for which the server was at fault
	NoUDP  bool   // it has lately refused UDP
	Err    error  // of the last failure, until it serves again; nil: none
}

// health is what a Via remembers of its server.
type health struct {
	mu            sync.Mutex
	asked, failed uint64    // guarded by mu
	err           error     // guarded by mu
	noUDP         time.Time // until when it is not asked for UDP; guarded by mu
}

// note counts the outcome of asking server, and returns err. A refusal shows
// that the server works. Of a deadline nobody can tell whether server or
// destination was slow, unless the server was not even reached.
func (h *health) note(server socks.Addr, reached bool, err error) error {
	refused, ok := errors.AsType[*socks.ReplyError](err)
	unknown := errors.Is(err, syscall.ECANCELED) || errors.Is(err, context.Canceled) || reached && errors.Is(err, syscall.ETIMEDOUT)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.asked++
	switch {
	case err == nil || ok && refused.Hop == server:
		h.err = nil
	case !unknown:
		h.failed++
		h.err = err
	}
	return err
}

// Health returns how v's server does.
func (v *Via) Health() Health {
	h := v.health
	h.mu.Lock()
	defer h.mu.Unlock()
	return Health{Server: v.client.Server, Asked: h.asked, Failed: h.failed, NoUDP: time.Now().Before(h.noUDP), Err: h.err}
}

// refusesUDP reports whether the server is not to be asked for UDP.
func (h *health) refusesUDP() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return time.Now().Before(h.noUDP)
}

// refusedUDP remembers that it has just refused UDP.
func (h *health) refusedUDP() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.noUDP = time.Now().Add(noUDPTime)
}
