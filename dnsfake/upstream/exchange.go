package upstream

import (
	"bytes"
	"context"
	"crypto/rand"
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

// udpSize is the largest reply asked for over UDP, in octets: what fits every
// path without fragments (DNS flag day 2020; RFC 9715, section 3).
const udpSize = 1232

// headerSize is the length of a message's header in octets (RFC 1035, section
// 4.1.1).
const headerSize = 12

// errCase is a reply that echoes the name in another case than it was asked.
var errCase = errors.New("reply changes the case of the name")

// outcome is what came of one try.
type outcome struct {
	msg *dns.Msg
	err error
}

// ask asks the servers in turn: the next one when a server fails, or when none
// has answered for a while. The first definite reply wins; when there is none,
// a server's failure is returned rather than an error.
func (r *Resolver) ask(ctx context.Context, key question) (*dns.Msg, error) {
	servers, err := r.conf.Servers()
	if err != nil {
		return nil, err
	}
	if len(servers) == 0 {
		return nil, errNoServer
	}
	ctx, cancel := context.WithTimeoutCause(ctx, r.conf.Timeout, syscall.ETIMEDOUT)
	var tries sync.WaitGroup
	defer tries.Wait()
	defer cancel()

	outcomes := make(chan outcome)
	next := time.NewTimer(0)
	defer next.Stop()
	wait := r.conf.Retry
	var best outcome
	for asked, pending := 0, 0; ; {
		select {
		case <-next.C:
			server := servers[asked%len(servers)]
			tries.Go(func() {
				msg, err := r.try(ctx, server, key)
				select {
				case outcomes <- outcome{msg, err}:
				case <-ctx.Done():
				}
			})
			asked++
			pending++
			next.Reset(wait)
			if asked%len(servers) == 0 {
				wait *= 2
			}
		case o := <-outcomes:
			pending--
			if o.err == nil && definite(o.msg.Rcode) {
				return o.msg, nil
			}
			if best.msg == nil {
				best = o
			}
			if asked < len(servers) {
				next.Reset(0)
			} else if pending == 0 {
				return best.msg, best.err
			}
		case <-ctx.Done():
			if best.msg == nil && best.err == nil {
				best.err = fmt.Errorf("no answer from %v: %w", servers, context.Cause(ctx))
			}
			return best.msg, best.err
		}
	}
}

// try asks one server once, and more than once only to get over TCP or without
// EDNS what the server cannot give otherwise.
func (r *Resolver) try(ctx context.Context, server Server, key question) (*dns.Msg, error) {
	query := key.query()
	reply, err := r.send(ctx, server.Network, server, query)
	if err == nil && (reply.Rcode == dns.RcodeFormatError || reply.Rcode == dns.RcodeNotImplemented) {
		query.Extra = nil // a server from before EDNS (RFC 6891, section 7)
		reply, err = r.send(ctx, server.Network, server, query)
	}
	// A server that does not keep the case gives no protection against forgers
	// over UDP; a connection does.
	if server.Network == "udp" && (errors.Is(err, errCase) || err == nil && reply.Truncated) {
		reply, err = r.send(ctx, "tcp", server, query)
	}
	if err != nil {
		return nil, fmt.Errorf("asking %s: %w", server, err)
	}
	scrub(reply)
	return reply, nil
}

// query returns a message that asks key with an ID and a mix of upper and lower
// case that nobody can guess (RFC 5452, section 9).
func (q question) query() *dns.Msg {
	var secret [2 + 256/8]byte
	rand.Read(secret[:]) // never fails
	name := []byte(q.name)
	for i, c := range name {
		if 'a' <= c && c <= 'z' && secret[2+i/8%32]>>(i%8)&1 == 1 {
			name[i] = c - 'a' + 'A'
		}
	}
	m := &dns.Msg{Question: []dns.Question{{Name: string(name), Qtype: q.qtype, Qclass: q.qclass}}}
	m.Id = binary.BigEndian.Uint16(secret[:])
	m.RecursionDesired = true
	m.CheckingDisabled = q.cd
	m.SetEdns0(udpSize, q.do)
	return m
}

// send sends query on a socket of its own, so that the port is fresh and no
// other query's reply can arrive, and returns the reply that matches it.
func (r *Resolver) send(ctx context.Context, network string, server Server, query *dns.Msg) (*dns.Msg, error) {
	wire, err := query.Pack()
	if err != nil {
		return nil, fmt.Errorf("packing the query: %w", err)
	}
	dialer := net.Dialer{Control: r.conf.Control}
	conn, err := dialer.DialContext(ctx, network, server.Addr.String())
	if err != nil {
		return nil, cause(ctx, err)
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	var reply *dns.Msg
	if network == "udp" {
		reply, err = overUDP(conn, wire)
	} else {
		reply, err = overTCP(conn, wire)
	}
	return reply, cause(ctx, err)
}

// cause returns the reason for which ctx ended, if it did, instead of err.
func cause(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// overUDP waits until a reply to query comes. Whatever else comes is a late or
// a forged datagram, and no reason to stop waiting.
func overUDP(conn net.Conn, query []byte) (*dns.Msg, error) {
	if _, err := conn.Write(query); err != nil {
		return nil, err
	}
	var buf [4096]byte // more than asked for, from servers that do not listen
	for {
		n, err := conn.Read(buf[:])
		if err != nil {
			return nil, err
		}
		reply, err := match(buf[:n], query)
		if err == nil || errors.Is(err, errCase) {
			return reply, err
		}
	}
}

// overTCP exchanges query for a reply as RFC 7766, section 8 frames them.
func overTCP(conn net.Conn, query []byte) (*dns.Msg, error) {
	framed := binary.BigEndian.AppendUint16(nil, uint16(len(query)))
	if _, err := conn.Write(append(framed, query...)); err != nil {
		return nil, err
	}
	var size [2]byte
	if _, err := io.ReadFull(conn, size[:]); err != nil {
		return nil, err
	}
	buf := make([]byte, binary.BigEndian.Uint16(size[:]))
	if _, err := io.ReadFull(conn, buf); err != nil {
		return nil, err
	}
	reply, err := match(buf, query)
	if errors.Is(err, errCase) {
		err = nil
	}
	return reply, err
}

// match returns wire as a message if it is a reply to query: ID, QNAME, QTYPE
// and QCLASS are the same (RFC 5452, section 9.1). With errCase the message is
// valid too. It changes wire: the question becomes lower case, and with it all
// names that are compressed to it.
func match(wire, query []byte) (*dns.Msg, error) {
	end := headerSize
	for query[end] != 0 {
		end += 1 + int(query[end])
	}
	nameEnd, end := end+1, end+1+4
	if len(wire) < end || !bytes.Equal(wire[:2], query[:2]) || wire[2]&0xf8 != 0x80 || // QR and opcode
		!bytes.Equal(wire[4:6], query[4:6]) {
		return nil, errors.New("not a reply to this query")
	}
	var kept error
	if !bytes.Equal(wire[headerSize:end], query[headerSize:end]) {
		kept = errCase
	}
	lower(wire[headerSize:nameEnd])
	name := bytes.Clone(query[headerSize:nameEnd])
	lower(name)
	if !bytes.Equal(wire[headerSize:nameEnd], name) || !bytes.Equal(wire[nameEnd:end], query[nameEnd:end]) {
		return nil, errors.New("a reply to another question")
	}
	reply := new(dns.Msg)
	if err := reply.Unpack(wire); err != nil {
		return nil, err
	}
	return reply, kept
}

// lower makes a name in wire form lower case. The lengths of labels are less
// than 'A'.
func lower(name []byte) {
	for i, c := range name {
		if 'A' <= c && c <= 'Z' {
			name[i] = c + 'a' - 'A'
		}
	}
}
