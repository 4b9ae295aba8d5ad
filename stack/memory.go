package stack

// share is what flows may take of a machine's memory.
type share struct {
	// max is how many TCP requests may wait for a dial, and how many flows of
	// datagrams there may be. Either takes at most some 25 KiB, with its socket
	// in the kernel.
	max int
	// backlog is what may wait in all flows of datagrams that nobody takes yet,
	// in bytes.
	backlog int
	// TCP buffers of a connection and direction, in bytes. They are filled as
	// needed; what a client does not read stays in them. The largest is for
	// the bandwidth-delay product of 300 Mbit/s and 100 ms.
	bufferDefault, bufferMax int
}

// plenty is the share of a machine of 4 GiB and more. A small max turns a few
// destinations that do not answer into an outage of all TCP (gvisor-tap-vsock
// had 10); this one is tailscale's.
var plenty = share{max: 8192, backlog: 16 << 20, bufferDefault: 256 << 10, bufferMax: 4 << 20}

// shareOf returns the share for a machine's memory, in bytes: requests and
// flows get a sixteenth each, when all are there.
func shareOf(memory uint64) share {
	return share{
		max:           between(256, memory/16/(32<<10), plenty.max),
		backlog:       between(1<<20, memory>>8, plenty.backlog),
		bufferDefault: between(64<<10, memory>>10, plenty.bufferDefault),
		bufferMax:     between(256<<10, memory>>6, plenty.bufferMax),
	}
}

func between(low int, n uint64, high int) int { return int(min(max(uint64(low), n), uint64(high))) }
