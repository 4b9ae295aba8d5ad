package stack

import (
	"bytes"
	"fmt"
	"slices"
	"testing"
)

// Datagrams of one flow become one batch, whatever comes between them, as long
// as its end tells them apart.
func TestBatch(t *testing.T) {
	var b batches
	var got []string
	flowOf := func(name string) *DatagramFlow {
		f := &DatagramFlow{}
		take := func(d Datagrams) error {
			got = append(got, fmt.Sprintf("%s %d/%d tos %d", name, len(d.Payload), d.Size, d.TOS))
			return nil
		}
		f.take.Store(&take)
		return f
	}
	one, other := flowOf("one"), flowOf("other")
	add := func(f *DatagramFlow, tos uint8, sizes ...int) {
		for _, size := range sizes {
			b.add(f, Datagrams{Payload: bytes.Repeat([]byte("x"), size), TOS: tos})
		}
	}
	for _, step := range []struct {
		add  func()
		want []string
	}{
		{func() { add(one, 0, 1200, 1200, 600, 100, 200, 300) }, []string{
			"one 3000/1200 tos 0", // ended by a shorter one
			"one 100/0 tos 0",     // by a longer one
			"one 200/0 tos 0",
			"one 300/0 tos 0", // by the burst
		}},
		{func() { add(one, 0, 200, 200); add(one, 1, 200, 0) }, []string{
			"one 400/200 tos 0", // by another header
			"one 200/0 tos 1",   // by an empty one, which cannot be told from none
			"one 0/0 tos 1",
		}},
		{func() { add(one, 0, slices.Repeat([]int{10}, maxBatch+1)...) }, []string{
			"one 640/10 tos 0", // by number
			"one 10/0 tos 0",
		}},
		{func() { add(one, 0, 40000, 40000) }, []string{
			"one 40000/0 tos 0", // by size
			"one 40000/0 tos 0",
		}},
		{func() {
			for range 3 {
				add(one, 0, 10)
				add(other, 0, 20)
			}
		}, []string{
			"one 30/10 tos 0",
			"other 60/20 tos 0",
		}},
		{func() {}, nil},
	} {
		got = nil
		step.add()
		b.flush()
		if !slices.Equal(got, step.want) {
			t.Errorf("got %q, want %q", got, step.want)
		}
	}
}

// More flows than there are batches lose nothing.
func TestManyBatches(t *testing.T) {
	var b batches
	flows := make([]DatagramFlow, 2*maxBatches+1)
	sent := make([]int, len(flows))
	for i := range flows {
		take := func(d Datagrams) error {
			sent[i] += len(d.Payload)
			return nil
		}
		flows[i].take.Store(&take)
	}
	for range 3 {
		for i := range flows {
			b.add(&flows[i], Datagrams{Payload: make([]byte, 10)})
		}
	}
	b.flush()
	for i, n := range sent {
		if n != 30 || flows[i].batch != nil {
			t.Errorf("flow %d has sent %d bytes", i, n)
		}
	}
}
