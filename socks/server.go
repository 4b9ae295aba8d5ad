package socks

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"sixgate/socks/datagram"
)

const (
	// handshakeTimeout is a third of Dante's, whose handshake counts the
	// look-up in.
	handshakeTimeout = 10 * time.Second
	// maxHandshakes is a quarter of Linux's net.core.somaxconn.
	maxHandshakes = 1024
	// lingerTime is within the 10 s of RFC 1928, section 6, and lets a lost
	// last message be sent again.
	lingerTime = 3 * time.Second
)

// Handler answers requests.
type Handler interface {
	// ServeSOCKS returns when the flow of r is over. ctx ends with the server,
	// and when the client closes before r is answered.
	ServeSOCKS(ctx context.Context, r *Request)
}

// Access is who may use a Server. It does not change; another takes its place.
type Access struct {
	Clients []netip.Prefix // sources that are served; empty: any
	Users   *Users         // who must authenticate; nil: anybody is served
}

// Server is a SOCKS server, of version 5 and, to anybody, of 4 and 4A. It may
// serve several listeners, and is not to be changed while it does.
type Server struct {
	Handler          Handler        // never nil
	Access           func() *Access // what holds now, never nil; nil: anybody is served
	Listening        Listening      // of UDP relays
	HandshakeTimeout time.Duration  // from accept to the last octet of the request; 0: 10 s
	MaxHandshakes    int            // of a listener, at a time; 0: 1024
	Logger           *slog.Logger   // may be nil

	poller datagram.Poller // of the relays
	tally  tally
}

// Serve answers the clients of ln until ctx ends, closes ln, waits for the
// handlers, and returns nil. An error of ln ends it, too.
func (s *Server) Serve(ctx context.Context, ln net.Listener) error {
	ctx, cancel := context.WithCancel(ctx)
	var clients sync.WaitGroup
	defer clients.Wait()
	defer cancel()
	defer ln.Close()
	defer context.AfterFunc(ctx, func() { ln.Close() })()
	limit := cmp.Or(s.MaxHandshakes, maxHandshakes)
	handshakes, goodbyes := newSlots(limit, &s.tally.displaced), newSlots(limit, new(atomic.Uint64))
	for {
		conn, err := ln.Accept()
		if ctx.Err() != nil {
			if err == nil {
				conn.Close()
			}
			return nil
		}
		if err != nil {
			return fmt.Errorf("accepting SOCKS clients on %s: %w", ln.Addr(), err)
		}
		clients.Go(func() {
			defer conn.Close()
			if !s.serve(ctx, conn, handshakes) {
				defer goodbyes.take(conn)()
				hangUp(ctx, conn)
			}
		})
	}
}

// serve sees conn through from greeting to end. It reports false when the last
// word was a refusal, which the client has yet to read.
func (s *Server) serve(ctx context.Context, conn net.Conn, handshakes *slots) bool {
	if !s.admits(remote(conn).Addr()) {
		s.tally.notAdmitted.Add(1)
		s.logger().Debug("SOCKS client not admitted", "client", remote(conn))
		return true
	}
	r, err := s.begin(ctx, conn, handshakes)
	if err != nil {
		s.logger().Debug("SOCKS handshake", "client", remote(conn), "err", err)
		return false
	}
	return !r.serve(ctx, s.Handler)
}

// access returns who may use the server now. It is never nil.
func (s *Server) access() *Access {
	if s.Access == nil {
		return &Access{}
	}
	return s.Access()
}

func (s *Server) admits(client netip.Addr) bool {
	clients := s.access().Clients
	return len(clients) == 0 || slices.ContainsFunc(clients, func(p netip.Prefix) bool { return p.Contains(client) })
}

// begin does the handshake in its time and in a slot.
func (s *Server) begin(ctx context.Context, conn net.Conn, handshakes *slots) (*Request, error) {
	defer handshakes.take(conn)()
	deadline := time.Now().Add(cmp.Or(s.HandshakeTimeout, handshakeTimeout))
	ctx, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	defer context.AfterFunc(ctx, func() {
		if errors.Is(ctx.Err(), context.Canceled) {
			conn.Close()
		}
	})()
	if err := conn.SetDeadline(deadline); err != nil {
		return nil, err
	}
	r, err := s.handshake(ctx, conn)
	if err != nil {
		return nil, err
	}
	return r, conn.SetDeadline(time.Time{})
}

// hangUp ends what is sent to conn, and waits for the client to end as well:
// to close over its unread octets would reset the connection, and could take
// the last message from it.
func hangUp(ctx context.Context, conn net.Conn) {
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	if c, ok := conn.(interface{ CloseWrite() error }); ok {
		c.CloseWrite() // an error ends the reading below, too
	}
	if conn.SetDeadline(time.Now().Add(lingerTime)) == nil {
		io.Copy(io.Discard, conn)
	}
}

// remote returns where conn comes from.
func remote(conn net.Conn) netip.AddrPort { return AddrPortOf(conn.RemoteAddr()) }

func (s *Server) logger() *slog.Logger {
	return cmp.Or(s.Logger, slog.New(slog.DiscardHandler))
}
