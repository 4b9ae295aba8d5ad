package main

import (
	"context"
	"fmt"
	"io"
	"math"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// TestMain lets the test's binary be the parts of the bench.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && !strings.HasPrefix(os.Args[1], "-") {
		main()
		return
	}
	os.Exit(m.Run())
}

func TestPercentileIsTheNearestRank(t *testing.T) {
	hundred := make([]int, 100)
	for i := range hundred {
		hundred[i] = 100 - i
	}
	for _, test := range []struct {
		values []int
		p      float64
		want   int
	}{
		{[]int{7}, 50, 7},
		{[]int{7}, 99, 7},
		{[]int{3, 1, 2}, 50, 2},
		{[]int{4, 3, 2, 1}, 50, 2},
		{[]int{2, 1}, 0, 1},
		{hundred, 50, 50},
		{hundred, 99, 99},
		{hundred, 100, 100},
	} {
		if got := percentile(slices.Clone(test.values), test.p); got != test.want {
			t.Errorf("percentile %v of %v: got %d, want %d", test.p, test.values, got, test.want)
		}
	}
}

func TestSpread(t *testing.T) {
	nan := math.NaN()
	for _, test := range []struct {
		values []float64
		want   spread
		ok     bool
	}{
		{nil, spread{}, false},
		{[]float64{nan}, spread{}, false},
		{[]float64{2}, spread{2, 2, 2}, true},
		{[]float64{3, 1}, spread{2, 1, 3}, true},
		{[]float64{9, 1, 4}, spread{4, 1, 9}, true},
		{[]float64{9, nan, 1, 4, math.Inf(1)}, spread{4, 1, 9}, true},
	} {
		if got, ok := spreadOf(test.values); got != test.want || ok != test.ok {
			t.Errorf("spread of %v: got %+v, %v, want %+v, %v", test.values, got, ok, test.want, test.ok)
		}
	}
}

func TestParseMachine(t *testing.T) {
	got, err := parseMachine([]byte("cpu  1000 50 300 9999 77 20 30 5 0 0\ncpu0 1 2 3 4 5 6 7 8 0 0\n"))
	if want := (usage{user: 10.5, system: 3.5}); got != want || err != nil {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
	for _, text := range []string{"", "cpu0 1 2 3 4 5 6 7 8\n", "cpu 1 2 3\n", "cpu  a 50 300 9999 77 20 30 5\n"} {
		if got, err := parseMachine([]byte(text)); err == nil {
			t.Errorf("%q: got %+v, want an error", text, got)
		}
	}
}

func TestParseProcess(t *testing.T) {
	const rest = " S 1 4242 4242 0 -1 4194560 100 0 0 0 250 75 0 0 20 0 9 0 12345 1000000 512 18446744073709551615 1 1 0"
	page := float64(os.Getpagesize())
	for _, name := range []string{"(sixgate)", "(a b)", "(x) S 1 7)", "()"} {
		group, used, err := parseProcess([]byte("4243 " + name + rest))
		if want := (usage{user: 2.5, system: 0.75, rss: 512 * page}); group != 4242 || used != want || err != nil {
			t.Errorf("%s: got %d, %+v, %v, want 4242, %+v", name, group, used, err, want)
		}
	}
	for _, text := range []string{"", "1 (x) S 1 2", "1 (x)" + strings.Replace(rest, "250", "x", 1)} {
		if _, used, err := parseProcess([]byte(text)); err == nil {
			t.Errorf("%q: got %+v, want an error", text, used)
		}
	}
}

func TestChoose(t *testing.T) {
	all := []string{"on/1-up", "on/8-down", "off/1-up", "request"}
	for patterns, want := range map[string][]string{
		"*":             all,
		"on/*":          {"on/1-up", "on/8-down"},
		"*/1-up":        {"on/1-up", "off/1-up"},
		"request,on/1*": {"on/1-up", "request"},
		"nobody":        {},
	} {
		if got := choose(slices.Clone(all), patterns, func(s string) string { return s }); !slices.Equal(got, want) {
			t.Errorf("%s: got %q, want %q", patterns, got, want)
		}
	}
}

func TestParsePeer(t *testing.T) {
	peer, err := parsePeer("other-1.0=other --device={tun} -i {wan}")
	if err != nil || peer.name != "other-1.0" || peer.about != "other --device=tun0 -i wan0" {
		t.Errorf("got %+v, %v", peer, err)
	}
	for _, text := range []string{"", "name", "name=", "=command", "a/b=command", "name= "} {
		if peer, err := parsePeer(text); err == nil {
			t.Errorf("%q: got %+v, want an error", text, peer)
		}
	}
}

func TestNamesAreUnique(t *testing.T) {
	seen := map[string]bool{}
	for _, s := range append(scenarios(), transfers()...) {
		if seen[s.name] {
			t.Errorf("two scenarios are called %s", s.name)
		}
		seen[s.name] = true
	}
	for _, c := range new(bench).builtin() {
		if seen[c.name] {
			t.Errorf("two things are called %s", c.name)
		}
		seen[c.name] = true
	}
}

func TestServerAnswersItsNames(t *testing.T) {
	for _, test := range []struct {
		name  string
		qtype dnsmessage.Type
		want  string
	}{
		{serverName, dnsmessage.TypeA, serverAddr}, {serverName, dnsmessage.TypeAAAA, ""}, {serverName, dnsmessage.TypeHTTPS, ""},
		{serverName6, dnsmessage.TypeA, ""}, {serverName6, dnsmessage.TypeAAAA, serverAddr6}, {serverName6, dnsmessage.TypeHTTPS, ""},
	} {
		query := dnsmessage.Message{
			Header:    dnsmessage.Header{ID: 77, RecursionDesired: true},
			Questions: []dnsmessage.Question{{Name: dnsmessage.MustNewName(test.name + "."), Type: test.qtype, Class: dnsmessage.ClassINET}},
		}
		packed, err := query.Pack()
		if err != nil {
			t.Fatal(err)
		}
		text, err := answerName(packed)
		if err != nil {
			t.Fatal(err)
		}
		var reply dnsmessage.Message
		if err := reply.Unpack(text); err != nil {
			t.Fatal(err)
		}
		var got string
		for _, answer := range reply.Answers {
			switch body := answer.Body.(type) {
			case *dnsmessage.AResource:
				got += netip.AddrFrom4(body.A).String()
			case *dnsmessage.AAAAResource:
				got += netip.AddrFrom16(body.AAAA).String()
			}
		}
		if reply.ID != 77 || !reply.Response || got != test.want {
			t.Errorf("%s, %v: got %+v, want %q", test.name, test.qtype, reply, test.want)
		}
	}
	if reply, err := answerName([]byte{1, 2, 3}); err == nil {
		t.Errorf("a truncated query: got %x, want an error", reply)
	}
}

func TestFigure(t *testing.T) {
	for x, want := range map[float64]string{0: "0", 0.125: "0.12", 1.005: "1.00", 12.34: "12.3", 123.4: "123", -12.34: "-12.3", 54321: "54321"} {
		if got := figure(x); got != want {
			t.Errorf("%v: got %s, want %s", x, got, want)
		}
	}
}

func TestTable(t *testing.T) {
	rows := &table{"Loads", []measure{
		{"speed", func(r reading) float64 { return r.Bytes }, timesSplice},
		{"delay", func(r reading) float64 { return r.P50 }, overKernel},
		{"memory", func(r reading) float64 { return r.after.rss() }, nothing},
	}}
	s := scenario{name: "one", table: rows}
	r := &report{scenarios: []scenario{s}}
	figures := map[string][]done{
		"kernel": {{Bytes: 30, P50: 1}, {Bytes: 50, P50: 1}},
		"splice": {{Bytes: 20, P50: 3}, {Bytes: 20, P50: 3}},
		"broken": nil,
	}
	for _, name := range []string{"kernel", "splice", "broken"} {
		c := contestant{name: name}
		r.contestants = append(r.contestants, c)
		for round, d := range figures[name] {
			r.add(s, c, round, reading{done: d}, nil)
		}
	}
	r.add(s, r.contestants[2], 1, reading{}, fmt.Errorf("no"))
	const want = `
| scenario | contestant | speed             | x splice | delay | - kernel | memory |
|----------|------------|-------------------|----------|-------|----------|--------|
| one      | kernel     | 40.0 (30.0-50.0)  | 2.00     | 1.00  | 0        | -      |
| one      | splice     | 20.0              | 1.00     | 3.00  | 2.00     | -      |
| one      | broken     | -                 | -        | -     | -        | -      |
`
	fields := func(s string) string {
		return strings.Join(strings.FieldsFunc(s, func(r rune) bool { return r == ' ' || r == '-' }), "")
	}
	if got := r.markdown(rows); fields(got) != fields(strings.TrimPrefix(want, "\n")) {
		t.Errorf("got\n%swant%s", got, want)
	}
	if got := r.troubles(); !strings.Contains(got, "one, broken: 1 runs went wrong, the last by no\n") {
		t.Errorf("got %s", got)
	}
}

func TestRunsInNamespacesOfItsOwn(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("not root: makes network namespaces")
	}
	if _, err := os.Stat("/dev/net/tun"); err != nil {
		t.Skip("a long cable needs a TUN device: ", err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{self: self, seconds: time.Second}
	contestants := choose(b.builtin(), "kernel,splice", func(c contestant) string { return c.name })
	for _, s := range choose(scenarios(), "off/8-up,on/1-down,connections,request,idle/1000,far/lan-down", func(s scenario) string { return s.name }) {
		for _, c := range contestants {
			got, err := b.once(context.Background(), s, c)
			if err != nil {
				t.Errorf("%s, %s: %v", s.name, c.name, err)
			} else if s.load != "idle" && got.Bytes == 0 && got.Exchanges == 0 {
				t.Errorf("%s, %s: did nothing: %+v", s.name, c.name, got)
			}
		}
	}
	if left, err := filepath.Glob(fmt.Sprintf("/run/netns/bench%d-*", os.Getpid())); len(left) > 0 || err != nil {
		t.Errorf("left behind: %q, %v", left, err)
	}
}

// TestTransfersAreWhole runs the gateway as it is built, over links that cut and
// join packets in all ways.
func TestTransfersAreWhole(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("not root: makes network namespaces")
	}
	if _, err := os.Stat("/dev/net/tun"); err != nil {
		t.Skip("sixgate needs a TUN device: ", err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{self: self, sixgate: filepath.Join(t.TempDir(), "sixgate")}
	if out, err := exec.Command("go", "build", "-buildvcs=false", "-o", b.sixgate, "sixgate/cmd/sixgate").CombinedOutput(); err != nil {
		t.Fatalf("building sixgate: %v\n%s", err, out)
	}
	for _, pair := range [][2]string{
		{"sixgate", "whole/on-6-up"}, {"sixgate", "whole/nogro-4-down"}, {"sixgate", "whole/off-6-down"},
		{"sixgate-handover", "whole/nogro-6-up"},
	} {
		c := choose(b.builtin(), pair[0], func(c contestant) string { return c.name })[0]
		s := choose(transfers(), pair[1], func(s scenario) string { return s.name })[0]
		s.n = 8
		got, err := b.once(t.Context(), s, c)
		if err != nil {
			t.Errorf("%s, %s: %v", s.name, c.name, err)
		} else if want := float64(s.n << 20); got.Bytes != want {
			t.Errorf("%s, %s: carried %v bytes, want %v", s.name, c.name, got.Bytes, want)
		}
	}
}

func TestTransferComparesDigests(t *testing.T) {
	mine := []byte("what was sent")
	for theirs, ok := range map[string]bool{string(mine): true, "what came": false, "what was sent?": false, "": false} {
		client, server := net.Pipe()
		go func() { defer server.Close(); io.WriteString(server, theirs) }()
		got, err := transfer(client, 3, func(_ net.Conn, size int64) ([]byte, error) { return mine, nil })
		if (err == nil) != ok {
			t.Errorf("%q against %q: got %v", mine, theirs, err)
		}
		if ok && got.Bytes != 3<<20 {
			t.Errorf("carried %v bytes, want 3 MiB", got.Bytes)
		}
	}
}

func TestOtherProgramsAreNotTheMachinesCost(t *testing.T) {
	start := time.Unix(0, 0)
	r := reading{
		before: view{at: start, machine: usage{user: 10, system: 5}, bench: usage{user: 1, system: 1}, program: usage{user: 0.5}},
		after:  view{at: start.Add(2 * time.Second), machine: usage{user: 13, system: 7}, bench: usage{user: 2, system: 2}, program: usage{user: 1, system: 0.5}},
	}
	if r.program() != 1 || r.machine() != 3 || r.others() != 1 {
		t.Errorf("program %v, machine %v, others %v, want 1, 3, 1", r.program(), r.machine(), r.others())
	}
}
