package upstream

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"syscall"
	"time"

	"github.com/miekg/dns"
)

const (
	// streamIdle is when a connection that carries no query is closed. Servers
	// close it after some 10 s themselves (RFC 7766, section 6.2.3).
	streamIdle = 8 * time.Second
	// maxRenewals is how often a query is sent again since the server closed
	// the connection that it was on, which servers may do at any time (RFC
	// 7766, section 6.2.4).
	maxRenewals = 2
)

var (
	errEnded  = fmt.Errorf("the server closed the connection: %w", syscall.ECONNRESET)
	errIdle   = errors.New("the connection was idle")
	errSilent = fmt.Errorf("nothing comes from the server: %w", syscall.ETIMEDOUT)
)

// pipeline carries all queries to a server over one connection, TCP or TLS, at
// a time, and takes the replies in any order (RFC 7766, section 6.2.1.1). It
// connects when there is a query, and again when it must.
type pipeline struct {
	ctx     context.Context // ends all connections
	work    *sync.WaitGroup // those who serve them
	dial    dial
	timeout time.Duration // to connect

	mu      sync.Mutex // guards current
	current *stream    // nil before the first query
}

func (p *pipeline) exchange(ctx context.Context, query []byte) (*dns.Msg, error) {
	for renewals := 0; ; renewals++ {
		s := p.stream()
		wire, err := s.exchange(ctx, query)
		if err == nil {
			return matchConnected(wire, query)
		}
		if ctx.Err() != nil || !s.served() || renewals == maxRenewals {
			return nil, err
		}
	}
}

// stream returns the connection to use. Who calls it has p.work wait for itself.
func (p *pipeline) stream() *stream {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.current == nil || p.current.ended() {
		s := &stream{out: make(chan []byte), done: make(chan struct{}), waiting: make(map[uint16]chan []byte)}
		ctx, cancel := context.WithCancel(p.ctx)
		s.cancel = cancel
		p.work.Go(func() { s.end(s.run(ctx, p.dial, p.timeout)) })
		p.current = s
	}
	return p.current
}

// stream is one connection, from before it is made until after it is closed.
type stream struct {
	out    chan []byte // framed queries
	done   chan struct{}
	cancel context.CancelFunc // closes the connection

	mu       sync.Mutex             // guards what follows
	waiting  map[uint16]chan []byte // by ID; they have room for the reply
	received uint64                 // replies
	err      error                  // why it ended; nil until done is closed
}

// exchange sends query, under an ID that no other one on s has, and returns the
// message that comes back with that ID.
func (s *stream) exchange(ctx context.Context, query []byte) ([]byte, error) {
	reply, before, err := s.expect(query)
	if err != nil {
		return nil, err
	}
	defer s.forget(query)
	out := s.out
	framed := append(binary.BigEndian.AppendUint16(nil, uint16(len(query))), query...)
	for {
		select {
		case out <- framed:
			out = nil
		case wire := <-reply:
			return wire, nil
		case <-s.done:
			select {
			case wire := <-reply: // the last one before the end
				return wire, nil
			default:
				return nil, s.err
			}
		case <-ctx.Done():
			s.suspect(before)
			return nil, context.Cause(ctx)
		}
	}
}

// expect makes s ready for the reply to query, and returns how many replies
// came before.
func (s *stream) expect(query []byte) (reply chan []byte, before uint64, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return nil, 0, s.err
	}
	id := binary.BigEndian.Uint16(query)
	for s.waiting[id] != nil { // never for long: far fewer are under way
		id++
	}
	binary.BigEndian.PutUint16(query, id)
	reply = make(chan []byte, 1)
	s.waiting[id] = reply
	return reply, s.received, nil
}

func (s *stream) forget(query []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.waiting, binary.BigEndian.Uint16(query))
}

// suspect ends s, which did not answer in time, if nothing at all has come
// since there were before replies: a path can die without a word.
func (s *stream) suspect(before uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.received == before {
		s.endLocked(errSilent)
	}
}

func (s *stream) end(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.endLocked(err)
}

func (s *stream) endLocked(err error) {
	if s.err == nil {
		s.err = err
		close(s.done)
		s.cancel()
	}
}

func (s *stream) ended() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err != nil
}

// served reports whether s was any good.
func (s *stream) served() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.received > 0
}

// run connects and carries messages until the connection ends, for the reason
// that it returns.
func (s *stream) run(ctx context.Context, dial dial, timeout time.Duration) error {
	connecting, cancel := context.WithTimeoutCause(ctx, timeout, syscall.ETIMEDOUT)
	defer cancel()
	conn, err := dial(connecting)
	if err != nil {
		return cause(connecting, err)
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	var writer sync.WaitGroup
	defer writer.Wait()
	writer.Go(func() { s.end(s.write(conn)) })
	err = s.read(conn)
	s.end(err)
	conn.Close()
	return err
}

// write sends what is queued, until the connection is idle or ends.
func (s *stream) write(conn net.Conn) error {
	idle := time.NewTimer(streamIdle)
	defer idle.Stop()
	for {
		select {
		case framed := <-s.out:
			if _, err := conn.Write(framed); err != nil {
				return err
			}
			idle.Reset(streamIdle)
		case <-idle.C:
			if s.endIdle() {
				return nil
			}
			idle.Reset(streamIdle)
		case <-s.done:
			return s.err
		}
	}
}

// endIdle ends s if nobody waits for a reply.
func (s *stream) endIdle() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.waiting) == 0 {
		s.endLocked(errIdle)
	}
	return s.err != nil
}

// read hands out the replies, framed as in RFC 7766, section 8, until the
// connection ends.
func (s *stream) read(r io.Reader) error {
	buffered := bufio.NewReader(r)
	for {
		var size [2]byte
		if _, err := io.ReadFull(buffered, size[:]); err != nil {
			return lost(err)
		}
		wire := make([]byte, binary.BigEndian.Uint16(size[:]))
		if _, err := io.ReadFull(buffered, wire); err != nil {
			return lost(err)
		}
		if len(wire) < headerSize {
			return errors.New("the server sends no messages")
		}
		s.deliver(wire)
	}
}

// lost makes the end of a stream the error that it is to who waits for more.
func lost(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errEnded
	}
	return err
}

// deliver hands wire to who waits for it. Nobody does when it is late, or a
// second reply.
func (s *stream) deliver(wire []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.received++
	id := binary.BigEndian.Uint16(wire)
	if reply := s.waiting[id]; reply != nil {
		select {
		case reply <- wire:
		default:
		}
	}
}
