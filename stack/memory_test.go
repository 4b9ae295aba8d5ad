package stack

import "testing"

func TestShareOf(t *testing.T) {
	for _, test := range []struct {
		memory uint64
		want   share
	}{
		{1, share{256, 1 << 20, 64 << 10, 256 << 10}},
		{64 << 20, share{256, 1 << 20, 64 << 10, 1 << 20}},
		{128 << 20, share{256, 1 << 20, 128 << 10, 2 << 20}},
		{512 << 20, share{1024, 2 << 20, 256 << 10, 4 << 20}},
		{4 << 30, share{8192, 16 << 20, 256 << 10, 4 << 20}},
		{1 << 62, share{8192, 16 << 20, 256 << 10, 4 << 20}},
	} {
		if got := shareOf(test.memory); got != test.want {
			t.Errorf("%d MiB: %+v, want %+v", test.memory>>20, got, test.want)
		}
	}
}
