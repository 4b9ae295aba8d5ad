package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// The server's ports.
const (
	echoPort    = 7  // RFC 862
	discardPort = 9  // RFC 863, but says every so often how much has come
	chargenPort = 19 // RFC 864, but its characters are zeros
	digestPort  = 99 // see digest
	dnsPort     = 53 // all names are the server's
)

const (
	// block is what one read or write of a bulk stream may carry.
	block = 128 << 10
	// tally is how often the discard server says how much has come, as eight
	// bytes, big endian. It is also how wrong that figure may be at the end.
	tally = 20 * time.Millisecond
)

// serve is the server until ctx ends. It prints a line when it is ready.
func serve(ctx context.Context, _ []string) error {
	for port, answer := range map[int]func(*net.TCPConn) error{
		echoPort: echo, discardPort: discard, chargenPort: chargen, digestPort: digest,
	} {
		listener, err := net.ListenTCP("tcp", &net.TCPAddr{Port: port})
		if err != nil {
			return err
		}
		go accept(listener, answer)
	}
	if err := serveDatagrams(); err != nil {
		return err
	}
	names, err := net.ListenUDP("udp4", &net.UDPAddr{Port: dnsPort})
	if err != nil {
		return err
	}
	go answerNames(names)
	fmt.Println("ready")
	<-ctx.Done()
	return nil
}

// accept serves each connection until it ends. The error of one that a client
// has cut off is of no interest: the load says what went wrong.
func accept(listener *net.TCPListener, answer func(*net.TCPConn) error) {
	for {
		conn, err := listener.AcceptTCP()
		if errors.Is(err, net.ErrClosed) {
			return
		} else if err != nil {
			time.Sleep(tally) // no descriptor left
			continue
		}
		go func() {
			defer conn.Close()
			answer(conn)
		}()
	}
}

func echo(conn *net.TCPConn) error {
	buf := make([]byte, 512)
	for {
		n, err := conn.Read(buf)
		if err != nil {
			return err
		}
		if _, err := conn.Write(buf[:n]); err != nil {
			return err
		}
	}
}

func discard(conn *net.TCPConn) error {
	buf := make([]byte, block)
	var count uint64
	for due := time.Now(); ; {
		n, err := conn.Read(buf)
		if err != nil {
			return err
		}
		count += uint64(n)
		if now := time.Now(); now.After(due) {
			due = now.Add(tally)
			if _, err := conn.Write(binary.BigEndian.AppendUint64(nil, count)); err != nil {
				return err
			}
		}
	}
}

func chargen(conn *net.TCPConn) error {
	buf := make([]byte, block)
	for {
		if _, err := conn.Write(buf); err != nil {
			return err
		}
	}
}

func answerNames(conn *net.UDPConn) {
	buf := make([]byte, 1500)
	for {
		n, from, err := conn.ReadFromUDPAddrPort(buf)
		if err != nil {
			return
		}
		if reply, err := answerName(buf[:n]); err == nil {
			conn.WriteToUDPAddrPort(reply, from) // a lost answer is asked for again
		}
	}
}

// answerName answers a DNS query: serverName6 has the server's IPv6 address, any
// other name its IPv4 address, and none has anything else.
func answerName(query []byte) ([]byte, error) {
	var parser dnsmessage.Parser
	header, err := parser.Start(query)
	if err != nil {
		return nil, err
	}
	question, err := parser.Question()
	if err != nil {
		return nil, err
	}
	reply := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: header.ID, Response: true, RecursionDesired: header.RecursionDesired, RecursionAvailable: true},
		Questions: []dnsmessage.Question{question},
	}
	answer := dnsmessage.ResourceHeader{Name: question.Name, Class: dnsmessage.ClassINET, TTL: 60}
	switch six := question.Name.String() == serverName6+"."; {
	case six && question.Type == dnsmessage.TypeAAAA:
		reply.Answers = []dnsmessage.Resource{{Header: answer, Body: &dnsmessage.AAAAResource{AAAA: netip.MustParseAddr(serverAddr6).As16()}}}
	case !six && question.Type == dnsmessage.TypeA:
		reply.Answers = []dnsmessage.Resource{{Header: answer, Body: &dnsmessage.AResource{A: netip.MustParseAddr(serverAddr).As4()}}}
	}
	return reply.Pack()
}
