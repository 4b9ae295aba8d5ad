package datagram

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func sender(t *testing.T) *net.UDPConn {
	t.Helper()
	c, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// heard is an owner that keeps what it is told.
type heard struct{ batches []string }

func (h *heard) Took(b Batch, from netip.AddrPort) {
	h.batches = append(h.batches, fmt.Sprintf("%s/%d", b.Payload, b.Size))
}

func (h *heard) Failed(*PathError) {}
func (h *heard) Broke()            {}

// Datagrams of a kind that wait together are taken together.
func TestInboxJoins(t *testing.T) {
	h := &heard{}
	s, err := OpenSocket(unix.AF_INET, 0, nil, h)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := s.Bind(netip.AddrPort{}); err != nil {
		t.Fatal(err)
	}
	one, other := sender(t), sender(t)
	to := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), s.LocalPort())
	in := newInbox()
	for _, step := range []struct {
		sent []string // those of other begin with o
		want []string
	}{
		{[]string{"aaa", "bbb", "cc", "dd"}, []string{"aaabbbcc/3", "dd/0"}},
		{[]string{"aa", "bbb", "", "", "cc"}, []string{"aa/0", "bbb/0", "/0", "/0", "cc/0"}},
		{[]string{"aaa", "ooo", "ooo", "bbb"}, []string{"aaa/0", "oooooo/3", "bbb/0"}},
		{slices.Repeat([]string{"a"}, maxReceived+1), []string{strings.Repeat("a", maxReceived) + "/1", "a/0"}},
	} {
		h.batches = nil
		for _, b := range step.sent {
			c := one
			if strings.HasPrefix(b, "o") {
				c = other
			}
			if _, err := c.WriteToUDPAddrPort([]byte(b), to); err != nil {
				t.Fatal(err)
			}
		}
		for range step.sent { // more often than there is something
			s.raw.Control(func(fd uintptr) { in.receive(fd, s) })
		}
		if !slices.Equal(h.batches, step.want) {
			t.Errorf("%q: got %q, want %q", step.sent, h.batches, step.want)
		}
	}
}
