package socks

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"sixgate/socks/datagram"
)

// wrapped returns datagrams with headers, each "ADDRESS PAYLOAD", or, without an
// address, as it is.
func wrapped(t *testing.T, texts ...string) []byte {
	t.Helper()
	var all []byte
	for _, text := range texts {
		to, payload, good := strings.Cut(text, " ")
		if !good {
			all = append(all, text...)
			continue
		}
		addr, err := ParseAddr(to)
		if err != nil {
			t.Fatal(err)
		}
		all = AppendDatagram(all, addr, []byte(payload))
	}
	return all
}

func TestEachUnwrapped(t *testing.T) {
	const one, other, name = "192.0.2.1:53 ", "192.0.2.2:53 ", "a.test:53 "
	header := len(wrapped(t, one))
	for _, tt := range []struct {
		what string
		b    datagram.Batch
		want []string
	}{
		{"one", datagram.Batch{Payload: wrapped(t, one+"aaa")}, []string{one + "aaa/0"}},
		{"an empty one", datagram.Batch{Payload: wrapped(t, one)}, []string{one + "/0"}},
		{"a name", datagram.Batch{Payload: wrapped(t, name+"aaa")}, []string{name + "aaa/0"}},
		{"a row", datagram.Batch{Payload: wrapped(t, one+"aaa", one+"bbb", one+"c"), Size: header + 3}, []string{one + "aaabbbc/3"}},
		{"empty ones", datagram.Batch{Payload: wrapped(t, one, one), Size: header}, []string{one + "/0", one + "/0"}},
		{"several destinations", datagram.Batch{Payload: wrapped(t, one+"aaa", one+"bbb", other+"ccc", one+"ddd"), Size: header + 3},
			[]string{one + "aaabbb/3", other + "ccc/0", one + "ddd/0"}},
		// A header of another length leaves another payload in datagrams of one size.
		{"several lengths", datagram.Batch{Payload: wrapped(t, one+"aaaaaaaa", name+"bbbbb", one+"cccccccc"), Size: header + 8},
			[]string{one + "aaaaaaaa/0", name + "bbbbb/0", one + "cccccccc/0"}},
		{"malformed ones between", datagram.Batch{Payload: wrapped(t, one+"aaa", strings.Repeat("x", header+3), one+"bbb"), Size: header + 3},
			[]string{one + "aaabbb/3"}},
		{"malformed ones alone", datagram.Batch{Payload: []byte("xxxx"), Size: 2}, nil},
		{"more than the kernel takes", datagram.Batch{Payload: wrapped(t, slices.Repeat([]string{one + "a"}, datagram.MaxBatch+2)...), Size: header + 1},
			[]string{one + strings.Repeat("a", datagram.MaxBatch) + "/1", one + "aa/1"}},
	} {
		var got []string
		EachUnwrapped(tt.b, func(b datagram.Batch, addr Addr) {
			got = append(got, fmt.Sprintf("%s %s/%d", addr, b.Payload, b.Size))
		})
		if !slices.Equal(got, tt.want) {
			t.Errorf("%s: got %q, want %q", tt.what, got, tt.want)
		}
	}
}

// FuzzEachUnwrapped wants of many datagrams at a time what each by itself is.
func FuzzEachUnwrapped(f *testing.F) {
	const header = "\x00\x00\x00\x01\xc0\x00\x02\x01\x00\x35"
	f.Add([]byte(header+"aaa"+header+"bbb"+header+"c"), 13)
	f.Add([]byte(header+"aaaaa"+"\x00\x00\x00\x03\x01a\x00\x35bbbbbbb"+header), 15)
	f.Add([]byte(header+"\x00\x00\x01"), 10)
	f.Fuzz(func(t *testing.T, payload []byte, size int) {
		if size < 0 {
			return
		}
		var want, got []string
		for one := range (datagram.Batch{Payload: payload, Size: size}).Each {
			if addr, payload, err := ParseDatagram(one.Payload); err == nil {
				want = append(want, fmt.Sprintf("%s %x", addr, payload))
			}
		}
		EachUnwrapped(datagram.Batch{Payload: bytes.Clone(payload), Size: size}, func(b datagram.Batch, addr Addr) {
			count := 0
			for one := range b.Each {
				got = append(got, fmt.Sprintf("%s %x", addr, one.Payload))
				count++
			}
			if count > datagram.MaxBatch {
				t.Errorf("%d datagrams in a batch", count)
			}
		})
		if !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	})
}

// What is wrapped is unwrapped as it was, in batches that the kernel takes.
func TestEachWrapped(t *testing.T) {
	addr, err := ParseAddr("[2001:db8::1]:53")
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ length, size, batches int }{
		{0, 0, 1}, {3, 0, 1}, {65000, 0, 1}, {10, 3, 1}, {64, 1, 1}, {130, 1, 3}, {65000, 1400, 2}, {65487, 40000, 2},
	} {
		payload := make([]byte, tt.length)
		for i := range payload {
			payload[i] = byte(i % 251)
		}
		var back []byte
		batches := 0
		err := EachWrapped(datagram.Batch{Payload: payload, Size: tt.size}, addr, func(b datagram.Batch) error {
			batches++
			if len(b.Payload) > datagram.MaxJoined {
				t.Errorf("%+v: %d octets in a batch", tt, len(b.Payload))
			}
			EachUnwrapped(b, func(b datagram.Batch, got Addr) {
				if got != addr || b.Size != tt.size && len(b.Payload) > tt.size && tt.size > 0 {
					t.Errorf("%+v: %s, %d octets of %d", tt, got, len(b.Payload), b.Size)
				}
				back = append(back, b.Payload...)
			})
			return nil
		})
		if err != nil || !bytes.Equal(back, payload) || batches != tt.batches {
			t.Errorf("%+v: %d octets in %d batches, %v", tt, len(back), batches, err)
		}
	}
	why := errors.New("why")
	if err := EachWrapped(datagram.Batch{}, addr, func(datagram.Batch) error { return why }); err != why {
		t.Errorf("got %v, want the error of sending", err)
	}
}
