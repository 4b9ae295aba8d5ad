package confine

import (
	"net/netip"
	"testing"
)

func TestResolvConf(t *testing.T) {
	server := netip.MustParseAddr("198.18.0.2")
	for _, c := range []struct{ host, want string }{
		{"", "nameserver 198.18.0.2\n"},
		{
			"# by hand\nnameserver 127.0.0.53\n nameserver\t2001:db8::53\noptions edns0 trust-ad\n\nsearch lan example\n",
			"nameserver 198.18.0.2\n# by hand\noptions edns0 trust-ad\nsearch lan example\n",
		},
		{"search lan", "nameserver 198.18.0.2\nsearch lan"},
	} {
		if got := resolvConf(c.host, server); got != c.want {
			t.Errorf("of %q: got %q, want %q", c.host, got, c.want)
		}
	}
}

func TestNsswitch(t *testing.T) {
	for _, c := range []struct{ host, want string }{
		{"passwd: files systemd\nhosts: files dns\n", "passwd: files systemd\nhosts: files dns\n"},
		{"hosts: mymachines resolve [!UNAVAIL=return] files myhostname dns\n", "hosts: files myhostname dns\n"},
		{"  hosts:\tfiles mdns4_minimal [NOTFOUND=return] dns\nnetworks: files\n", "hosts: files dns\nnetworks: files\n"},
		{"# hosts: nis\npasswd: files\n", "# hosts: nis\npasswd: files\n"},
	} {
		if got := nsswitch(c.host); got != c.want {
			t.Errorf("of %q: got %q, want %q", c.host, got, c.want)
		}
	}
}
