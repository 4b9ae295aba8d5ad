package datagram

// Batch is one datagram or more in one direction of a flow.
type Batch struct {
	Payload []byte // of a ping: its sequence number and data
	Size    int    // of each but the last, which may be shorter, in bytes; 0: there is one
	Port    uint16 // of the far end, where it answers from another than was asked; else 0
	TOS     uint8  // IPv4 type of service or IPv6 traffic class: DSCP and ECN
	TTL     uint8  // or hop limit
	Whole   bool   // they are not to be fragmented
}

// Each returns the datagrams of b one at a time.
func (b Batch) Each(yield func(Batch) bool) {
	rest, size := b.Payload, b.Size
	b.Size = 0
	for size > 0 && len(rest) > size {
		b.Payload, rest = rest[:size], rest[size:]
		if !yield(b) {
			return
		}
	}
	b.Payload = rest
	yield(b)
}

// Count returns how many datagrams b is.
func (b Batch) Count() int {
	if b.Size == 0 {
		return 1
	}
	return (len(b.Payload) + b.Size - 1) / b.Size
}

// Bounds of a Batch: what one sendmsg of the kernel takes at most
// (UDP_MAX_SEGMENTS of older ones), and what an IP packet of either family holds
// of UDP payload, in bytes.
const (
	MaxBatch  = 64
	MaxJoined = 65535 - 40 - 8
)

// DefaultTTL is that of datagrams of which no hop limit is known (RFC 1700).
const DefaultTTL = 64
