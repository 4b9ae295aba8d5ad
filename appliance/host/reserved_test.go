package host

import "testing"

func TestParsePorts(t *testing.T) {
	ports, err := parsePorts("1194,50000-50010,65535")
	if err != nil {
		t.Fatal(err)
	}
	for port, want := range map[uint16]bool{
		1193: false, 1194: true, 1195: false,
		49999: false, 50000: true, 50005: true, 50010: true, 50011: false, 65535: true,
	} {
		if ports.Contains(port) != want {
			t.Errorf("port %d: %t, want %t", port, !want, want)
		}
	}
	if ports, err := parsePorts(""); len(ports) != 0 || err != nil {
		t.Errorf("none: %v, %v", ports, err)
	}
	for _, list := range []string{"x", "1-", "70000", "1;2"} {
		if ports, err := parsePorts(list); err == nil {
			t.Errorf("%q: %v", list, ports)
		}
	}
}
