package outlet

import (
	"errors"
	"io"
	"net"
	"syscall"
	"testing"

	"sixgate/socks"
)

// gatekeeper is a SOCKS server that refuses whoever it asks for a password, and
// tells the name.
func gatekeeper(t *testing.T) (server socks.Addr, names <-chan string) {
	ln := listen(t, "127.0.0.1")
	told := make(chan string)
	done := make(chan struct{})
	t.Cleanup(func() { ln.Close(); <-done })
	go func() {
		defer close(done)
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			told <- nameOf(conn)
			conn.Close()
		}
	}()
	return socks.AddrFromAddrPort(socks.AddrPortOf(ln.Addr())), told
}

// nameOf returns by which name and password a client comes, "" if by none.
func nameOf(conn net.Conn) string {
	greeting := make([]byte, 3)
	if io.ReadFull(conn, greeting); string(greeting) != "\x05\x01\x02" {
		return ""
	}
	conn.Write([]byte{5, 2})
	head := make([]byte, 2)
	io.ReadFull(conn, head)
	name := make([]byte, head[1])
	io.ReadFull(conn, name)
	io.ReadFull(conn, head[:1])
	password := make([]byte, head[0])
	io.ReadFull(conn, password)
	conn.Write([]byte{1, 1})
	return string(name) + ":" + string(password)
}

// Each client is one user of the server, and no two are the same, also where
// the server is one of a chain.
func TestIsolated(t *testing.T) {
	server, names := gatekeeper(t)
	direct := NewDirect(DirectConfig{Resolver: &hosts{}})
	alone := NewVia(direct, socks.Client{Server: server}, nil)
	for what, way := range map[string]*Via{
		"alone":  alone.Isolated(),
		"before": NewVia(alone.Isolated(), socks.Client{Server: name}, nil),
	} {
		seen := map[string]string{}
		for _, client := range []string{"user a", "client a", "user a", "user b", "client a"} {
			failed := make(chan error)
			go func() {
				_, err := way.For(client).Dial(t.Context(), "tcp", name)
				failed <- err
			}()
			as := <-names
			if err := <-failed; !errors.Is(err, syscall.EACCES) {
				t.Errorf("%s: %v", what, err)
			}
			if known, ok := seen[client]; as == "" || ok && known != as {
				t.Errorf("%s: %s came as %q, before as %q", what, client, as, known)
			}
			seen[client] = as
		}
		if seen["user a"] == seen["client a"] || seen["user a"] == seen["user b"] {
			t.Errorf("%s: clients share a name: %v", what, seen)
		}
		if hop, ok := way.over.(*Via); ok {
			way = hop
		}
		if h := way.Health(); h.Asked == 0 {
			t.Errorf("%s: health %+v", what, h)
		}
	}
}
