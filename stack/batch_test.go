package stack

import (
	"bytes"
	"fmt"
	"slices"
	"testing"
)

// Datagrams of one flow in a row become one batch, as long as its end tells
// them apart.
func TestBatch(t *testing.T) {
	var b batch
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
	want := []string{
		"one 3000/1200 tos 0", // ended by a shorter one
		"one 100/0 tos 0",     // ended by a longer one
		"one 200/0 tos 0",     // by another flow
		"other 400/200 tos 0", // by another header
		"other 200/0 tos 1",   // by an empty one, which cannot be told from none
		"other 0/0 tos 1",
		"one 640/10 tos 0",                   // by number
		"one 10/0 tos 0",                     // by a flush
		fmt.Sprintf("one %d/0 tos 0", 40000), // by size
		"one 40000/0 tos 0",
	}
	add(one, 0, 1200, 1200, 600, 100, 200)
	add(other, 0, 200, 200)
	add(other, 1, 200, 0)
	add(one, 0, slices.Repeat([]int{10}, maxBatch+1)...)
	b.flush()
	add(one, 0, 40000, 40000)
	b.flush()
	b.flush()
	if !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
}
