package appliance

import (
	"io"
	"log/slog"
	"math"
	"os"
	"runtime/debug"
	"testing"
	"testing/fstest"
)

func TestGroupMemory(t *testing.T) {
	file := func(text string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(text)} }
	const none = math.MaxUint64
	for name, test := range map[string]struct {
		root fstest.MapFS
		want uint64
	}{
		"no control groups": {fstest.MapFS{}, none},
		"v1": {fstest.MapFS{
			"proc/self/cgroup":                               file("5:cpu,cpuacct:/b\n4:memory:/a/b\n0::/\n"),
			"sys/fs/cgroup/memory/memory.limit_in_bytes":     file("9223372036854771712\n"),
			"sys/fs/cgroup/memory/a/memory.limit_in_bytes":   file("67108864\n"),
			"sys/fs/cgroup/memory/a/b/memory.limit_in_bytes": file("134217728\n"),
			"sys/fs/cgroup/b/memory.max":                     file("1048576\n"),
		}, 64 << 20},
		"a container of v1": {fstest.MapFS{
			"proc/self/cgroup":                           file("4:hugetlb,memory:/docker/a\n"),
			"sys/fs/cgroup/memory/memory.limit_in_bytes": file("67108864\n"),
		}, 64 << 20},
		"no limit": {fstest.MapFS{
			"proc/self/cgroup":           file("0::/a\n"),
			"sys/fs/cgroup/a/memory.max": file("max\n"),
		}, none},
		"its own": {fstest.MapFS{
			"proc/self/cgroup":             file("4:cpu:/b\n0::/a/b\n"),
			"sys/fs/cgroup/a/memory.max":   file("max\n"),
			"sys/fs/cgroup/a/b/memory.max": file("134217728\n"),
		}, 128 << 20},
		"of a group above": {fstest.MapFS{
			"proc/self/cgroup":             file("0::/a/b\n"),
			"sys/fs/cgroup/a/memory.max":   file("67108864\n"),
			"sys/fs/cgroup/a/b/memory.max": file("134217728\n"),
		}, 64 << 20},
		"a container": {fstest.MapFS{
			"proc/self/cgroup":         file("0::/\n"),
			"sys/fs/cgroup/memory.max": file("268435456\n"),
		}, 256 << 20},
		"outside of the container": {fstest.MapFS{
			"proc/self/cgroup":         file("0::/../other\n"),
			"sys/fs/cgroup/memory.max": file("268435456\n"),
		}, none},
	} {
		if got := groupMemory(test.root); got != test.want {
			t.Errorf("%s: %d, want %d", name, got, test.want)
		}
	}
}

func TestLimitMemory(t *testing.T) {
	logger := slog.New(slog.NewTextHandler(io.Discard, nil))
	before := debug.SetMemoryLimit(math.MaxInt64)
	defer debug.SetMemoryLimit(before)
	for _, memory := range []uint64{8 << 30, 1 << 30} { // the second finds one that was set
		limitMemory(memory, logger)
		if got := debug.SetMemoryLimit(-1); got != 4<<30 {
			t.Errorf("with %d bytes: limit %d", memory, got)
		}
	}
}

func TestQueriesIn(t *testing.T) {
	for memory, want := range map[uint64]int{8 << 20: 128, 64 << 20: 256, 128 << 20: 512, 1 << 30: 2048} {
		if got := queriesIn(memory); got != want {
			t.Errorf("%d bytes: %d, want %d", memory, got, want)
		}
	}
}

func TestLeftovers(t *testing.T) {
	const mib = 1 << 20
	var l leftovers
	l.note(5, 20*mib)
	for i, step := range []struct {
		collections, held uint64
		worth             bool
	}{
		{5, 21 * mib, false},  // hardly more
		{9, 300 * mib, false}, // a load
		{12, 310 * mib, false},
		{13, 310 * mib, false},
		{13, 310 * mib, true}, // is over
	} {
		if got := l.worth(step.collections, step.held); got != step.worth {
			t.Errorf("step %d: %t", i, got)
		}
	}
	l.note(15, 150*mib) // of which the rest is in use
	for i, step := range []struct {
		collections, held uint64
		worth             bool
	}{
		{15, 150 * mib, false},
		{16, 60 * mib, false}, // no more
		{16, 67 * mib, false},
		{16, 68 * mib, true},
	} {
		if got := l.worth(step.collections, step.held); got != step.worth {
			t.Errorf("later, step %d: %t", i, got)
		}
	}
}

func TestOpenFilesAreHeldMemory(t *testing.T) {
	_, before := heldMemory()
	const pipes = 64
	for range pipes {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		defer w.Close()
	}
	// Half of it, as the heap may shrink meanwhile.
	if _, after := heldMemory(); after < before+pipes*fileMemory {
		t.Errorf("%d bytes held, and before %d pipes %d", after, pipes, before)
	}
}
