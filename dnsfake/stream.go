package dnsfake

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"syscall"
	"time"
)

const (
	maxStreams    = 1024 // connections
	clientStreams = 20
	streamIdle    = 15 * time.Second // "on the order of a few seconds" (RFC 7766, section 6.2.3)
	acceptPause   = 100 * time.Millisecond
)

// ServeListener answers the queries on the connections that ln accepts until
// ctx ends, then returns nil. It closes ln and waits for its goroutines before
// it returns.
func (s *Server) ServeListener(ctx context.Context, ln net.Listener) error {
	ctx, cancel := context.WithCancel(ctx)
	var streams sync.WaitGroup
	defer streams.Wait()
	defer cancel()
	defer ln.Close()
	defer context.AfterFunc(ctx, func() { ln.Close() })()
	for {
		conn, err := ln.Accept()
		switch {
		case ctx.Err() != nil:
			if err == nil {
				conn.Close()
			}
			return nil
		case err == nil:
			streams.Go(func() { s.ServeStream(ctx, conn) })
		case short(err), errors.Is(err, syscall.ECONNABORTED):
			s.warn("accepting DNS clients", err)
			select { // others give up what is short
			case <-time.After(acceptPause):
			case <-ctx.Done():
			}
		default:
			return fmt.Errorf("accepting on %s: %w", ln.Addr(), err)
		}
	}
}

// short reports whether err is of the machine, which lacks something for now.
func short(err error) bool {
	return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) ||
		errors.Is(err, syscall.ENOBUFS) || errors.Is(err, syscall.ENOMEM)
}

// ServeStream answers the queries on conn, each as soon as its answer is there
// (RFC 7766, section 7), until the client has no more, has been silent for 15 s
// or ctx ends. It closes conn and waits for its goroutines before it returns.
func (s *Server) ServeStream(ctx context.Context, conn net.Conn) {
	defer conn.Close()
	client := addrPort(conn.RemoteAddr()).Addr()
	if !s.streams.take(client) {
		s.count(dropped)
		return
	}
	defer s.streams.give(client)
	ctx, cancel := context.WithCancel(ctx)
	var answers sync.WaitGroup
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	defer cancel() // after the answers: a client may half-close and wait for them
	defer answers.Wait()

	var writing sync.Mutex // keeps replies whole on conn
	write := func(reply []byte) {
		if reply == nil {
			return
		}
		writing.Lock()
		defer writing.Unlock()
		conn.SetWriteDeadline(time.Now().Add(streamIdle))
		framed := binary.BigEndian.AppendUint16(make([]byte, 0, 2+len(reply)), uint16(len(reply)))
		if _, err := conn.Write(append(framed, reply...)); err != nil {
			cancel()
		}
	}
	for {
		conn.SetReadDeadline(time.Now().Add(streamIdle))
		query, err := readMessage(conn)
		if err != nil {
			return
		}
		if reply, done := s.quick(nil, query, client); done {
			write(reply)
		} else if s.waiting.take(client) {
			answers.Go(func() {
				defer s.waiting.give(client)
				write(s.slow(ctx, query, client, true))
			})
		} else { // the client has enough of them, and can wait with the next one
			write(s.slow(ctx, query, client, true))
		}
	}
}

// readMessage reads a message with its length (RFC 7766, section 8). It takes
// memory for what arrives, not for what is announced.
func readMessage(r io.Reader) ([]byte, error) {
	var size [2]byte
	if _, err := io.ReadFull(r, size[:]); err != nil {
		return nil, err
	}
	var message bytes.Buffer
	_, err := io.CopyN(&message, r, int64(binary.BigEndian.Uint16(size[:])))
	return message.Bytes(), err
}
