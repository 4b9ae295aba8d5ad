package appliance

import (
	"testing"

	"golang.org/x/sys/unix"
)

func TestLacking(t *testing.T) {
	for held, want := range map[uint64]string{
		0:                       "CAP_NET_ADMIN and CAP_NET_BIND_SERVICE",
		1 << unix.CAP_NET_ADMIN: "CAP_NET_BIND_SERVICE",
		1<<41 - 1:               "",
		1 << unix.CAP_SETFCAP:   "CAP_NET_ADMIN and CAP_NET_BIND_SERVICE",
		1<<unix.CAP_NET_ADMIN | 1<<unix.CAP_NET_BIND_SERVICE: "",
	} {
		if got := lacking(held); got != want {
			t.Errorf("with %#x: %q, want %q", held, got, want)
		}
	}
}
