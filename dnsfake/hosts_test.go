package dnsfake

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const testHosts = `# the LAN
192.168.77.10	nas.home.example NAS files # and its names
fd00:77::10 nas
192.168.77.11 ip:alias 1.2.3.4 wild.*.card
192.168.77.12
not-an-address printer
fe80::1%eth0 zoned
192.0.2.99 four.example
`

const testLeases = `1767225600 02:00:00:00:00:01 192.168.77.20 laptop 01:02:00:00:00:00:01
0 02:00:00:00:00:02 192.168.77.21 * *
duid 00:01:00:01:2c:aa:bb:cc:02:00:00:00:00:fe
1767225600 1 fd00:77::20 Laptop 00:01
`

func TestHosts(t *testing.T) {
	dir := t.TempDir()
	hostsFile, leaseFile := filepath.Join(dir, "hosts"), filepath.Join(dir, "leases")
	for path, text := range map[string]string{hostsFile: testHosts, leaseFile: testLeases} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	hosts := NewHosts([]string{hostsFile}, []string{leaseFile}, nil)
	hosts.Reload()
	up := serve(t, testZone)
	s := server(t, up, Config{Hosts: hosts, Clients: clients("4"), Always: func() Families { return Families{IPv4: true, IPv6: true} }})
	for _, c := range [][2]string{
		{"nas. A", "nas. 10 A 192.168.77.10"},
		{"NAS. AAAA", "NAS. 10 AAAA fd00:77::10"},
		{"nas.lan. A", "nas.lan. 10 A 192.168.77.10"},
		{"nas.home.arpa. A", "nas.home.arpa. 10 A 192.168.77.10"},
		{"nas.home.arpa. MX", "nas.home.arpa. 300 SOA"},
		{"nas.home.example. A", "nas.home.example. 10 A 192.168.77.10"},
		{"nas.home.example. AAAA", "nas.home.example. 300 SOA"},
		{"nas.home.example. HTTPS", "nas.home.example. 300 SOA"},
		{"nas.home.example. MX", "NXDOMAIN; example. 60 SOA"}, // of upstream
		{"four.example. A", "four.example. 10 A 192.0.2.99"},
		{"laptop. A", "laptop. 10 A 192.168.77.20"},
		{"laptop.internal. AAAA", "laptop.internal. 10 AAAA fd00:77::20"},
		{"other.internal. A", "NXDOMAIN; internal. 300 SOA"},
		{"printer. A", "NXDOMAIN; printer. 300 SOA"},
		{"zoned. AAAA", "NXDOMAIN; zoned. 300 SOA"},
		{"10.77.168.192.in-addr.arpa. PTR", "10.77.168.192.in-addr.arpa. 300 PTR nas.home.example."},
		{"20.77.168.192.in-addr.arpa. PTR", "20.77.168.192.in-addr.arpa. 300 PTR laptop."},
		{"21.77.168.192.in-addr.arpa. PTR", "NXDOMAIN; 168.192.in-addr.arpa. 300 SOA"},
		{"0.1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.7.7.0.0.0.0.d.f.ip6.arpa. PTR",
			"0.1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.7.7.0.0.0.0.d.f.ip6.arpa. 300 PTR nas."},
	} {
		name, qtype, _ := strings.Cut(c[0], " ")
		if got := brief(s, exchange(t, s, query(name, qtype))); got != c[1] {
			t.Errorf("%s: got %s, want %s", c[0], got, c[1])
		}
	}
}

func TestHostsFollowTheirFiles(t *testing.T) {
	path := filepath.Join(t.TempDir(), "hosts")
	var log bytes.Buffer
	hosts := NewHosts([]string{path}, nil, slog.New(slog.NewTextHandler(&log, nil)))
	at := time.Unix(1e9, 0)
	for i, c := range []struct {
		text string // "" for none
		want string
	}{
		{"", "false"}, {"192.0.2.1 a", "192.0.2.1"}, {"192.0.2.2 a", "192.0.2.2"}, {"", "false"}, {"192.0.2.3 a", "192.0.2.3"},
	} {
		os.Remove(path)
		if c.text != "" {
			if err := os.WriteFile(path+".new", []byte(c.text), 0o600); err != nil {
				t.Fatal(err)
			}
			at = at.Add(time.Second)
			if err := os.Chtimes(path+".new", at, at); err != nil {
				t.Fatal(err)
			}
			if err := os.Rename(path+".new", path); err != nil {
				t.Fatal(err)
			}
		}
		for range 2 {
			hosts.Reload()
			ips, ok := hosts.lookup("a")
			if got := strings.Trim(fmt.Sprint(ips), "[]"); got != c.want && (ok || c.want != "false") {
				t.Errorf("%d: got %s, want %s", i, got, c.want)
			}
		}
	}
	if got := strings.Count(log.String(), "level=WARN"); got != 2 {
		t.Errorf("%d warnings of a file that went missing twice: %s", got, log.String())
	}
}

func TestHostsRun(t *testing.T) {
	path := filepath.Join(t.TempDir(), "hosts")
	hosts := NewHosts(nil, []string{path}, nil)
	start(t, hosts.Run)
	if err := os.WriteFile(path, []byte(testLeases), 0o600); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		if _, ok := hosts.lookup("laptop"); ok {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("a lease is not seen")
		}
	}
}

// TestHostsFollowOthers has files in use that others take the place of.
func TestHostsFollowOthers(t *testing.T) {
	first, second := filepath.Join(t.TempDir(), "first"), filepath.Join(t.TempDir(), "second")
	for path, text := range map[string]string{first: "192.0.2.1 a both", second: "192.0.2.2 b both"} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	hosts := NewHosts([]string{first}, nil, nil)
	start(t, hosts.Run)
	for _, c := range []struct {
		files []string
		want  string
	}{
		{[]string{second}, "[] [192.0.2.2] [192.0.2.2]"}, {nil, "[] [] []"},
		{[]string{first, second}, "[192.0.2.1] [192.0.2.2] [192.0.2.1 192.0.2.2]"},
	} {
		hosts.Follow(c.files, nil)
		a, _ := hosts.lookup("a")
		b, _ := hosts.lookup("b")
		both, _ := hosts.lookup("both")
		if got := fmt.Sprint(a, b, both); got != c.want {
			t.Errorf("of %d files: %s, want %s", len(c.files), got, c.want)
		}
	}
}

func FuzzHosts(f *testing.F) {
	f.Add(testHosts)
	f.Add(testLeases)
	f.Add("192.0.2.1 two.dots..")
	f.Fuzz(func(t *testing.T, data string) {
		for _, line := range append(parseHosts(data), parseLeases(data)...) {
			if !line.ip.IsValid() || line.ip.Zone() != "" || len(line.names) == 0 {
				t.Errorf("%+v", line)
			}
			for _, name := range line.names {
				if name != key(name) || !relayable(name) {
					t.Errorf("name %q", name)
				}
			}
		}
	})
}

// TestParseLeases has clients that choose names which are not theirs to have.
func TestParseLeases(t *testing.T) {
	lines := parseLeases("1 aa 192.168.77.9 wpad *\n1 aa 192.168.77.10 ISATAP *\n" +
		"1 aa 192.168.77.11 wpad.lan *\n1 aa 192.168.77.12 localhost *\n1 aa 192.168.77.13 printer *\nduid 1\n")
	if got := fmt.Sprint(lines); len(lines) != 1 || !strings.Contains(got, "printer") {
		t.Errorf("got %s", got)
	}
}
