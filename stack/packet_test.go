package stack

import (
	"encoding/hex"
	"strings"
	"testing"

	"gvisor.dev/gvisor/pkg/tcpip/header"
)

// Headers from 192.0.2.2 to 198.18.0.7 and from 2001:db8::2 to 2001:2::7.
const (
	ends4 = "c0000202 c6120007"
	ends6 = "20010db8000000000000000000000002 20010002000000000000000000000007"
)

func TestParsePacket(t *testing.T) {
	tests := []struct {
		name, packet string
		ok           bool
		transport    uint8
		payload      int // bytes; -1 is nil
		echo, syn    bool
	}{
		{"empty", "", false, 0, 0, false, false},
		{"version 5", "55000014 00000000 40010000" + ends4, false, 0, 0, false, false},
		{"IPv4 cut in the header", "45000014 00000000 4001", false, 0, 0, false, false},
		{"IPv4 shorter than its length", "45000015 00000000 40010000" + ends4, false, 0, 0, false, false},
		{"IPv4 length below the header's", "45000013 00000000 40010000" + ends4, false, 0, 0, false, false},
		{"IPv4 header of 16", "44000014 00000000 40010000" + ends4, false, 0, 0, false, false},
		{"IPv4 without payload", "45000014 00000000 40010000" + ends4, true, 1, 0, false, false},
		{"IPv4 with padding behind", "45000014 00000000 40010000" + ends4 + "08", true, 1, 0, false, false},
		{"IPv4 ping", "45000015 00000000 40010000" + ends4 + "08", true, 1, 1, true, false},
		{"IPv4 ping with options", "46000019 00000000 40010000" + ends4 + "01010101 08", true, 1, 1, true, false},
		{"IPv4 pong", "45000015 00000000 40010000" + ends4 + "00", true, 1, 1, false, false},
		{"IPv4 later fragment", "45000015 00000001 40010000" + ends4 + "08", true, 1, -1, false, false},
		{"IPv4 type 8 in UDP", "45000015 00000000 40110000" + ends4 + "08", true, 17, 1, false, false},
		{"SYN", "45000028 00000000 40060000" + ends4 + "03e80050 00000001 00000000 5002ffff 00000000", true, 6, 20, false, true},
		{"SYN and ACK", "45000028 00000000 40060000" + ends4 + "03e80050 00000001 00000000 5012ffff 00000000", true, 6, 20, false, false},
		{"SYN with ECN flags", "45000028 00000000 40060000" + ends4 + "03e80050 00000001 00000000 50c2ffff 00000000", true, 6, 20, false, true},
		{"SYN cut", "45000027 00000000 40060000" + ends4 + "03e80050 00000001 00000000 5002ffff 000000", true, 6, 19, false, false},
		{"IPv6 cut in the header", "60000000 00003a40" + ends6[:30], false, 0, 0, false, false},
		{"IPv6 shorter than its length", "60000000 00013a40" + ends6, false, 0, 0, false, false},
		{"IPv6 ping", "60000000 00013a40" + ends6 + "80", true, 58, 1, true, false},
		{"IPv6 pong", "60000000 00013a40" + ends6 + "81", true, 58, 1, false, false},
		{"IPv6 ping after two headers", "60000000 00190040" + ends6 + "3c00010400000000 3a01010c00000000 0000000000000000 80", true, 58, 1, true, false},
		{"IPv6 first fragment", "60000000 00092c40" + ends6 + "3a00000100000001 80", true, 58, 1, true, false},
		{"IPv6 later fragment", "60000000 00092c40" + ends6 + "3a00000900000001 80", true, 58, -1, false, false},
		{"IPv6 extension cut", "60000000 00090040" + ends6 + "3a01010400000000 80", true, 0, -1, false, false},
		{"IPv6 nothing next", "60000000 00003b40" + ends6, true, 59, 0, false, false},
	}
	for _, test := range tests {
		b, err := hex.DecodeString(strings.ReplaceAll(test.packet, " ", ""))
		if err != nil {
			t.Fatalf("%s: %v", test.name, err)
		}
		p, ok := parsePacket(b)
		if ok != test.ok {
			t.Errorf("%s: ok is %t", test.name, ok)
			continue
		}
		if !ok {
			continue
		}
		if uint8(p.transport) != test.transport || len(p.payload) != max(test.payload, 0) || (p.payload == nil) != (test.payload < 0) {
			t.Errorf("%s: transport %d, payload % x", test.name, p.transport, p.payload)
		}
		if p.isEchoRequest() != test.echo || p.isSYN() != test.syn {
			t.Errorf("%s: echo %t, SYN %t", test.name, p.isEchoRequest(), p.isSYN())
		}
		if six := p.network == header.IPv6ProtocolNumber; six != (b[0]>>4 == 6) {
			t.Errorf("%s: network %d", test.name, p.network)
		}
	}
}

func FuzzParsePacket(f *testing.F) {
	for _, s := range []string{"", "45000015000000004001000008", "6000000000090040"} {
		b, _ := hex.DecodeString(s)
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		p, ok := parsePacket(b)
		if !ok {
			return
		}
		if len(p.payload) > len(b) || p.isSYN() && p.isEchoRequest() {
			t.Errorf("%+v", p)
		}
	})
}
