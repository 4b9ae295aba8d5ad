package upstream

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/miekg/dns"
)

const (
	// udpSize is the largest reply asked for over UDP, in octets: what fits
	// every path without fragments (DNS flag day 2020; RFC 9715, section 3).
	udpSize = 1232
	// headerSize is the length of a message's header in octets (RFC 1035,
	// section 4.1.1).
	headerSize = 12
	// padBlock is what the length of a query is padded to a multiple of where
	// it is encrypted, in octets (RFC 8467, section 4.1).
	padBlock = 128
)

// question is all that an answer depends on.
type question struct {
	name   string // presentation form of RFC 1035, section 5.1, lower case, absolute
	qtype  uint16
	qclass uint16
	do, cd bool
}

func (q question) String() string { return q.name + " " + dns.Type(q.qtype).String() }

// query returns the wire form of a message that asks q with an ID and a mix of
// upper and lower case that nobody can guess (RFC 5452, section 9), and the name
// so spelled.
func (q question) query(edns, padded bool) (wire []byte, spelled string, err error) {
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
	if edns {
		m.SetEdns0(udpSize, q.do)
		if padded {
			padding := new(dns.EDNS0_PADDING)
			opt := m.IsEdns0()
			opt.Option = append(opt.Option, padding)
			padding.Padding = make([]byte, (padBlock-m.Len()%padBlock)%padBlock)
		}
	}
	if wire, err = m.Pack(); err != nil {
		return nil, "", fmt.Errorf("packing the query: %w", err)
	}
	return wire, string(name), nil
}

// errCase is a reply that echoes the name in another case than it was asked.
var errCase = errors.New("reply changes the case of the name")

// errMalformed is a reply to the query, of whose records some are none. Servers
// that only forward pass on what a zone's owner makes up.
var errMalformed = errors.New("malformed reply")

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
	if err := reply.Unpack(wire); err != nil && kept != nil {
		return nil, err // what a forger can do who has guessed the ID alone
	} else if err != nil {
		return nil, fmt.Errorf("%w: %w", errMalformed, err)
	}
	return reply, kept
}

// matchConnected is match for a connection, where the case of the name need not
// protect against forgers.
func matchConnected(wire, query []byte) (*dns.Msg, error) {
	reply, err := match(wire, query)
	if errors.Is(err, errCase) {
		err = nil
	}
	return reply, err
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
