package relay

import (
	"context"
	"io"
	"os"
	"runtime"
	"testing"
	"time"
)

// An idle session holds no descriptor but its sockets, and what it has carried
// can be read while it goes on.
func TestSpliceHoldsNoPipes(t *testing.T) {
	descriptors := func() int {
		entries, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(entries)
	}
	const sessions = 20
	ctx, cancel := context.WithCancel(t.Context())
	before := descriptors()
	var counts [sessions]Counts
	done := make(chan error, sessions)
	for i := range sessions {
		client, near := tcpPair(t)
		out, far := tcpPair(t)
		go func() { done <- Stream(ctx, near, out, day, &counts[i]) }()
		go client.Write([]byte("hello"))
		if _, err := io.ReadFull(far, make([]byte, 5)); err != nil {
			t.Fatal(err)
		}
		for counts[i].Up.Load() != 5 { // the bytes arrive a moment before they count
		}
	}
	// The pool keeps pipes for a while, and gives them up to the collector.
	for deadline := time.Now().Add(10 * time.Second); ; runtime.GC() {
		held := descriptors() - before - 4*sessions
		if held <= sessions/2 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d idle sessions hold %d descriptors besides their sockets", sessions, held)
		}
	}
	cancel()
	for range sessions {
		<-done
	}
}
