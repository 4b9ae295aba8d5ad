package host

import (
	"flag"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

var update = flag.Bool("update", false, "rewrite testdata with the text as it is now")

func TestTable(t *testing.T) {
	tests := []struct {
		name   string
		state  State
		before journal
	}{
		{"guard", State{
			Link:  "sixgate0",
			Pools: prefixOf("198.18.0.0/15"),
			LAN:   []string{"lan0"},
		}, nil},
		{"capture", State{
			Link:       "sixgate0",
			Pools:      prefixOf("198.18.0.0/15", "2001:2::/48"),
			LAN:        []string{"lan0"},
			CaptureDNS: 53,
		}, nil},
		{"handover", State{
			Link:     "sixgate0",
			Pools:    prefixOf("198.18.0.0/15", "2001:2::/48"),
			LAN:      []string{"lan0", "lan1"},
			Handover: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:5000"), netip.MustParseAddrPort("[::1]:5001")},
		}, nil},
		{"handover4", State{
			Link:     "sixgate0",
			Pools:    prefixOf("198.18.0.0/15", "2001:2::/48"),
			LAN:      []string{"lan0"},
			Handover: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:5000")},
		}, nil},
		{"full", State{
			Link:       "tun-x.1",
			Pools:      prefixOf("198.18.0.0/15", "2001:2::/48"),
			Literals:   prefixOf("64:ff9b:1::/48"),
			LAN:        []string{"br-lan", "eth0.100"},
			Private:    []netip.AddrPort{netip.MustParseAddrPort("192.168.77.1:53"), netip.MustParseAddrPort("[fe80::1%br-lan]:53")},
			CaptureDNS: 5364,
			RefuseDoT:  true,
			Masquerade: true,
			Mark:       0x5136,
		}, journal{
			{"net.ipv4.conf.all.forwarding", "0"},
			{"net.ipv4.conf.all.accept_redirects", "1"},
			{"net.ipv6.conf.all.forwarding", "0"},
			{"net.ipv6.conf.eth0/7.accept_ra", "1"},
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			file := filepath.Join("testdata", tt.name+".nft")
			got := tt.state.table(tt.before)
			if *update {
				must(t, os.WriteFile(file, []byte(got), 0o644))
			}
			want, err := os.ReadFile(file)
			must(t, err)
			if got != string(want) {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
			if os.Getuid() != 0 {
				t.Skip("needs root to have nft check the text")
			}
			if out, err := exec.Command("unshare", "-n", "nft", "-c", "-f", file).CombinedOutput(); err != nil {
				t.Errorf("nft refuses it: %v\n%s", err, out)
			}
		})
	}
}

func TestValidate(t *testing.T) {
	tests := []struct {
		name   string
		change func(*State)
		ok     bool
	}{
		{"full", func(*State) {}, true},
		{"no LAN", func(s *State) { s.LAN = nil }, true},
		{"no link", func(s *State) { s.Link = "" }, false},
		{"empty LAN name", func(s *State) { s.LAN = []string{""} }, false},
		{"wildcard", func(s *State) { s.LAN = []string{"eth*"} }, false},
		{"quote", func(s *State) { s.LAN = []string{`a"`} }, false},
		{"long", func(s *State) { s.Link = "sixteen-octets-0" }, false},
		{"pool with host bits", func(s *State) { s.Pools = prefixOf("198.18.0.1/15") }, false},
		{"no pool", func(s *State) { s.Pools = append(s.Pools, s.Pools[0].Masked()); s.Pools[0] = prefix(nil) }, false},
		{"no address", func(s *State) { s.Addresses[0] = prefix(nil) }, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := full()
			tt.change(&s)
			if err := s.validate(); (err == nil) != tt.ok {
				t.Errorf("validate: %v, want ok %v", err, tt.ok)
			}
		})
	}
}
