package config

import (
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"sixgate/socks"
)

func TestVia(t *testing.T) {
	c := Default()
	c.Outlets = []Outlet{{Name: "far", Type: OutletDirect}}
	c.Rules = []Rule{{Ports: []uint16{25}, Outlet: BuiltInReject}}
	err := c.Via([]string{
		"socks5://near.example",
		"socks5h://alice:p%40ss@[2001:db8::1]:9050/",
	})
	if err != nil {
		t.Fatal(err)
	}
	outlets := []Outlet{
		{Name: "far", Type: OutletDirect},
		{Name: "via 1", Type: OutletSOCKS5, Server: socks.Addr{Name: "near.example", Port: 1080}},
		{Name: "via 2", Type: OutletSOCKS5, Server: socks.Addr{IP: netip.MustParseAddr("2001:db8::1"), Port: 9050}, Username: "alice", Password: "p@ss", Over: "via 1"},
	}
	if !reflect.DeepEqual(c.Outlets, outlets) {
		t.Errorf("outlets\n%+v, want\n%+v", c.Outlets, outlets)
	}
	rules := []Rule{{Ports: []uint16{25}, Outlet: BuiltInReject}, {Outlet: "via 2"}}
	if !reflect.DeepEqual(c.Rules, rules) {
		t.Errorf("rules %+v, want %+v", c.Rules, rules)
	}
}

func TestViaNobody(t *testing.T) {
	c := Default()
	if err := c.Via(nil); err != nil || !reflect.DeepEqual(c, Default()) {
		t.Errorf("got %+v, %v", c, err)
	}
}

func TestViaBadURLs(t *testing.T) {
	for _, c := range []struct{ url, want string }{
		{"http://gw.example:1080", `scheme "http"`},
		{"gw.example:1080", "gw.example"},
		{"socks5://", "1080"},
		{"socks5:gw.example", "more than a server"},
		{"socks5://gw.example/path", "more than a server"},
		{"socks5://gw.example?x=y", "more than a server"},
		{"socks5://gw.example:0", "port 0"},
		{"socks5://gw.example:65536", "port 65536"},
		{"socks5://gw example:1080", "character"},
		{"socks5://:secret@gw.example", "name of 0 octets"},
		{"socks5://bob:" + strings.Repeat("s", 256) + "@gw.example", "password of 256 octets"},
		{"socks5://bob:secret@gw.example:port", "port"},
	} {
		err := Default().Via([]string{c.url})
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want something about %q", c.url, err, c.want)
		}
		if err != nil && (strings.Contains(err.Error(), "secret") || strings.Contains(err.Error(), "sss")) {
			t.Errorf("%s: the password is in the error: %v", c.url, err)
		}
	}
}
