package socks

import (
	"errors"
	"net/netip"
	"slices"
	"syscall"
	"testing"
)

func TestTold(t *testing.T) {
	both := []netip.Addr{netip.MustParseAddr("203.0.113.7"), netip.MustParseAddr("2001:db8::7")}
	for _, tt := range []struct {
		external     []netip.Addr
		socket, told string
	}{
		{both, "10.0.0.2:50000", "203.0.113.7:50000"},
		{both, "0.0.0.0:50000", "203.0.113.7:50000"},
		{both, "[fd00::2]:50000", "[2001:db8::7]:50000"},
		{both[1:], "10.0.0.2:50000", "10.0.0.2:50000"},
		{both, "127.0.0.1:50000", "127.0.0.1:50000"},
		{both, "[::1]:50000", "[::1]:50000"},
		{nil, "10.0.0.2:50000", "10.0.0.2:50000"},
	} {
		l := Listening{External: tt.external}
		if got := l.Told(netip.MustParseAddrPort(tt.socket)).String(); got != tt.told {
			t.Errorf("external %v, a client is told %s of %s, want %s", tt.external, got, tt.socket, tt.told)
		}
	}
}

func TestPorts(t *testing.T) {
	free := []uint16{65534}
	var tried []uint16
	open := func(port uint16) error {
		tried = append(tried, port)
		if slices.Contains(free, port) {
			return nil
		}
		return syscall.EADDRINUSE
	}
	ports := Ports{65532, 65535}
	if err := ports.Open(open); err != nil || tried[len(tried)-1] != 65534 {
		t.Errorf("tried %v, %v", tried, err)
	}
	free, tried = nil, nil
	err := ports.Open(open)
	slices.Sort(tried)
	if !errors.Is(err, syscall.EADDRINUSE) || !slices.Equal(tried, []uint16{65532, 65533, 65534, 65535}) {
		t.Errorf("tried %v, %v", tried, err)
	}
	tried = nil
	if err := ports.Open(func(port uint16) error { tried = append(tried, port); return syscall.EACCES }); !errors.Is(err, syscall.EACCES) || len(tried) != 1 {
		t.Errorf("tried %v, %v", tried, err)
	}
	free, tried = []uint16{0}, nil
	if err := (Ports{}).Open(open); err != nil || len(tried) != 1 {
		t.Errorf("tried %v, %v", tried, err)
	}
}
