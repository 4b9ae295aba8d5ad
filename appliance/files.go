package appliance

import (
	"os"

	"golang.org/x/sys/unix"
)

const (
	// filesPerFlow is a socket on each side. A flow of the TUN has one; the
	// pipes of one that is spliced are had while they last.
	filesPerFlow = 2
	// spareFiles are for all else: listeners, resolvers, the journal.
	spareFiles = 256
)

// fileLimit returns how many files the process may have open, 0 where nobody
// says so. Go raises the soft limit to the hard one when a process starts.
func fileLimit() uint64 {
	var limit unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &limit) != nil {
		return 0
	}
	return limit.Cur
}

// openFiles returns how many files are open, 0 where /proc does not tell.
func openFiles() Files {
	f := Files{Limit: fileLimit()}
	dir, err := os.Open("/proc/self/fd")
	if err != nil {
		return f
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err == nil {
		f.Open = uint64(len(names) - 1) // without dir
	}
	return f
}
