package upstream

import (
	"bufio"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/miekg/dns"
)

const unboundSettings = `
server:
	directory: "%[1]s"
	chroot: ""
	username: ""
	pidfile: ""
	use-syslog: no
	verbosity: 1
	do-daemonize: no
	num-threads: 1
	module-config: "iterator"
	interface: %[2]s@%[3]d
	interface: %[2]s@%[4]d
	interface: %[2]s@%[5]d
	tls-port: %[4]d
	https-port: %[5]d
	tls-service-key: "%[1]s/key.pem"
	tls-service-pem: "%[1]s/certificate.pem"
	local-zone: "example." static
	local-data: "a.example. 60 IN A 192.0.2.1"
	local-data: "a.example. 60 IN AAAA 2001:db8::1"
	local-data: "example. 300 IN SOA ns.example. hostmaster.example. 1 7200 3600 86400 60"
remote-control:
	control-enable: no
`

// unbound runs one on loopback that speaks everything that it can.
func unbound(t *testing.T) (servers []Server, roots *x509.CertPool) {
	t.Helper()
	path, err := exec.LookPath("unbound")
	if err != nil {
		path, err = exec.LookPath("/usr/sbin/unbound")
	}
	if err != nil {
		t.Skip("unbound is not installed")
	}
	issuer := httptest.NewTLSServer(nil) // has a certificate
	issuer.Close()
	key, err := x509.MarshalPKCS8PrivateKey(issuer.TLS.Certificates[0].PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for name, block := range map[string]*pem.Block{
		"key.pem":         {Type: "PRIVATE KEY", Bytes: key},
		"certificate.pem": {Type: "CERTIFICATE", Bytes: issuer.Certificate().Raw},
	} {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	plain, encrypted, web := freePort(t), freePort(t), freePort(t)
	settings := fmt.Sprintf(unboundSettings, dir, plain.Addr(), plain.Port(), encrypted.Port(), web.Port())
	if err := os.WriteFile(filepath.Join(dir, "unbound.conf"), []byte(settings), 0o600); err != nil {
		t.Fatal(err)
	}
	start(t, exec.Command(path, "-d", "-c", filepath.Join(dir, "unbound.conf")), "start of service")
	roots = x509.NewCertPool()
	roots.AddCert(issuer.Certificate())
	const name = "example.com" // of the certificate
	return []Server{
		{Network: "udp", Addr: plain},
		{Network: "tcp", Addr: plain},
		{Network: "tls", Addr: encrypted},
		{Network: "tls", Addr: encrypted, Name: name},
		{Network: "https", Addr: web, Path: "/dns-query"},
		{Network: "https", Addr: web, Name: name, Path: "/dns-query"},
	}, roots
}

// start runs a program until the test ends, and returns when it has said ready.
func start(t *testing.T, cmd *exec.Cmd, ready string) {
	t.Helper()
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	var said []string
	for lines := bufio.NewScanner(stderr); lines.Scan(); {
		if strings.Contains(lines.Text(), ready) {
			go func() { // until Kill
				for lines.Scan() {
				}
			}()
			return
		}
		said = append(said, lines.Text())
	}
	t.Fatalf("%s does not start:\n%s", cmd.Path, strings.Join(said, "\n"))
}

// TestUnbound asks a resolver of another's making in every way.
func TestUnbound(t *testing.T) {
	servers, roots := unbound(t)
	for _, server := range servers {
		t.Run(server.Network+" "+server.Name, func(t *testing.T) {
			r := resolver(t, Config{RootCAs: roots}, server)
			got, err := r.LookupNetIP(t.Context(), "ip", "a.example")
			if err != nil || !slices.Equal(got, addrs("2001:db8::1", "192.0.2.1")) {
				t.Errorf("lookup = %v, %v", got, err)
			}
			var clients sync.WaitGroup
			for i := range 50 {
				clients.Go(func() {
					m, err := r.Exchange(t.Context(), query(fmt.Sprintf("n%d.example.", i), dns.TypeA))
					if err != nil || m.Rcode != dns.RcodeNameError || SOA(m) == nil || SOA(m).Hdr.Ttl != 60 {
						t.Errorf("absent name: %v, %v", m, err)
					}
				})
			}
			clients.Wait()
		})
	}
	other := servers[3]
	other.Name = "other.test"
	r := resolver(t, Config{RootCAs: roots}, other)
	if _, err := r.LookupNetIP(t.Context(), "ip", "a.example"); err == nil {
		t.Error("a certificate for another name is taken")
	}
}
