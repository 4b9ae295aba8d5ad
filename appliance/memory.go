package appliance

import (
	"bufio"
	"bytes"
	"fmt"
	"io/fs"
	"log/slog"
	"math"
	"path"
	"runtime/debug"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// memoryIn returns how many bytes of memory the gateway has at the most: those
// of the machine whose files root has, or what its control groups leave of
// them (cgroup v2).
func memoryIn(root fs.FS) (uint64, error) {
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return 0, fmt.Errorf("surveying memory: %w", err)
	}
	return min(uint64(info.Totalram)*uint64(info.Unit), groupMemory(root)), nil
}

// groupMemory returns the least memory.max of the process's control group and
// those above it. Without any it is more than a machine has.
func groupMemory(root fs.FS) uint64 {
	limit := uint64(math.MaxUint64)
	groups, err := fs.ReadFile(root, "proc/self/cgroup")
	if err != nil {
		return limit
	}
	for lines := bufio.NewScanner(bytes.NewReader(groups)); lines.Scan(); {
		// The group of v2, "0::/path", as seen from the group that a container
		// takes for the root.
		own, ok := strings.CutPrefix(lines.Text(), "0::/")
		if !ok {
			continue
		}
		for group := path.Join("sys/fs/cgroup", own); strings.HasPrefix(group, "sys/fs/cgroup"); group = path.Dir(group) {
			text, err := fs.ReadFile(root, path.Join(group, "memory.max"))
			if err != nil {
				continue // the root has none
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
