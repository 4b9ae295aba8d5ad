package appliance

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"sixgate/appliance/config"
	"sixgate/socks"
)

// echoes reports whether conn still carries bytes both ways.
func echoes(t *testing.T, conn net.Conn) bool {
	t.Helper()
	conn.SetDeadline(time.Now().Add(30 * time.Second))
	if _, err := io.WriteString(conn, "x"); err != nil {
		t.Error(err)
		return false
	}
	got := make([]byte, 1)
	_, err := io.ReadFull(conn, got)
	return err == nil && got[0] == 'x'
}

// TestAdopt has flows live and names mapped while one policy after another
// takes force.
func TestAdopt(t *testing.T) {
	w := newWorld(t)
	b := newBox(t, w, nil)
	held, err := b.dialTUN(t.Context(), "tcp", false, "v4only.test", w.port)
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	if _, err := io.ReadFull(held, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	fake, _ := b.lookup(t, "v4only.test")
	dial := func(client6 bool) error {
		conn, err := b.dialSOCKS(t.Context(), "tcp", client6, socks.Addr{Name: "v4only.test", Port: w.port})
		if err == nil {
			conn.Close()
		}
		return err
	}
	for _, step := range []struct {
		name   string
		change func(*config.Config)
		want   error // of a connection by SOCKS
	}{
		{"a rule that rejects", func(c *config.Config) {
			c.Rules = []config.Rule{{Names: []string{"v4only.test"}, Outlet: config.BuiltInReject}}
		}, syscall.EACCES},
		{"no rule", func(*config.Config) {}, nil},
		{"a family alone", func(c *config.Config) { c.Direct.Prefer = config.OnlyIPv6 }, syscall.EHOSTUNREACH},
		{"a denied prefix", func(c *config.Config) { c.Direct.Deny = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")} }, syscall.EACCES},
		{"other clients", func(c *config.Config) { c.SOCKS.Clients = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")} }, io.EOF},
		{"a user", func(c *config.Config) {
			password, err := socks.ParsePassword("secret")
			if err != nil {
				t.Fatal(err)
			}
			c.SOCKS.Users = []config.User{{Name: "alice", Password: password}}
		}, syscall.EACCES},
		{"one flow at most, which is there", func(c *config.Config) { c.Limits.Flows = 1 }, syscall.ECONNREFUSED},
		{"as at first", func(*config.Config) {}, nil},
	} {
		c := *b.config
		step.change(&c)
		if err := b.parts.adopt(&c); err != nil {
			t.Fatalf("%s: %v", step.name, err)
		}
		if err := dial(false); (err == nil) != (step.want == nil) {
			t.Errorf("%s: dialling: %v, want %v", step.name, err, step.want)
		}
		if !echoes(t, held) {
			t.Errorf("%s: the flow from before is gone", step.name)
		}
		if name, _ := b.parts.table.NameOf(fake); name != "v4only.test" {
			t.Errorf("%s: %v stands for %q", step.name, fake, name)
		}
	}
}

// TestAdoptDNS has lists of the DNS server change.
func TestAdoptDNS(t *testing.T) {
	w := newWorld(t)
	b := newBox(t, w, nil)
	hosts := filepath.Join(t.TempDir(), "hosts")
	if err := os.WriteFile(hosts, []byte("192.0.2.9 printer"), 0o600); err != nil {
		t.Fatal(err)
	}
	other := listenUDP(t, netip.MustParseAddrPort("127.0.0.1:0"))
	serveDatagrams(t, other, resolveIn(map[string][]netip.Addr{"others.test.": {far4}}))
	for _, step := range []struct {
		name, ask string
		change    func(*config.Config)
		want      string // address, "fake" or "none"
	}{
		{"as at first", "v4only.test", func(*config.Config) {}, "fake"},
		{"bypass", "v4only.test", func(c *config.Config) { c.DNS.Bypass = []string{"*.test"} }, "127.0.0.1"},
		{"needed", "v4only.test", func(c *config.Config) { c.DNS.Fake = config.FakeNeeded }, "127.0.0.1"},
		{"hosts", "printer", func(c *config.Config) { c.DNS.Hosts = []string{hosts} }, "192.0.2.9"},
		{"no hosts", "printer", func(*config.Config) {}, "none"},
		{"a name of nobody", "others.test", func(*config.Config) {}, "none"},
		{"another resolver", "others.test", func(c *config.Config) {
			c.DNS.Upstreams = []config.Upstream{{Network: "udp", Addr: addrPort(other.LocalAddr())}}
		}, "fake"},
	} {
		c := *b.config
		step.change(&c)
		if err := b.parts.adopt(&c); err != nil {
			t.Fatalf("%s: %v", step.name, err)
		}
		got := "none"
		if ip, ok := b.lookup(t, step.ask); ok {
			if got = ip.String(); b.parts.table.Contains(ip) {
				got = "fake"
			}
		}
		if got != step.want {
			t.Errorf("%s: %s is %s, want %s", step.name, step.ask, got, step.want)
		}
	}
}

// lookup asks the DNS server for an IPv4 address.
func (b *box) lookup(t *testing.T, name string) (netip.Addr, bool) {
	t.Helper()
	a := &Appliance{parts: b.parts}
	_, ips, err := a.askDNS(t.Context(), name, dnsmessage.TypeA, far4)
	if err != nil {
		t.Fatal(err)
	}
	if len(ips) == 0 {
		return netip.Addr{}, false
	}
	return ips[0], true
}

// TestReload reloads through the control socket.
func TestReload(t *testing.T) {
	w := newWorld(t)
	b := newBox(t, w, nil)
	var told []string
	var next error
	level := new(slog.LevelVar)
	a := &Appliance{parts: b.parts, Options: Options{
		Logger: slog.New(slog.DiscardHandler), Level: level,
		Notify: func(state string) { told = append(told, strings.Split(state, "=")[0]) },
		Load: func(running *config.Config) (*config.Config, error) {
			c := *running
			c.File, c.Log.Level = "next", slog.LevelDebug
			return &c, next
		},
	}}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	path := filepath.Join(t.TempDir(), "control.sock")
	ln, err := listenControl(path)
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- serveHTTP(ctx, ln, a.controlRoutes(), a.Logger) }()

	next = config.Complaints{{File: "next", Line: 7, Key: "tun.mtu", Text: "wrong"}}
	err = AskReload(t.Context(), path)
	var complaints config.Complaints
	if !errors.As(err, &complaints) || err.Error() != "next:7: tun.mtu: wrong" || a.config().File != "" {
		t.Errorf("a bad file: %v, and %q is in force", err, a.config().File)
	}
	next = os.ErrNotExist
	if err := AskReload(t.Context(), path); err == nil || errors.As(err, &complaints) || a.config().File != "" {
		t.Errorf("no file: %v, and %q is in force", err, a.config().File)
	}
	next = nil
	if err := AskReload(t.Context(), path); err != nil || a.config().File != "next" || level.Level() != slog.LevelDebug {
		t.Errorf("a good file: %v, and %q is in force with level %v", err, a.config().File, level)
	}
	if want := strings.Repeat("RELOADING READY ", 3); strings.Join(told, " ")+" " != want {
		t.Errorf("the service manager was told %v", told)
	}
	cancel()
	if err := <-served; err != nil {
		t.Error(err)
	}
}
