package stack

// Bounds of a batch: what one sendmsg of the kernel takes at most
// (UDP_MAX_SEGMENTS of older ones), and what an IP packet holds. And how many
// flows have one at a time.
const (
	maxBatch      = 64
	maxBatchBytes = 65535 - 40 - 8
	maxBatches    = 64
)

// batches gather the datagrams of a burst by flow, since the way out sends
// those of one flow in one go. It is for one goroutine.
type batches struct {
	all  [maxBatches]batch
	used int
}

// batch is datagrams of one flow in their order, all of one size but a shorter
// last one.
type batch struct {
	flow  *DatagramFlow // nil: none has it
	what  Datagrams     // with the Size of the first
	count int           // 0: nothing waits
}

// add takes a copy of d, of f, after sending what of f it does not continue.
func (s *batches) add(f *DatagramFlow, d Datagrams) {
	if f.batch == nil {
		if s.used == maxBatches {
			s.flush()
		}
		f.batch = &s.all[s.used]
		f.batch.flow = f
		s.used++
	}
	f.batch.add(d)
}

// flush sends what waits.
func (s *batches) flush() {
	for i := range s.all[:s.used] {
		b := &s.all[i]
		b.flush()
		b.flow.batch, b.flow = nil, nil
	}
	s.used = 0
}

func (b *batch) add(d Datagrams) {
	if d.Size > 0 || len(d.Payload) == 0 {
		b.flush()
		b.flow.forward(d)
		return
	}
	if b.count > 0 && !b.continues(d) {
		b.flush()
	}
	if b.count == 0 {
		room := b.what.Payload[:0]
		b.what = d
		b.what.Payload, b.what.Size = room, len(d.Payload)
	}
	b.what.Payload = append(b.what.Payload, d.Payload...)
	b.count++
	if len(d.Payload) < b.what.Size || b.count == maxBatch {
		b.flush()
	}
}

func (b *batch) continues(d Datagrams) bool {
	w := &b.what
	return d.TOS == w.TOS && d.TTL == w.TTL && d.Whole == w.Whole &&
		len(d.Payload) <= w.Size && len(w.Payload)+len(d.Payload) <= maxBatchBytes
}

// flush sends what waits.
func (b *batch) flush() {
	switch b.count {
	case 0:
		return
	case 1:
		b.what.Size = 0
	}
	b.count = 0
	b.flow.forward(b.what)
}
