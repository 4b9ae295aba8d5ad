package stack

import (
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// Who begins many flows at once waits for them, and nobody else does.
func TestTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var (
			mu      sync.Mutex
			started []int // ports; guarded by mu
		)
		turns := newTurns(func(f *DatagramFlow) {
			mu.Lock()
			defer mu.Unlock()
			started = append(started, int(f.key.client.Port()))
		})
		want := func(from, to int) {
			t.Helper()
			synctest.Wait()
			mu.Lock()
			defer mu.Unlock()
			var ports []int
			for port := from; port < to; port++ {
				ports = append(ports, port)
			}
			slices.Sort(started)
			if !slices.Equal(started, ports) {
				t.Errorf("started %v, want %d to %d", started, from, to)
			}
			started = nil
		}
		const all = 2*maxStarting + 10
		flows := make([]*DatagramFlow, all)
		for i := range flows {
			flows[i] = newFlow("192.0.2.2", i)
			turns.join(flows[i])
		}
		want(0, maxStarting)
		if !turns.busy(flows[0].key.client.Addr()) || turns.busy(netip.MustParseAddr("192.0.2.3")) {
			t.Error("who is busy is not, or another is")
		}
		other := newFlow("192.0.2.3", all)
		turns.join(other)
		want(all, all+1)
		turns.leave(other)

		flows[maxStarting].datagramQueue.close() // as one that had to make room
		turns.leave(flows[7])
		turns.leave(flows[7])
		want(maxStarting+1, maxStarting+2)

		time.Sleep(startTime)
		want(maxStarting+2, 2*maxStarting+2)
		time.Sleep(startTime)
		want(2*maxStarting+2, all)
		time.Sleep(startTime)
		want(0, 0)
		if len(turns.lines) != 0 {
			t.Errorf("left: %v", turns.lines)
		}
	})
}

// newFlow returns a flow of a client that no side has.
func newFlow(client string, port int) *DatagramFlow {
	ip := netip.MustParseAddr(client)
	f := &DatagramFlow{key: flowKey{client: netip.AddrPortFrom(ip, uint16(port))}}
	f.init(newBacklog(1<<20), ip)
	return f
}

// What waits in a client's flows is bounded, and leaves room for others.
func TestBacklog(t *testing.T) {
	all := newBacklog(9000)
	queues := make([]datagramQueue, 10)
	fill := func(q *datagramQueue, client string) (n int) {
		q.init(all, netip.MustParseAddr(client))
		q.queue(Datagrams{}) // takes no room
		for range 8 {
			q.queue(Datagrams{Payload: make([]byte, 500)})
		}
		return len(q.waiting) - 1
	}
	for i, want := range []int{8, 4, 0} { // two thirds
		if n := fill(&queues[i], "192.0.2.2"); n != want {
			t.Errorf("queue %d: %d wait, want %d", i, n, want)
		}
	}
	if n := fill(&queues[3], "192.0.2.3"); n != 6 {
		t.Errorf("of another client %d wait", n)
	}
	for range 3 {
		queues[0].next()
	}
	if n := fill(&queues[4], "192.0.2.2"); n != 2 {
		t.Errorf("after two were read %d wait", n)
	}
	for i := range queues[:5] {
		if i%2 == 0 {
			queues[i].takeAll(nil)
		}
		queues[i].close()
	}
	if q := all.quota; q.taken != 0 || len(q.byClient)+len(q.byNetwork) != 0 {
		t.Errorf("at the end: %+v", q)
	}
}
