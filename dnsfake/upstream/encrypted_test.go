package upstream

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// secure is a server on loopback with a certificate for example.com and
// 127.0.0.1, and what it saw.
type secure struct {
	Server
	roots       *x509.CertPool
	connections atomic.Int32
	mu          sync.Mutex
	lengths     []int // of queries
}

// saw notes a query.
func (s *secure) saw(wire []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lengths = append(s.lengths, len(wire))
}

// writer lets a handler of package dns write into f.
type writer struct {
	dns.ResponseWriter
	f func([]byte)
}

func (w writer) WriteMsg(m *dns.Msg) error {
	wire, err := m.Pack()
	w.f(wire)
	return err
}

// serveHTTPS answers by handle at /dns-query, over HTTP/2 and no older one.
func serveHTTPS(t *testing.T, handle dns.HandlerFunc) *secure {
	t.Helper()
	s := &secure{}
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		wire, err := io.ReadAll(r.Body)
		q := new(dns.Msg)
		if err != nil || q.Unpack(wire) != nil || q.Id != 0 || r.ProtoMajor != 2 || r.Method != http.MethodPost ||
			r.Header.Get("Content-Type") != "application/dns-message" || r.Header.Get("User-Agent") != "" {
			http.Error(w, "not as RFC 8484 has it", http.StatusBadRequest)
			return
		}
		if r.URL.Path != "/dns-query" {
			http.Redirect(w, r, "/dns-query", http.StatusTemporaryRedirect)
			return
		}
		s.saw(wire)
		w.Header().Set("Content-Type", "application/dns-message")
		handle(writer{f: func(wire []byte) { w.Write(wire) }}, q)
	}))
	server.EnableHTTP2 = true
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			s.connections.Add(1)
		}
	}
	server.StartTLS()
	t.Cleanup(server.Close)
	s.Server = Server{Network: "https", Addr: netip.MustParseAddrPort(server.Listener.Addr().String()), Path: "/dns-query"}
	s.roots = x509.NewCertPool()
	s.roots.AddCert(server.Certificate())
	return s
}

// serveTLS answers by handle over TLS, every query of a connection at once.
func serveTLS(t *testing.T, handle dns.HandlerFunc) *secure {
	t.Helper()
	issuer := httptest.NewTLSServer(nil) // has a certificate
	issuer.Close()
	ln, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: issuer.TLS.Certificates})
	if err != nil {
		t.Fatal(err)
	}
	s := &secure{Server: Server{Network: "tls", Addr: netip.MustParseAddrPort(ln.Addr().String())}, roots: x509.NewCertPool()}
	s.roots.AddCert(issuer.Certificate())
	accept(t, ln, func(conn net.Conn) {
		s.connections.Add(1)
		s.pipelined(conn, handle)
	})
	return s
}

// accept serves each connection to ln until the test ends.
func accept(t *testing.T, ln net.Listener, serve func(net.Conn)) {
	var work sync.WaitGroup
	ended := make(chan struct{})
	work.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			served := make(chan struct{})
			work.Go(func() {
				defer close(served)
				serve(conn)
			})
			work.Go(func() {
				select {
				case <-ended:
				case <-served:
				}
				conn.Close()
			})
		}
	})
	t.Cleanup(func() {
		ln.Close()
		close(ended)
		work.Wait()
	})
}

// pipelined answers each query on conn by a goroutine of its own.
func (s *secure) pipelined(conn net.Conn, handle dns.HandlerFunc) {
	var queries sync.WaitGroup
	defer queries.Wait()
	stream := &dns.Conn{Conn: conn}
	var mu sync.Mutex // guards writes
	for {
		wire, err := stream.ReadMsgHeader(nil)
		q := new(dns.Msg)
		if err != nil || q.Unpack(wire) != nil {
			return
		}
		s.saw(wire)
		queries.Go(func() {
			handle(writer{f: func(wire []byte) {
				mu.Lock()
				defer mu.Unlock()
				stream.Write(wire)
			}}, q)
		})
	}
}

// encrypteds are the servers of both kinds.
func encrypteds(t *testing.T, handle dns.HandlerFunc) map[string]*secure {
	return map[string]*secure{"tls": serveTLS(t, handle), "https": serveHTTPS(t, handle)}
}

// TestEncryptedServersShareOneConnection has queries answered in the reverse
// order, all of which wait for the last.
func TestEncryptedServersShareOneConnection(t *testing.T) {
	const queries = 50
	for _, kind := range []string{"tls", "https"} {
		t.Run(kind, func(t *testing.T) {
			answer := zone(t, "a.example. 60 A 192.0.2.1")
			var arrived sync.WaitGroup
			arrived.Add(queries)
			server := encrypteds(t, func(w dns.ResponseWriter, q *dns.Msg) {
				if q.Question[0].Qtype != dns.TypeA {
					arrived.Done()
					arrived.Wait()
				}
				answer(w, q)
			})[kind]
			r := resolver(t, Config{RootCAs: server.roots}, server.Server)
			if got, err := r.LookupNetIP(t.Context(), "ip4", "a.example"); err != nil || len(got) != 1 {
				t.Fatalf("lookup = %v, %v", got, err)
			}
			var clients sync.WaitGroup
			for i := range queries {
				clients.Go(func() {
					m, err := r.Exchange(t.Context(), query("a.example.", uint16(60000+i)))
					if err != nil || m.Rcode != 0 || m.Question[0].Qtype != uint16(60000+i) {
						t.Errorf("Exchange = %v, %v", m, err)
					}
				})
			}
			clients.Wait()
			if n := server.connections.Load(); n != 1 {
				t.Errorf("%d connections", n)
			}
			for _, n := range server.lengths {
				if n%padBlock != 0 {
					t.Errorf("a query of %d octets is not padded", n)
				}
			}
		})
	}
}

func TestEncryptedServersAreVerified(t *testing.T) {
	for kind, server := range encrypteds(t, zone(t, "a.example. 60 A 192.0.2.1")) {
		other := Server{Network: kind, Addr: server.Addr, Name: "other.test", Path: server.Path}
		byName := Server{Network: kind, Addr: server.Addr, Name: "example.com", Path: server.Path}
		moved := server.Server
		moved.Path = "/moved"
		plain := serve(t, zone(t, "a.example. 60 A 6.6.6.6"))
		for name, c := range map[string]struct {
			server Server
			roots  *x509.CertPool
			ok     bool
		}{
			"by address":    {server.Server, server.roots, true},
			"by name":       {byName, server.roots, true},
			"another name":  {other, server.roots, false},
			"unknown CA":    {server.Server, x509.NewCertPool(), false},
			"moved":         {moved, server.roots, kind == "tls"},
			"no encryption": {Server{Network: kind, Addr: plain.Addr, Path: "/dns-query"}, server.roots, false},
		} {
			t.Run(kind+" "+name, func(t *testing.T) {
				conf := Config{RootCAs: c.roots}
				if !c.ok {
					conf.Timeout = time.Second // who speaks no TLS may say nothing
				}
				r := resolver(t, conf, c.server)
				got, err := r.LookupNetIP(t.Context(), "ip4", "a.example")
				if c.ok && (err != nil || !slices.Equal(got, addrs("192.0.2.1"))) {
					t.Errorf("lookup = %v, %v", got, err)
				}
				if !c.ok && !errors.Is(err, syscall.EHOSTUNREACH) {
					t.Errorf("lookup = %v, %v", got, err)
				}
			})
		}
	}
}

// TestRequestsThatGoWrong has an HTTPS server answer with something else.
func TestRequestsThatGoWrong(t *testing.T) {
	for name, handle := range map[string]dns.HandlerFunc{
		"another question": func(w dns.ResponseWriter, q *dns.Msg) {
			q.Question[0].Name = "b.example."
			zone(t, "b.example. 60 A 6.6.6.6")(w, q)
		},
		"no message": func(w dns.ResponseWriter, _ *dns.Msg) { w.(writer).f([]byte("hello")) },
		"nothing":    func(dns.ResponseWriter, *dns.Msg) {},
		"too much":   func(w dns.ResponseWriter, _ *dns.Msg) { w.(writer).f(make([]byte, 1<<20)) },
	} {
		t.Run(name, func(t *testing.T) {
			server := serveHTTPS(t, handle)
			r := resolver(t, Config{RootCAs: server.roots}, server.Server)
			if m, err := r.Exchange(t.Context(), query("a.example.", dns.TypeA)); err == nil {
				t.Errorf("reply %v", m)
			}
		})
	}
}

func TestServerIsURI(t *testing.T) {
	at := netip.MustParseAddrPort
	for want, s := range map[string]Server{
		"udp://192.0.2.1:53":                             {Network: "udp", Addr: at("192.0.2.1:53")},
		"tls://192.0.2.1:853#dns.example":                {Network: "tls", Addr: at("192.0.2.1:853"), Name: "dns.example"},
		"tls://[2001:db8::1]:853":                        {Network: "tls", Addr: at("[2001:db8::1]:853")},
		"https://192.0.2.1/dns-query":                    {Network: "https", Addr: at("192.0.2.1:443"), Path: "/dns-query"},
		"https://[2001:db8::1]/q":                        {Network: "https", Addr: at("[2001:db8::1]:443"), Path: "/q"},
		"https://[2001:db8::1]:8443/q":                   {Network: "https", Addr: at("[2001:db8::1]:8443"), Path: "/q"},
		"https://dns.example:8443/dns-query#2001:db8::1": {Network: "https", Addr: at("[2001:db8::1]:8443"), Name: "dns.example", Path: "/dns-query"},
	} {
		if got := s.String(); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
	if strings.Contains(Server{Network: "tls", Addr: at("[fe80::1%eth0]:853")}.host(), "%") {
		t.Error("a certificate is wanted for a zone")
	}
}
