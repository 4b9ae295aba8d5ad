package stack_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"net/netip"
	"syscall"
	"testing"

	"sixgate/stack"
)

// A ping is a flow: what the far host answers reaches the client with its
// identifier, and its sequence number and data are the far host's.
func TestPing(t *testing.T) {
	for family, ping := range map[string][]byte{"IPv4": ping4(), "IPv6": ping6(nil)} {
		t.Run(family, func(t *testing.T) {
			device := newBare()
			wire := newTap(device)
			start(t, stack.Config{Device: wire, Handler: handler{udp: func(_ context.Context, f *stack.DatagramFlow) {
				if f.Network() != "icmp" || f.Dest().Port() != 0 || f.Client().Port() != 0x1234 {
					t.Errorf("%s from %s to %s", f.Network(), f.Client(), f.Dest())
				}
				c, err := f.Accept(netip.AddrPort{})
				if err != nil {
					t.Errorf("Accept: %v", err)
					return
				}
				buf := make([]byte, 100)
				n, err := c.Read(buf)
				if err != nil || !bytes.Equal(buf[:n], []byte{0, 7, 'd', 'a'}) {
					t.Errorf("got % x, %v", buf[:n], err)
				}
				c.Send(stack.Datagrams{Payload: append(buf[:n], "ta"...), TTL: 9})
			}}})
			request := echoWith(ping, 0x1234, []byte{0, 7, 'd', 'a'})
			device.send(request)
			protocol, at, reply, ttl := byte(icmp4), 20, byte(0), 8
			if request[0]>>4 == 6 {
				protocol, at, reply, ttl = icmp6, 40, 129, 7
			}
			answer := wire.next(t, protocol)
			if icmp := answer[at:]; icmp[0] != reply || !bytes.Equal(icmp[4:], []byte{0x12, 0x34, 0, 7, 'd', 'a', 't', 'a'}) {
				t.Errorf("answered % x", icmp)
			}
			if answer[ttl] != 9 {
				t.Errorf("%d hops left", answer[ttl])
			}
			if sum := icmpSum(answer); sum != 0 {
				t.Errorf("the checksum is wrong by %#x", sum)
			}
		})
	}
}

// echoWith returns a ping with another identifier, and what follows that.
func echoWith(ping []byte, id uint16, payload []byte) []byte {
	at := 20
	if ping[0]>>4 == 6 {
		at = 40
	}
	b := append(append([]byte(nil), ping[:at+6]...), payload...)
	binary.BigEndian.PutUint16(b[at+4:], id)
	b[at+2], b[at+3] = 0, 0
	if at == 20 {
		binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
		b[10], b[11] = 0, 0
		binary.BigEndian.PutUint16(b[10:], checksum(b[:20], 0))
	} else {
		binary.BigEndian.PutUint16(b[4:], uint16(len(b)-40))
	}
	binary.BigEndian.PutUint16(b[at+2:], icmpSum(b))
	return b
}

// icmpSum is the checksum of an ICMP message of either family; 0 if the right
// one is in it.
func icmpSum(b []byte) uint16 {
	if b[0]>>4 == 4 {
		return checksum(even(b[20:]), 0)
	}
	return checksum(even(b[8:]), icmp6+uint32(len(b)-40))
}

// The ways in which a ping fails, and the ICMP type and code of each.
func TestPingFails(t *testing.T) {
	for _, tt := range []struct {
		what   string
		admit  bool
		err    error
		v4, v6 [2]byte
	}{
		{"unknown", false, nil, [2]byte{3, 1}, [2]byte{1, 3}},
		{"no answer to the handler", true, nil, [2]byte{3, 1}, [2]byte{1, 3}},
		{"no network", true, syscall.ENETUNREACH, [2]byte{3, 0}, [2]byte{1, 0}},
		{"by a chain", true, syscall.EOPNOTSUPP, [2]byte{3, 13}, [2]byte{1, 1}},
		{"by rule", true, syscall.EACCES, [2]byte{3, 13}, [2]byte{1, 1}},
		{"too many hops", true, hop{syscall.EHOSTUNREACH, netip.MustParseAddr("203.0.113.9"), 0}, [2]byte{11, 0}, [2]byte{3, 0}},
		{"too big", true, hop{syscall.EMSGSIZE, netip.Addr{}, 1372}, [2]byte{3, 4}, [2]byte{2, 0}},
	} {
		for family, ping := range map[string][]byte{"IPv4": ping4(), "IPv6": ping6(nil)} {
			t.Run(tt.what+" "+family, func(t *testing.T) {
				device := newBare()
				wire := newTap(device)
				start(t, stack.Config{Device: wire, Handler: handler{
					admit: func(string, netip.AddrPort, netip.AddrPort) bool { return tt.admit },
					udp:   func(_ context.Context, f *stack.DatagramFlow) { f.Refuse(tt.err) },
				}})
				request := echoWith(ping, 0x1234, []byte{0, 7, 'd', 'a'})
				device.send(request)
				protocol, at, want, mtu := byte(icmp4), 20, tt.v4, uint32(1400)
				source := netip.MustParseAddr("203.0.113.9")
				if request[0]>>4 == 6 {
					protocol, at, want, mtu = icmp6, 40, tt.v6, 1420
					source = netip.MustParseAddr("64:ff9b::203.0.113.9")
				}
				b := wire.next(t, protocol)
				icmp := b[at:]
				if [2]byte(icmp) != want || icmpSum(b) != 0 {
					t.Errorf("type and code %v, want %v; the checksum is wrong by %#x", icmp[:2], want, icmpSum(b))
				}
				if tt.what == "too big" && binary.BigEndian.Uint32(icmp[4:]) != mtu {
					t.Errorf("MTU %d, want %d", binary.BigEndian.Uint32(icmp[4:]), mtu)
				}
				if from, _ := netip.AddrFromSlice(b[at-2*len(source.AsSlice()) : at-len(source.AsSlice())]); (from == source) != (tt.what == "too many hops") {
					t.Errorf("said by %s", from)
				}
				if quoted := icmp[8:]; !bytes.Equal(quoted[at:], request[at:]) || !bytes.Equal(quoted[at-8:at], request[at-8:at]) {
					t.Errorf("quoted % x of % x", quoted, request)
				}
			})
		}
	}
}

// hop is what a router may have told.
type hop struct {
	error
	by   netip.Addr
	room int
}

func (h hop) Offender() netip.Addr   { return h.by }
func (h hop) HopLimitExceeded() bool { return h.by.IsValid() }
func (h hop) Room() int              { return h.room }
func (h hop) Quoted() []byte         { return nil }

// ICMP errors of a client, about what nobody has sent or about nothing that
// can be read, change nothing.
func TestNonsenseIsIgnored(t *testing.T) {
	device := newBare()
	got := make(chan stack.Datagrams, 10)
	s, _ := start(t, stack.Config{Device: device, Handler: handler{udp: func(_ context.Context, f *stack.DatagramFlow) {
		c, _ := f.Accept(netip.AddrPort{})
		c.Forward(func(d stack.Datagrams) error {
			got <- d
			return nil
		})
		<-c.Done()
	}}})
	client := netip.MustParseAddrPort("192.0.2.2:1000")
	device.send(datagram(client, fake4, []byte("x")))
	receive(t, got, "datagram")
	answer := datagram(fake4, client, []byte("y")) // as if we had sent it
	for _, quoted := range [][]byte{nil, {0x45}, answer[:20], answer[:27], answer, datagram(client, fake4, nil), ping4(), ping6(nil), bytes.Repeat([]byte{0x4f}, 600)} {
		for _, kind := range [][2]byte{{3, 3}, {3, 4}, {11, 0}, {5, 1}, {12, 0}, {200, 200}} {
			b := echoWith(ping4(), 0, append([]byte{0, 0}, quoted...))
			b[20], b[21], b[22], b[23] = kind[0], kind[1], 0, 0
			binary.BigEndian.PutUint16(b[22:], icmpSum(b))
			device.send(b)
		}
	}
	device.send(datagram(client, fake4, []byte("z")))
	receive(t, got, "datagram")
	if n := s.Counters(); n.DatagramFlows != 1 || n.ICMPSent != 0 {
		t.Errorf("counters: %+v", n)
	}
}
