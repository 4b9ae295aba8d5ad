package main

import (
	"os/exec"
	"strings"
	"testing"
)

// testPrograms has programs of other hands exchange datagrams with servers of
// the other family, as if there were one.
func testPrograms(t *testing.T, n *namespaces) {
	chrony := n.write(t, "chrony.conf", "local stratum 3\nallow all\ncmdport 0\npidfile "+n.dir+"/chronyd.pid\nbindaddress 203.0.113.80\nbindaddress 2001:db8:99::80\n")
	const sip = "sipp -nostdin -i "
	for _, s := range []struct{ at, command string }{
		{"203.0.113.80:123", "chronyd -x -d -u root -f " + chrony},
		{"203.0.113.80:5060", sip + "203.0.113.80 -p 5060 -sn uas"},
		{"[2001:db8:99::80]:5060", sip + "[2001:db8:99::80] -p 5060 -sn uas"},
		{"203.0.113.81:3479", "turnserver -n -L 203.0.113.80 -L 203.0.113.81 --no-auth --no-tls --no-dtls --no-cli --log-file stdout --pidfile " + n.dir + "/turn.pid"},
		{"[2001:db8:99::81]:3479", "turnserver -n -L 2001:db8:99::80 -L 2001:db8:99::81 --no-auth --no-tls --no-dtls --no-cli --log-file stdout --pidfile " + n.dir + "/turn6.pid"},
	} {
		argv := strings.Fields(s.command)
		if _, err := exec.LookPath(argv[0]); err != nil {
			continue // and so does who asks it
		}
		if err := n.background(t, "world", s.at, argv...); err != nil {
			t.Fatal(err)
		}
	}
	ntp := "cd " + n.dir + " && chronyd -Q -t 20 -u root -f /dev/null 'cmdport 0' 'pidfile " + n.dir + "/client.pid' "
	call := "cd " + n.dir + " && sipp -nostdin -m 3 -sn uac -timeout 20 -i "
	for _, c := range []struct{ tool, client, command, want string }{
		{"chronyd", "lan", ntp + "'server v6only.test iburst maxsamples 1'", "System clock wrong by "},
		{"chronyd", "lan6", ntp + "'server v4only.test iburst maxsamples 1'", "System clock wrong by "},
		{"sipp", "lan", call + "192.168.77.2 $(dig +short v6only.test A):5060 >/dev/null 2>&1 && echo called", "called"},
		{"sipp", "lan6", call + "[fd00:77::2] [$(dig +short v4only.test AAAA)]:5060 >/dev/null 2>&1 && echo called", "called"},
		// The server's other address is real: the kernel's NAT leads to it.
		{"turnutils_natdiscovery", "lan", "turnutils_natdiscovery -m $(dig +short v4only.test A)", "NAT with Endpoint Independent Mapping!"},
		{"turnutils_natdiscovery", "lan", "turnutils_natdiscovery -f $(dig +short v4only.test A)", "NAT with Endpoint Independent Filtering!"},
		{"turnutils_natdiscovery", "lan", "turnutils_natdiscovery -f $(dig +short v6only.test A)", "NAT with Endpoint Independent Filtering!"},
		{"turnutils_natdiscovery", "lan6", "turnutils_natdiscovery -f $(dig +short v4only.test AAAA)", "NAT with Endpoint Independent Filtering!"},
		{"traceroute", "lan", "traceroute -n -q 1 -N 1 $(dig +short v6only.test A) | awk '{print $2}' | tail -n +2 | xargs", "192.168.77.1 198.1"},
		{"traceroute", "lan6", "traceroute -n -q 1 -N 1 $(dig +short v4only.test AAAA) | awk '{print $2}' | tail -n +2 | xargs", "fd00:77::1 2001:2::"},
		{"mtr", "lan", "mtr -n -r -c 2 -i 0.5 -G 2 $(dig +short v6only.test A) | awk 'NR > 2 {print $2, $3}' | xargs", "192.168.77.1 0.0% 198.1"},
		{"mtr", "lan6", "mtr -n -r -c 2 -i 0.5 -G 2 $(dig +short v4only.test AAAA) | awk 'NR > 2 {print $2, $3}' | xargs", "fd00:77::1 0.0% 2001:2::"},
	} {
		t.Run(c.tool+" "+c.client, func(t *testing.T) {
			if _, err := exec.LookPath(c.tool); err != nil {
				t.Skip("needs a program: ", err)
			}
			if got := n.shell(t, c.client, c.command); !strings.Contains(got, c.want) {
				t.Errorf("%s printed %q, want %q", c.command, got, c.want)
			}
		})
	}
}
