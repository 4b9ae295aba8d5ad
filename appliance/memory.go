package appliance

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"log/slog"
	"math"
	"path"
	"runtime"
	"runtime/debug"
	gauges "runtime/metrics"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// memoryIn returns how many bytes of memory the gateway has at the most: those
// of the machine whose files root has, or what its control groups leave of
// them.
func memoryIn(root fs.FS) (uint64, error) {
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return 0, fmt.Errorf("surveying memory: %w", err)
	}
	return min(uint64(info.Totalram)*uint64(info.Unit), groupMemory(root)), nil
}

// groupMemory returns the least limit of the process's control group for memory
// and those above it. Without any it is more than a machine has.
func groupMemory(root fs.FS) uint64 {
	limit := uint64(math.MaxUint64)
	groups, err := fs.ReadFile(root, "proc/self/cgroup")
	if err != nil {
		return limit
	}
	for lines := bufio.NewScanner(bytes.NewReader(groups)); lines.Scan(); {
		// "0::/path" of v2 and "4:memory:/path" of v1. A container of v2 sees the
		// path from its own root, one of v1 that of the machine, which it has not.
		_, line, _ := strings.Cut(lines.Text(), ":")
		controllers, own, _ := strings.Cut(line, ":")
		top, file := "sys/fs/cgroup", "memory.max"
		if slices.Contains(strings.Split(controllers, ","), "memory") {
			top, file = "sys/fs/cgroup/memory", "memory.limit_in_bytes"
		} else if controllers != "" {
			continue
		}
		for group := path.Join(top, own); strings.HasPrefix(group, top); group = path.Dir(group) {
			text, err := fs.ReadFile(root, path.Join(group, file))
			if err != nil {
				continue // the root of v2 has none
			}
			if n, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64); err == nil { // not "max"
				limit = min(limit, n)
			}
		}
	}
	return limit
}

// limitMemory has the collector work harder before the process takes more than
// half of memory, in bytes: the other half is the kernel's, whose sockets
// buffer as much as we do. A limit that was set before (GOMEMLIMIT) stays.
func limitMemory(memory uint64, logger *slog.Logger) {
	const unlimited = math.MaxInt64
	limit := debug.SetMemoryLimit(-1)
	if limit == unlimited {
		limit = int64(min(memory/2, unlimited))
		debug.SetMemoryLimit(limit)
	}
	logger.Info("memory", "MiB", memory>>20, "limit", limit>>20)
}

const (
	// quiet is how long there must have been nothing to collect.
	quiet = 20 * time.Second
	// worthwhile is what must have come to what was last left, in bytes.
	worthwhile = 8 << 20
	// fileMemory is what an open file counts for, in bytes: the pipes that flows
	// have been spliced through wait for the collector, too, and hardly any of
	// what they take is the process's own.
	fileMemory = 64 << 10
)

// returnMemory gives the memory that a load has left behind back to the machine
// until ctx ends, beginning with the start's. By itself the runtime would collect
// it in two minutes, and then return it over many more.
func returnMemory(ctx context.Context) error {
	ticks := time.NewTicker(quiet)
	defer ticks.Stop()
	var left leftovers
	for {
		runtime.GC() // what pools hold goes at the second collection
		debug.FreeOSMemory()
		left.note(heldMemory())
		for worth := false; !worth; worth = left.worth(heldMemory()) {
			select {
			case <-ctx.Done():
				return nil
			case <-ticks.C:
			}
		}
	}
}

// heldMemory returns how often the collector has run, and how many bytes the
// process has of the machine, open files included.
func heldMemory() (collections, held uint64) {
	samples := []gauges.Sample{
		{Name: "/gc/cycles/total:gc-cycles"},
		{Name: "/memory/classes/total:bytes"},
		{Name: "/memory/classes/heap/released:bytes"},
	}
	gauges.Read(samples)
	return samples[0].Value.Uint64(), samples[1].Value.Uint64() - samples[2].Value.Uint64() + openFiles().Open*fileMemory
}

// leftovers tell memory that a load has left from memory that is in use.
type leftovers struct {
	collections uint64 // when last seen
	least       uint64 // bytes held when last returned, or less
}

// worth reports whether there is something to return: only where the collector
// has not run since the last time, as who still allocates would soon ask for it
// again.
func (l *leftovers) worth(collections, held uint64) bool {
	quiet := collections == l.collections
	l.collections = collections
	l.least = min(l.least, held)
	return quiet && held >= l.least+worthwhile
}

// note says what is left after a return.
func (l *leftovers) note(collections, held uint64) {
	l.collections, l.least = collections, held
}
