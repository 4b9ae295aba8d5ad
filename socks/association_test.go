package socks

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"sixgate/socks/datagram"
)

// echoDatagrams answers each datagram of an association as if by its
// destination, a name by 192.0.2.9.
func echoDatagrams(_ context.Context, r *Request) {
	if r.Command() != CommandUDPAssociate {
		return
	}
	a, err := r.Associate()
	if err != nil {
		return
	}
	defer a.Close()
	a.Forward(func(b datagram.Batch, dest Addr) {
		if dest.IsName() {
			dest = Addr{IP: netip.MustParseAddr("192.0.2.9"), Port: dest.Port}
		}
		a.Send(b, dest) // what is too large is lost
	})
	<-a.Done()
}

// relayPorts is where the ports of relays begin in these tests.
const relayPorts = 60000

// associate returns a control connection to a server at ip and its relay.
func associate(t *testing.T, ip, request string) (*net.TCPConn, *net.UDPAddr) {
	t.Helper()
	return associateWith(t, &Server{}, ip, request)
}

func associateWith(t *testing.T, s *Server, ip, request string) (*net.TCPConn, *net.UDPAddr) {
	t.Helper()
	s.Handler, s.Listening = handlerFunc(echoDatagrams), Listening{Ports: Ports{relayPorts, 65535}}
	ln, err := net.Listen("tcp", net.JoinHostPort(ip, "0"))
	if err != nil {
		t.Fatal(err)
	}
	serve(t, s, ln)
	host, port, _ := net.SplitHostPort(ln.Addr().String())
	if parsed := net.ParseIP(host); parsed.IsUnspecified() {
		host = "127.0.0.1"
	}
	to, err := net.ResolveTCPAddr("tcp", net.JoinHostPort(host, port))
	if err != nil {
		t.Fatal(err)
	}
	control := dial(t, to)
	control.Write(unhex(t, "05 01 00"+request))
	if _, err := io.ReadFull(control, make([]byte, 2)); err != nil {
		t.Fatal(err)
	}
	msg, err := readReply(control)
	if err != nil {
		t.Fatal(err)
	}
	code, bound, err := parseReply(msg)
	if err != nil || code != Succeeded || bound.IP.IsUnspecified() || bound.Port < relayPorts {
		t.Fatalf("%s, %v, %v", code, bound, err)
	}
	return control, net.UDPAddrFromAddrPort(bound.AddrPort())
}

func dialUDP(t *testing.T, local string, to *net.UDPAddr) *net.UDPConn {
	t.Helper()
	from, err := net.ResolveUDPAddr("udp", net.JoinHostPort(local, "0"))
	if err != nil {
		t.Fatal(err)
	}
	conn, err := net.DialUDP("udp", from, to)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	return conn
}

// The hint is of no use, whatever it says; the relay is where the client has
// connected to, and answers from there.
func TestAssociate(t *testing.T) {
	for _, tt := range []struct{ listen, local, request string }{
		{"127.0.0.1", "127.0.0.1", "05 03 00 01 00000000 0000"},
		{"::1", "::1", "05 03 00 04 00000000000000000000000000000000 0000"},
		{"127.0.0.1", "127.0.0.1", "05 03 00 03 01 30 1234"},
		{"127.0.0.1", "127.0.0.1", "05 03 00 03 09 3132372e302e302e31 0000"},
		{"127.0.0.1", "127.0.0.1", "05 03 00 03 08 612e62202d2d2d2e 0035"},
		{"0.0.0.0", "127.0.0.1", "05 03 00 01 c0000207 1234"},
	} {
		t.Run(tt.listen+" "+tt.request, func(t *testing.T) {
			_, relay := associate(t, tt.listen, tt.request)
			conn := dialUDP(t, tt.local, relay)
			buf := make([]byte, datagram.Max)
			for _, dgram := range [][2]string{
				{"0000 00 01 c0000201 0035 6869", "0000 00 01 c0000201 0035 6869"},
				{"0000 00 04 20010db8000000000000000000000001 0035", "0000 00 04 20010db8000000000000000000000001 0035"},
				{"ffff 00 03 01 61 0035 6869", "0000 00 01 c0000209 0035 6869"},
			} {
				conn.Write(unhex(t, dgram[0]))
				n, err := conn.Read(buf)
				if err != nil || !bytes.Equal(buf[:n], unhex(t, dgram[1])) {
					t.Errorf("got % x, %v, want %s", buf[:n], err, dgram[1])
				}
			}
		})
	}
}

// What is malformed, a fragment or a stranger's is dropped, and the association
// goes on. A stranger has another address, or another port than the first
// datagram.
func TestAssociationDrops(t *testing.T) {
	var s Server
	_, relay := associateWith(t, &s, "127.0.0.1", "05 03 00 01 00000000 0000")
	const good = "0000 00 01 c0000201 0035 6869"
	stranger := dialUDP(t, "127.0.0.77", relay)
	stranger.Write(unhex(t, good))
	client := dialUDP(t, "127.0.0.1", relay)
	buf := make([]byte, datagram.Max)
	for _, bad := range []string{
		"", "00", "0000 00", "0000 00 01 c00002", "0000 00 09 c0000201 0035", "0000 01 01 c0000201 0035 6869",
		"0000 81 01 c0000201 0035 6869", "0000 00 03 00 0035", "0000 00 03 ff 61 0035", "0000 00 01 c0000201 0000 6869",
	} {
		client.Write(unhex(t, bad))
	}
	client.Write(append(unhex(t, "0000 00 01 c0000201 0035"), make([]byte, 65507-10)...)) // as large as it can be
	n, err := client.Read(buf)
	if err != nil || n != 65507 {
		t.Errorf("read %d octets, %v", n, err)
	}
	other := dialUDP(t, "127.0.0.1", relay)
	other.Write(unhex(t, good))
	client.Write(unhex(t, "0000 00 01 c0000202 0035"))
	if n, err = client.Read(buf); err != nil || !bytes.Equal(buf[:n], unhex(t, "0000 00 01 c0000202 0035")) {
		t.Errorf("got % x, %v", buf[:n], err)
	}
	for _, conn := range []*net.UDPConn{stranger, other} {
		conn.SetReadDeadline(time.Now().Add(time.Millisecond)) // all was answered, in order
		if n, err := conn.Read(buf); err == nil {
			t.Errorf("%s got % x", conn.LocalAddr(), buf[:n])
		}
	}
	if got, want := s.Counters(), (Counters{Strangers: 2, Fragments: 2, Malformed: 8}); got != want {
		t.Errorf("counted %+v, want %+v", got, want)
	}
}

func TestAssociationEndsWithControl(t *testing.T) {
	control, relay := associate(t, "127.0.0.1", "05 03 00 01 00000000 0000")
	client := dialUDP(t, "127.0.0.1", relay)
	control.Write([]byte("ignored"))
	control.CloseWrite()
	if _, err := io.ReadAll(control); err != nil {
		t.Error(err)
	}
	// The relay's port is closed, which ICMP tells, though not each time.
	for range 100 {
		client.Write([]byte("x"))
		client.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
		if _, err := client.Read(make([]byte, 1)); errors.Is(err, syscall.ECONNREFUSED) {
			return
		}
	}
	t.Error("the relay lives")
}

// next returns what comes next from c, or fails the test.
func next[T any](t *testing.T, c <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-c:
	case <-time.After(time.Minute):
		t.Fatal("nothing comes")
	}
	return v
}

// A client may leave before anybody listens to it. What it has sent until then
// is heard all the same, if it stays.
func TestAssociationIsForwardedLate(t *testing.T) {
	const good = "0000 00 01 c0000201 0035 6869"
	for _, leaves := range []bool{false, true} {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		began, sent, heard := make(chan *Association, 1), make(chan struct{}), make(chan string, 10)
		serve(t, &Server{Handler: handlerFunc(func(_ context.Context, r *Request) {
			a, err := r.Associate()
			if err != nil {
				t.Error(err)
				return
			}
			defer a.Close()
			began <- a
			<-sent
			if leaves {
				<-a.Done()
			}
			a.Forward(func(b datagram.Batch, dest Addr) { heard <- string(b.Payload) + " to " + dest.String() })
			<-a.Done()
		})}, ln)
		control := dial(t, ln.Addr())
		control.Write(unhex(t, "05 01 00 05 03 00 01 00000000 0000"))
		a := next(t, began)
		reply := make([]byte, 12)
		if _, err := io.ReadFull(control, reply); err != nil {
			t.Fatal(err)
		}
		relay := &net.UDPAddr{IP: net.IP(reply[6:10]), Port: int(reply[10])<<8 | int(reply[11])}
		dialUDP(t, "127.0.0.1", relay).Write(unhex(t, good))
		if leaves {
			control.Close()
		}
		close(sent)
		if leaves {
			next(t, a.Done())
			continue
		}
		if got := next(t, heard); got != "hi to 192.0.2.1:53" {
			t.Errorf("heard %q", got)
		}
	}
}
