package dnsfake

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/miekg/dns"

	"sixgate/dnsfake/upstream"
)

// raw builds a message from its header's flags and counts, and a body in which
// words are hex, or text when in quotes.
func raw(t testing.TB, flags uint16, counts [4]uint16, body ...string) []byte {
	t.Helper()
	wire := binary.BigEndian.AppendUint16([]byte{0x12, 0x34}, flags)
	for _, n := range counts {
		wire = binary.BigEndian.AppendUint16(wire, n)
	}
	for _, part := range body {
		if text, ok := strings.CutPrefix(part, "'"); ok {
			wire = append(wire, text...)
			continue
		}
		b, err := hex.DecodeString(strings.ReplaceAll(part, " ", ""))
		if err != nil {
			t.Fatal(err)
		}
		wire = append(wire, b...)
	}
	return wire
}

const (
	sixA    = "0373697807 6578616d706c65 00 0001 0001" // six.example. A IN
	optRR   = "00 0029 0500 00 00 0000 0000"
	badOPT  = "00 0029 0500 00 00 0000 0004 000f 0010" // an option longer than its record
	cookie7 = "00 0029 0500 00 00 0000 000b 000a 0007 01020304050607"
	cookie8 = "00 0029 0500 00 00 0000 000c 000a 0008 0102030405060708"
	optName = "0161 00 0029 0500 00 00 0000 0000"
	opt1    = "00 0029 0500 00 01 0000 0000" // EDNS version 1
)

// malformed are messages with the flags word and counts that the reply must
// have; "" is silence.
func malformed(t testing.TB) map[string]struct {
	wire []byte
	want string
} {
	one := [4]uint16{1}
	long := strings.Repeat("3f"+strings.Repeat("61", 63), 3)
	return map[string]struct {
		wire []byte
		want string
	}{
		"nothing":               {nil, ""},
		"11 octets":             {raw(t, 0x0100, one)[:11], ""},
		"a response":            {raw(t, 0x8100, one, sixA), ""},
		"no question":           {raw(t, 0x0100, [4]uint16{}), "8181 0 0 0 0"},
		"two questions":         {raw(t, 0x0100, [4]uint16{2}, sixA, sixA), "8181 0 0 0 0"},
		"65535 questions":       {raw(t, 0x0100, [4]uint16{65535}, sixA), "8181 0 0 0 0"},
		"header alone":          {raw(t, 0x0100, one), "8181 0 0 0 0"},
		"name alone":            {raw(t, 0x0110, one, sixA[:len(sixA)-10]), "8191 0 0 0 0"},
		"no class":              {raw(t, 0x0100, one, sixA[:len(sixA)-5]), "8181 0 0 0 0"},
		"name cut":              {raw(t, 0x0000, one, "0361"), "8081 0 0 0 0"},
		"pointer to itself":     {raw(t, 0x0100, one, "c00c 0001 0001"), "8181 0 0 0 0"},
		"pointer to the header": {raw(t, 0x0100, one, "c004 0001 0001"), "8181 0 0 0 0"},
		"pointer forward":       {raw(t, 0x0100, one, "c010 0001 0001"), "8181 0 0 0 0"},
		"label of 64":           {raw(t, 0x0100, one, "40", "'"+strings.Repeat("a", 64), "00 0001 0001"), "8181 0 0 0 0"},
		"name of 256":           {raw(t, 0x0100, one, long+"3e"+strings.Repeat("61", 62)+"00 0001 0001"), "8181 0 0 0 0"},
		"counts that lie":       {raw(t, 0x0100, [4]uint16{1, 0, 0, 1}, sixA), "8181 0 0 0 0"},
		"two OPT":               {raw(t, 0x0100, [4]uint16{1, 0, 0, 2}, sixA, optRR, optRR), "8181 0 0 0 1"},
		"OPT with a name":       {raw(t, 0x0100, [4]uint16{1, 0, 0, 1}, sixA, optName), "8181 0 0 0 0"},
		"OPT as an answer":      {raw(t, 0x0100, [4]uint16{1, 1, 0, 0}, sixA, optRR), "8181 0 0 0 0"},
		"OPT cut":               {raw(t, 0x0100, [4]uint16{1, 0, 0, 1}, sixA, badOPT), "8181 0 0 0 0"},
		"short cookie":          {raw(t, 0x0100, [4]uint16{1, 0, 0, 1}, sixA, cookie7), "8181 0 0 0 0"},
		"client cookie":         {raw(t, 0x0100, [4]uint16{1, 0, 0, 1}, sixA, cookie8), "8180 1 1 0 1"},
		"EDNS 1":                {raw(t, 0x0100, [4]uint16{1, 0, 0, 1}, sixA, opt1), "8180 1 0 0 1"},
		"trailing octets":       {raw(t, 0x0100, one, sixA, "00ff"), "8180 1 1 0 0"},
		"Z, AA, TC and AD set":  {raw(t, 0x0760, one, sixA), "8180 1 1 0 0"},
		"IQUERY":                {raw(t, 0x0900, one, sixA), "8984 1 0 0 0"},
		"STATUS":                {raw(t, 0x1000, [4]uint16{}), "9084 0 0 0 0"},
		"NOTIFY":                {raw(t, 0x2000, one, sixA), "a084 1 0 0 0"},
		"UPDATE":                {raw(t, 0x2800, one, sixA), "a884 1 0 0 0"},
		"DSO":                   {raw(t, 0x3000, [4]uint16{}), "b084 0 0 0 0"},
		"opcode 15":             {raw(t, 0x7800, one, sixA), "f884 1 0 0 0"},
	}
}

func TestMessages(t *testing.T) {
	s := server(t, serve(t, testZone), Config{Clients: clients("4")})
	for name, c := range malformed(t) {
		t.Run(name, func(t *testing.T) {
			got := ""
			if reply := s.Reply(t.Context(), c.wire, testClient, false); reply != nil {
				got = fmt.Sprintf("%x %d %d %d %d", reply[2:4], reply[5], reply[7], reply[9], reply[11])
				if !bytes.Equal(reply[:2], c.wire[:2]) {
					t.Errorf("ID %x", reply[:2])
				}
			}
			if got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
}

// TestNamesAreOctets has questions come back bit by bit, whatever is in them.
func TestNamesAreOctets(t *testing.T) {
	up := serve(t, testZone)
	table := table(t, "198.18.0.0/15", "2001:2::/48", nil)
	s := server(t, up, Config{Table: table, Clients: clients("4")})
	label := strings.Repeat("61", 63)
	for name, wire := range map[string]string{
		"mixed case":       "0353495807 4578614d506c65 00",
		"dot in a label":   "03612e62 07 6578616d706c65 00",
		"NUL, space, 0xff": "050020ff2a5f 07 6578616d706c65 00",
		"root":             "00",
		"255 octets":       strings.Repeat("3f"+label, 3) + "3d" + label[:122] + "00",
	} {
		t.Run(name, func(t *testing.T) {
			q := raw(t, 0x0100, [4]uint16{1}, wire, "0001 0001")
			reply := s.Reply(t.Context(), q, testClient, false)
			if len(reply) < len(q) || !bytes.Equal(reply[12:len(q)], q[12:]) {
				t.Errorf("question %x\n came back %x", q[12:], reply)
			}
			if code := reply[3] & 15; code != dns.RcodeSuccess && code != dns.RcodeNameError {
				t.Errorf("RCODE %d", code)
			}
		})
	}
}

func TestWhoIsNotServed(t *testing.T) {
	s := server(t, serve(t, testZone), Config{Clients: clients("")})
	q, err := query("six.example.", "A").Pack()
	if err != nil {
		t.Fatal(err)
	}
	if reply := s.Reply(t.Context(), q, testClient, false); reply != nil || s.Counters().Dropped != 1 {
		t.Errorf("reply %x, counters %+v", reply, s.Counters())
	}
}

func TestSizes(t *testing.T) {
	big := testSOA
	for i := range 40 { // some 40 x 112 octets
		big += fmt.Sprintf("\nbig.example. 60 TXT %02d%s", i, strings.Repeat("x", 98))
	}
	s := server(t, serve(t, big), Config{})
	for _, c := range []struct {
		edns   uint16 // 0: none
		stream bool
		size   int
		whole  bool
	}{
		{0, false, 512, false},
		{100, false, 512, false},
		{1232, false, 1232, false},
		{65535, false, 1232, false},
		{0, true, 65535, true},
		{1232, true, 65535, true},
	} {
		q := query("big.example.", "TXT")
		if c.edns > 0 {
			q.SetEdns0(c.edns, true)
		}
		wire, err := q.Pack()
		if err != nil {
			t.Fatal(err)
		}
		reply := s.Reply(t.Context(), wire, testClient, c.stream)
		m := new(dns.Msg)
		if err := m.Unpack(reply); err != nil {
			t.Fatal(err)
		}
		if len(reply) > c.size || m.Truncated == c.whole || (len(m.Answer) == 40) != c.whole || (len(m.Answer) == 0) == c.whole {
			t.Errorf("%+v: %d octets, TC %v, %d answers", c, len(reply), m.Truncated, len(m.Answer))
		}
		if opt := m.IsEdns0(); c.edns > 0 && (opt == nil || opt.UDPSize() != 1232 || !opt.Do() || opt.Version() != 0) {
			t.Errorf("%+v: OPT %v", c, opt)
		}
	}
}

// TestLongReasons has upstream explain a failure at length.
func TestLongReasons(t *testing.T) {
	up := serve(t, testZone)
	label := strings.Repeat("a", 63)
	name := strings.Repeat(label+".", 3) + label[:61] + "." // 255 octets
	for _, text := range []string{strings.Repeat("x", 1000), strings.Repeat("é", 500), strings.Repeat("\xff", 900)} {
		up.on(name+" TXT", func(m *dns.Msg) bool {
			m.Rcode = dns.RcodeServerFailure
			m.SetEdns0(1232, false)
			m.IsEdns0().Option = []dns.EDNS0{&dns.EDNS0_EDE{InfoCode: dns.ExtendedErrorCodeDNSBogus, ExtraText: text}}
			return true
		})
		s := server(t, up, Config{})
		wire, err := query(name, "TXT").SetEdns0(512, false).Pack()
		if err != nil {
			t.Fatal(err)
		}
		reply := s.Reply(t.Context(), wire, testClient, false)
		var m dns.Msg
		if err := m.Unpack(reply); err != nil || len(reply) > plainSize || m.Truncated {
			t.Fatalf("%d octets: %v, %v", len(reply), &m, err)
		}
		told := upstream.ExtendedError(&m)
		if told == nil || told.InfoCode != dns.ExtendedErrorCodeDNSBogus || !strings.HasPrefix(text, told.ExtraText) ||
			utf8.ValidString(text) != utf8.ValidString(told.ExtraText) {
			t.Errorf("told %v", told)
		}
	}
}

func FuzzReply(f *testing.F) {
	for _, c := range malformed(f) {
		f.Add(c.wire)
	}
	for _, rr := range []string{"A", "AAAA", "HTTPS", "ANY", "PTR", "TXT"} {
		q := query("six.example.", rr)
		q.SetEdns0(4096, true)
		wire, err := q.Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(wire)
	}
	s, err := New(Config{
		Table:    table(f, "198.18.0.0/15", "2001:2::/48", nil),
		Resolver: everything{},
		Always:   func() Families { return Families{true, true} },
	})
	if err != nil {
		f.Fatal(err)
	}
	client := netip.MustParseAddrPort("[::1]:53") // which may ask without end
	f.Fuzz(func(t *testing.T, wire []byte) {
		for _, stream := range []bool{false, true} {
			reply := s.Reply(t.Context(), wire, client, stream)
			if reply == nil {
				if len(wire) >= 12 && wire[2]&0x80 == 0 {
					t.Error("no reply to a query")
				}
				continue
			}
			if !stream && len(reply) > udpSize {
				t.Errorf("%d octets over UDP", len(reply))
			}
			var m dns.Msg
			if err := m.Unpack(reply); err != nil || !m.Response || m.Id != binary.BigEndian.Uint16(wire) {
				t.Errorf("reply %x: %v", reply, err)
			}
			if m.Opcode == dns.OpcodeQuery && len(m.Question) == 1 {
				end := 12 + bytes.IndexByte(wire[12:], 0) // not past the question
				if !bytes.HasPrefix(reply[12:], wire[12:end]) {
					t.Errorf("question of %x came back as %x", wire, reply)
				}
			}
		}
	})
}
