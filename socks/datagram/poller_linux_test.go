package datagram

import (
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

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

// owner is one that only takes.
type owner func(b Batch)

func (o owner) Took(b Batch, _ netip.AddrPort) { o(b) }
func (owner) Failed(*PathError)                {}
func (owner) Broke()                           {}

// listen returns a socket on loopback for its owner, and where it is.
func listen(t *testing.T, o Owner) (*Socket, netip.AddrPort) {
	t.Helper()
	s, err := OpenSocket(unix.AF_INET, 0, nil, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	loopback := netip.MustParseAddr("127.0.0.1")
	if err := s.Bind(netip.AddrPortFrom(loopback, 0)); err != nil {
		t.Fatal(err)
	}
	return s, netip.AddrPortFrom(loopback, s.LocalPort())
}

// send sends one octet after another.
func send(t *testing.T, c *net.UDPConn, to netip.AddrPort, count int) {
	t.Helper()
	for range count {
		if _, err := c.WriteToUDPAddrPort([]byte("a"), to); err != nil {
			t.Fatal(err)
		}
	}
}

// await waits until so many octets are there to be received, for which loopback
// may need a moment on a busy machine.
func await(t *testing.T, s *Socket, octets int) {
	t.Helper()
	within(t, "it does not come", func() {
		err := s.with(func(fd int) error {
			unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PEEK_OFF, octets-1)
			defer unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PEEK_OFF, -1)
			_, _, err := unix.Recvfrom(fd, make([]byte, 1), unix.MSG_PEEK) // waits
			return err
		})
		if err != nil {
			t.Error(err)
		}
	})
}

// within fails the test if f is not done in good time.
func within(t *testing.T, what string, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() { f(); close(done) }()
	select {
	case <-done:
	case <-time.After(time.Minute):
		t.Fatal(what)
	}
}

// The last socket may leave while something waits there.
func TestPollerEnds(t *testing.T) {
	var p Poller
	taken, left := make(chan struct{}, maxReceived), make(chan struct{})
	s, at := listen(t, owner(func(Batch) { taken <- struct{}{}; <-left }))
	if err := p.Watch(s); err != nil {
		t.Fatal(err)
	}
	c := sender(t)
	send(t, c, at, 1)
	within(t, "nothing comes", func() { <-taken })
	send(t, c, at, maxReceived)
	await(t, s, maxReceived)
	go func() {
		for { // until it has left
			p.mu.Lock()
			life := p.life
			p.mu.Unlock()
			if life == nil {
				close(left)
				return
			}
			runtime.Gosched()
		}
	}()
	within(t, "it goes on", func() { p.Leave(s) })
}

// Of those who flood one has a turn after all others have had theirs; when their
// flood is over they are as the others.
func TestTurns(t *testing.T) {
	l, err := newLife()
	if err != nil {
		t.Fatal(err)
	}
	defer l.file.Close()
	defer l.busy.close()
	p := Poller{life: l, sockets: make(map[int32]*Socket)} // whose rounds are made here
	turns := newTurns(&p, l)
	var got []string
	c := sender(t)
	watch := func(name string) (s *Socket, come func(count int)) {
		s, at := listen(t, owner(func(b Batch) { got = append(got, fmt.Sprint(name, len(b.Payload))) }))
		if err := p.Watch(s); err != nil {
			t.Fatal(err)
		}
		return s, func(count int) {
			send(t, c, at, count)
			await(t, s, count)
		}
	}
	_, polite := watch("polite ")
	const each = 3 // turns
	var floods []*Socket
	for _, name := range []string{"a ", "b ", "c "} {
		s, come := watch(name)
		come(each * maxReceived)
		floods = append(floods, s)
	}
	turns.round() // finds out who floods
	count := map[string]int{}
	for range (each - 1) * len(floods) {
		polite(1)
		got = nil
		if turns.round(); len(got) != 2 || got[0] != "polite 1" {
			t.Fatalf("a round of %q", got)
		}
		count[got[1]]++
	}
	for _, name := range "abc" {
		if turn := fmt.Sprintf("%c %d", name, maxReceived); count[turn] != each-1 {
			t.Errorf("turns: %v", count)
		}
	}
	for _, s := range floods {
		send(t, c, netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), s.LocalPort()), 1)
		await(t, s, 1)
	}
	for turns.round() {
	}
	for _, s := range floods {
		if s.busy {
			t.Error("one is busy for good")
		}
	}
}

// Datagrams of a kind that wait together are taken together.
func TestInboxJoins(t *testing.T) {
	h := &heard{}
	s, to := listen(t, h)
	one, other := sender(t), sender(t)
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
