package stack

// Bounds of a batch: what one sendmsg of the kernel takes at most
// (UDP_MAX_SEGMENTS of older ones), and what an IP packet holds.
const (
	maxBatch      = 64
	maxBatchBytes = 65535 - 40 - 8
)

// batch gathers datagrams of one flow that came in one after another, all of
// one size but a shorter last one: the way out sends them in one go.
type batch struct {
	flow  *DatagramFlow // nil: nothing waits
	what  Datagrams     // with the Size of the first
	count int
}

// add takes a copy of d, of f, after sending what it does not continue.
func (b *batch) add(f *DatagramFlow, d Datagrams) {
	if d.Size > 0 || len(d.Payload) == 0 {
		b.flush()
		f.forward(d)
		return
	}
	if b.flow != nil && !b.continues(f, d) {
		b.flush()
	}
	if b.flow == nil {
		room := b.what.Payload[:0]
		b.flow, b.what, b.count = f, d, 0
		b.what.Payload, b.what.Size = room, len(d.Payload)
	}
	b.what.Payload = append(b.what.Payload, d.Payload...)
	b.count++
	if len(d.Payload) < b.what.Size || b.count == maxBatch {
		b.flush()
	}
}

func (b *batch) continues(f *DatagramFlow, d Datagrams) bool {
	w := &b.what
	return f == b.flow && d.TOS == w.TOS && d.TTL == w.TTL && d.Whole == w.Whole &&
		len(d.Payload) <= w.Size && len(w.Payload)+len(d.Payload) <= maxBatchBytes
}

// flush sends what waits.
func (b *batch) flush() {
	if b.flow == nil {
		return
	}
	if b.count == 1 {
		b.what.Size = 0
	}
	f := b.flow
	b.flow = nil
	f.forward(b.what)
}
