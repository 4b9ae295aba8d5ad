package upstream

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/miekg/dns"
)

// transport carries queries to one server.
type transport interface {
	// exchange returns the reply that matches query, in wire form. It may
	// change query's ID. With errCase the reply is valid too; with errMalformed
	// there will be no better one.
	exchange(ctx context.Context, query []byte) (*dns.Msg, error)
}

// dial opens a socket to the server that it belongs to.
type dial func(ctx context.Context) (net.Conn, error)

// plainUDP returns a dial without encryption.
func (c *Config) plainUDP(server Server) dial {
	dialer := net.Dialer{Control: c.Control}
	return func(ctx context.Context) (net.Conn, error) {
		return dialer.DialUDP(ctx, "udp", netip.AddrPort{}, server.Addr)
	}
}

// plainTCP returns a dial without encryption.
func (c *Config) plainTCP(server Server) dial {
	if c.Connect != nil {
		return func(ctx context.Context) (net.Conn, error) { return c.Connect(ctx, server.Addr) }
	}
	dialer := net.Dialer{Control: c.Control}
	return func(ctx context.Context) (net.Conn, error) {
		return dialer.DialTCP(ctx, "tcp", netip.AddrPort{}, server.Addr)
	}
}

// encrypted returns a dial that trusts nobody but who has a certificate for the
// server's name (RFC 8310, section 8.1: the strict profile).
func (c *Config) encrypted(server Server) dial {
	settings := c.verify(server)
	settings.ClientSessionCache = tls.NewLRUClientSessionCache(1)
	tcp := c.plainTCP(server)
	return func(ctx context.Context) (net.Conn, error) {
		conn, err := tcp(ctx)
		if err != nil {
			return nil, err
		}
		secured := tls.Client(conn, settings)
		if err := secured.HandshakeContext(ctx); err != nil {
			conn.Close()
			return nil, err
		}
		return secured, nil
	}
}

// verify returns the TLS settings that let only server itself pass.
func (c *Config) verify(server Server) *tls.Config {
	return &tls.Config{ServerName: server.host(), RootCAs: c.RootCAs, MinVersion: tls.VersionTLS12}
}

// udp sends each query on a socket of its own, so that the port is fresh and no
// other query's reply can arrive.
type udp struct {
	dial    dial
	buffers *sync.Pool // of *[maxReply]byte
	forged  *atomic.Uint64
}

// maxReply is room for more than is asked for, in octets: there are servers that
// do not listen.
const maxReply = 4096

// maxForged is how many datagrams that are no reply may come for a query. Of
// more, one may match by luck (RFC 5452, section 9.3).
const maxForged = 16

// errForged is of a socket to which more than maxForged have come.
var errForged = errors.New("forged replies come")

// newUDP returns a transport that counts what is no reply in forged.
func newUDP(dial dial, forged *atomic.Uint64) udp {
	return udp{dial, &sync.Pool{New: func() any { return new([maxReply]byte) }}, forged}
}

// exchange waits until a reply to query comes. Whatever else comes is a late or
// a forged datagram, and no reason to stop waiting, unless there are many.
func (u udp) exchange(ctx context.Context, query []byte) (*dns.Msg, error) {
	conn, err := u.dial(ctx)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	_, err = conn.Write(query)
	if errors.Is(err, syscall.ECONNREFUSED) {
		// What a datagram of the port's owner before met; this one was not sent.
		_, err = conn.Write(query)
	}
	if err != nil {
		return nil, err
	}
	buf := u.buffers.Get().(*[maxReply]byte)
	defer u.buffers.Put(buf)
	for range maxForged + 1 {
		n, err := conn.Read(buf[:])
		if err != nil {
			return nil, err
		}
		reply, err := match(buf[:n], query)
		if err == nil || errors.Is(err, errCase) || errors.Is(err, errMalformed) {
			return reply, err
		}
		u.forged.Add(1)
	}
	return nil, errForged
}
