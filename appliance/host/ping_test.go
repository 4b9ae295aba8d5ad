package host

import "testing"

func TestWiden(t *testing.T) {
	for _, tt := range []struct {
		groups string
		group  int
		want   string
	}{
		{"1 0", 0, "0 0"}, // the kernel's default: nobody
		{"1 0", 65534, "65534 65534"},
		{"0 2147483647", 65534, "0 2147483647"},
		{"100 200", 0, "0 200"},
		{"100 200", 300, "100 300"},
		{"", 7, "7 7"},
	} {
		if got := widen(tt.groups, tt.group); got != tt.want {
			t.Errorf("%d among %q: %q, want %q", tt.group, tt.groups, got, tt.want)
		}
	}
}
