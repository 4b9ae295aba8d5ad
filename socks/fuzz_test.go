package socks

import (
	"bytes"
	"io"
	"slices"
	"testing"
)

// stream is a client with nothing more to say than its input.
type stream struct {
	io.Reader
	bytes.Buffer
}

func (s *stream) Read(p []byte) (int, error) { return s.Reader.Read(p) }

// FuzzServer feeds a client's octets to the server's two parsers. A request
// that they take means the same when it is written again.
func FuzzServer(f *testing.F) {
	for _, tt := range transcripts {
		f.Add(unhex(f, tt.client))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		client := &stream{Reader: bytes.NewReader(in)}
		if greet(client) != nil {
			return
		}
		if !bytes.Equal(client.Bytes(), []byte{version, methodNone}) {
			t.Fatalf("answered % x", client.Bytes())
		}
		msg, err := readRequest(client)
		if err != nil {
			return
		}
		if len(msg) > 3+1+1+255+2 {
			t.Fatalf("a request of %d octets", len(msg))
		}
		_, dest, err := parseRequest(msg)
		if err != nil {
			if ReplyOf(err) == Succeeded {
				t.Fatalf("%v succeeds", err)
			}
			return
		}
		if !dest.IsValid() || dest.IsName() == dest.IP.IsValid() || dest.Port == 0 {
			t.Fatalf("took % x for %+v", msg, dest)
		}
		again, err := parseAddr(dest.AppendTo(nil))
		if err != nil || again != dest {
			t.Fatalf("%v became %v, %v", dest, again, err)
		}
	})
}

// FuzzReply feeds a server's octets to the client.
func FuzzReply(f *testing.F) {
	for _, s := range []string{
		"05 00 00 01 c0000207 0007 68656c6c6f", "05 00 00 03 01 62 0007", "05 05", "05 00 00 04 20010db8000000000000000000000001 01bb", "05 00 00 09", "04 5a",
	} {
		f.Add(unhex(f, s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		r := bytes.NewReader(in)
		msg, err := readReply(r)
		if err != nil {
			return
		}
		if !slices.Equal(msg, in[:len(in)-r.Len()]) {
			t.Fatalf("read % x", msg)
		}
		code, bound, err := parseReply(msg)
		if err == nil && code != Succeeded && bound.IsValid() {
			t.Fatalf("refusal with BND %v", bound)
		}
	})
}
