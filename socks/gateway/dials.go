package gateway

import (
	"context"
	"fmt"
	"net/netip"
	"sync"

	"sixgate/socks"
)

// maxDials bounds the dials and look-ups of one client that are under way; who
// asks for more waits. It is ample for a gateway with a network behind it, and
// little for a chain that leads back to where it started: that comes to rest
// here, until its first dial times out.
const maxDials = 1024

// dials counts the dials under way. The zero dials has none.
type dials struct {
	mu       sync.Mutex
	byClient map[netip.Addr]*places // that have dials under way, or waiting; guarded by mu
}

// places are those of one client.
type places struct {
	taken chan struct{}
	users int // guarded by dials.mu
}

// take waits for a place for a dial of client, until ctx ends.
func (d *dials) take(ctx context.Context, client netip.Addr) (give func(), err error) {
	p := d.join(client)
	select {
	case p.taken <- struct{}{}:
		return func() { <-p.taken; d.leave(client, p) }, nil
	case <-ctx.Done():
		d.leave(client, p)
		return nil, fmt.Errorf("waiting behind %d dials of %s: %w", maxDials, client, socks.WithErrno(context.Cause(ctx)))
	}
}

func (d *dials) join(client netip.Addr) *places {
	d.mu.Lock()
	defer d.mu.Unlock()
	p := d.byClient[client]
	if p == nil {
		p = &places{taken: make(chan struct{}, maxDials)}
		if d.byClient == nil {
			d.byClient = make(map[netip.Addr]*places)
		}
		d.byClient[client] = p
	}
	p.users++
	return p
}

func (d *dials) leave(client netip.Addr, p *places) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if p.users--; p.users == 0 {
		delete(d.byClient, client)
	}
}
