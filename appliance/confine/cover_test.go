package confine

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// TestWrite is of a root whose own files are nobody else's business.
func TestWrite(t *testing.T) {
	defer syscall.Umask(syscall.Umask(0o077))
	path := filepath.Join(t.TempDir(), "resolv.conf")
	if err := write(path, "nameserver 192.0.2.53\n"); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if got := info.Mode().Perm(); got != 0o444 {
		t.Errorf("its mode is %v", got)
	}
}
