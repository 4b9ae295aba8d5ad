package socks

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

var hop = Addr{Name: "hop.test", Port: 1080}

// script is a server in memory that reads and writes by turns, and closes.
func script(t *testing.T, conn net.Conn, turns ...string) {
	defer conn.Close()
	for i, turn := range turns {
		b := unhex(t, turn)
		if i%2 == 1 {
			conn.Write(b) // the client may have closed
			continue
		}
		got := make([]byte, len(b))
		if _, err := io.ReadFull(conn, got); err != nil || !bytes.Equal(got, b) {
			t.Errorf("the client sent % x, %v, want %s", got, err, turn)
		}
	}
}

func TestConnect(t *testing.T) {
	const greeting, request, ok = "05 01 00", "05 01 00 03 01 61 0050", "05 00 00 01 c0000207 0007"
	name := Addr{Name: "a", Port: 80}
	const both = "05 02 00 02"
	nobody, user := Client{Server: hop}, Client{Server: hop, Username: "u", Password: "pw"}
	fast := Client{Server: hop, Username: "u", Password: "pw", Pipeline: true}
	for _, tt := range []struct {
		what   string
		client Client
		dest   Addr
		turns  []string
		bound  string
		errno  syscall.Errno
		code   Reply
	}{
		{"name", nobody, name, []string{greeting, "05 00", request, ok}, "192.0.2.7:7", 0, 0},
		{"IPv4", nobody, mustAddr(t, "192.0.2.1:80"), []string{greeting, "05 00", "05 01 00 01 c0000201 0050", ok}, "192.0.2.7:7", 0, 0},
		{"IPv6", nobody, mustAddr(t, "[2001:db8::1]:80"), []string{greeting, "05 00", "05 01 00 04 20010db8000000000000000000000001 0050", ok}, "192.0.2.7:7", 0, 0},
		{"BND is a name", nobody, name, []string{greeting, "05 00", request, "05 00 00 03 01 62 0007"}, "b:7", 0, 0},
		{"refused", nobody, name, []string{greeting, "05 00", request, "05 05 00 01 00000000 0000"}, "", syscall.ECONNREFUSED, ConnectionRefused},
		{"refused in short", nobody, name, []string{greeting, "05 00", request, "05 04"}, "", syscall.EHOSTUNREACH, HostUnreachable},
		{"unknown code", nobody, name, []string{greeting, "05 00", request, "05 63"}, "", syscall.EIO, 0x63},
		{"wants a password", nobody, name, []string{greeting, "05 02"}, "", syscall.EACCES, 0},
		{"no method", nobody, name, []string{greeting, "05 ff"}, "", syscall.EACCES, 0},
		{"SOCKS4", nobody, name, []string{greeting, "00 5b"}, "", syscall.EPROTO, 0},
		{"closes after the greeting", nobody, name, []string{greeting}, "", syscall.ECONNABORTED, 0},
		{"closes after the request", nobody, name, []string{greeting, "05 00", request}, "", syscall.ECONNABORTED, 0},
		{"closes in its reply", nobody, name, []string{greeting, "05 00", request, "05 00 00 01"}, "", syscall.ECONNABORTED, 0},
		{"unknown address type", nobody, name, []string{greeting, "05 00", request, "05 00 00 02 c0000207 0007"}, "", syscall.EAFNOSUPPORT, 0},
		{"no destination", nobody, Addr{}, nil, "", syscall.EINVAL, 0},
		{"name too long", nobody, Addr{Name: strings.Repeat("a", 257), Port: 80}, nil, "", syscall.EINVAL, 0},
		{"password", user, name, []string{both, "05 02", "01 01 75 02 7077", "01 00", request, ok}, "192.0.2.7:7", 0, 0},
		{"empty password", Client{Server: hop, Username: "u"}, name, []string{both, "05 02", "01 01 75 00", "01 00", request, ok}, "192.0.2.7:7", 0, 0},
		{"password not wanted", user, name, []string{both, "05 00", request, ok}, "192.0.2.7:7", 0, 0},
		{"password required", Client{Server: hop, Username: "u", Password: "pw", Required: true}, name, []string{"05 01 02", "05 02", "01 01 75 02 7077", "01 00", request, ok}, "192.0.2.7:7", 0, 0},
		{"password required and not wanted", Client{Server: hop, Username: "u", Required: true}, name, []string{"05 01 02", "05 00"}, "", syscall.EPROTO, 0},
		{"password wrong", user, name, []string{both, "05 02", "01 01 75 02 7077", "01 01"}, "", syscall.EACCES, 0},
		{"GSSAPI wanted", user, name, []string{both, "05 01"}, "", syscall.EACCES, 0},
		{"password too long", Client{Server: hop, Username: "u", Password: strings.Repeat("p", 256)}, name, nil, "", syscall.EINVAL, 0},
		{"pipelined", Client{Server: hop, Pipeline: true}, name, []string{greeting + request, "05 00" + ok}, "192.0.2.7:7", 0, 0},
		{"pipelined with password", fast, name, []string{"05 01 02 01 01 75 02 7077" + request, "05 02 01 00" + ok}, "192.0.2.7:7", 0, 0},
		{"pipelined, password wrong", fast, name, []string{"05 01 02 01 01 75 02 7077" + request, "05 02 01 01"}, "", syscall.EACCES, 0},
		{"pipelined, password not wanted", fast, name, []string{"05 01 02 01 01 75 02 7077" + request, "05 00" + ok}, "", syscall.EPROTO, 0},
		{"pipelined, method not offered", Client{Server: hop, Pipeline: true}, name, []string{greeting + request, "05 02"}, "", syscall.EACCES, 0},
		{"pipelined, refused", fast, name, []string{"05 01 02 01 01 75 02 7077" + request, "05 02 01 00 05 05"}, "", syscall.ECONNREFUSED, ConnectionRefused},
	} {
		t.Run(tt.what, func(t *testing.T) {
			conn, server := net.Pipe()
			defer conn.Close()
			go script(t, server, tt.turns...)
			bound, err := tt.client.Connect(t.Context(), conn, tt.dest)
			var refused *ReplyError
			switch {
			case tt.errno == 0 && (err != nil || bound.String() != tt.bound):
				t.Errorf("got %v, %v", bound, err)
			case tt.errno != 0 && !errors.Is(err, tt.errno):
				t.Errorf("error %v, want %v", err, tt.errno)
			case tt.code != 0 && (!errors.As(err, &refused) || *refused != ReplyError{hop, tt.code}):
				t.Errorf("error %v, want code %s", err, tt.code)
			}
		})
	}
}

func mustAddr(t *testing.T, s string) Addr {
	t.Helper()
	a, err := ParseAddr(s)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// What the destination says first may come in the segment of the reply.
func TestConnectLeavesEarlyData(t *testing.T) {
	conn, server := net.Pipe()
	defer conn.Close()
	go script(t, server, "05 01 00", "05 00", "05 01 00 03 01 61 0050", "05 00 00 01 c0000207 0007 68656c6c6f")
	if _, err := (Client{Server: hop}).Connect(t.Context(), conn, Addr{Name: "a", Port: 80}); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(conn); string(got) != "hello" {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestConnectHonoursContext(t *testing.T) {
	gave := errors.New("gave up")
	for _, tt := range []struct {
		what    string
		context func() (context.Context, context.CancelFunc)
		want    error
	}{
		{"deadline", func() (context.Context, context.CancelFunc) {
			return context.WithTimeout(context.Background(), time.Second)
		}, syscall.ETIMEDOUT},
		{"cancel", func() (context.Context, context.CancelFunc) {
			ctx, cancel := context.WithCancel(context.Background())
			time.AfterFunc(time.Second, cancel)
			return ctx, cancel
		}, syscall.ECANCELED},
		{"cause", func() (context.Context, context.CancelFunc) {
			ctx, cancel := context.WithCancelCause(context.Background())
			time.AfterFunc(time.Second, func() { cancel(gave) })
			return ctx, func() { cancel(nil) }
		}, gave},
	} {
		t.Run(tt.what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				conn, server := net.Pipe()
				defer server.Close()
				defer conn.Close()
				go io.Copy(io.Discard, server)
				ctx, cancel := tt.context()
				defer cancel()
				began := time.Now()
				_, err := (Client{Server: hop}).Connect(ctx, conn, Addr{Name: "a", Port: 80})
				if !errors.Is(err, tt.want) || time.Since(began) != time.Second {
					t.Errorf("after %s: %v, want %v", time.Since(began), err, tt.want)
				}
			})
		})
	}
}

// The context is of the handshake alone.
func TestConnectLeavesNoDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		conn, server := net.Pipe()
		defer conn.Close()
		go script(t, server, "05 01 00", "05 00", "05 01 00 03 01 61 0050", "05 00 00 01 c0000207 0007", "61", "62")
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		if _, err := (Client{Server: hop}).Connect(ctx, conn, Addr{Name: "a", Port: 80}); err != nil {
			t.Fatal(err)
		}
		cancel()
		time.Sleep(time.Hour)
		conn.Write([]byte("a"))
		if got, err := io.ReadAll(conn); string(got) != "b" {
			t.Errorf("got %q, %v", got, err)
		}
	})
}

// Our client and our server understand each other.
func TestConnectToServer(t *testing.T) {
	conn := dial(t, start(t, &Server{Handler: handlerFunc(echo)}))
	bound, err := (Client{Server: hop}).Connect(t.Context(), conn, Addr{Name: "a", Port: 80})
	if err != nil || bound.AddrPort() != bnd {
		t.Fatalf("got %v, %v", bound, err)
	}
	conn.Write([]byte("hello"))
	conn.CloseWrite()
	if got, err := io.ReadAll(conn); string(got) != "hello" {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestBind(t *testing.T) {
	conn, server := net.Pipe()
	defer conn.Close()
	go script(t, server, "05 01 00", "05 00", "05 02 00 01 c0000201 0000", "05 00 00 01 c0000207 0007", "61", "05 00 00 01 c0000201 0050 68")
	c := Client{Server: hop}
	bound, err := c.Bind(t.Context(), conn, Addr{IP: netip.MustParseAddr("192.0.2.1")})
	if err != nil || bound.AddrPort() != bnd {
		t.Fatalf("bound at %v, %v", bound, err)
	}
	conn.Write([]byte("a"))
	peer, err := c.Bound(t.Context(), conn)
	if err != nil || peer != mustAddr(t, "192.0.2.1:80") {
		t.Fatalf("peer %v, %v", peer, err)
	}
	if got, err := io.ReadAll(conn); string(got) != "h" {
		t.Errorf("got %q, %v", got, err)
	}
}
