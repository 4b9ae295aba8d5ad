package upstream

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// Server is a resolver to ask.
type Server struct {
	// Network is "udp", which goes on over TCP where it must, "tcp", "tls" (RFC
	// 7858) or "https" (RFC 8484). The last two never go on without encryption.
	Network string
	Addr    netip.AddrPort
	Name    string // whom the certificate of "tls" and "https" is for; "": Addr's address
	Path    string // of the URI of "https", as in "/dns-query"
}

// String returns s as a URI. What a URI has no place for is its fragment: the
// name of "tls", and the address of "https" by name.
func (s Server) String() string {
	switch {
	case s.Network == "https" && s.Name != "":
		return s.url() + "#" + s.Addr.Addr().String()
	case s.Network == "https":
		return s.url()
	case s.Name != "":
		return s.Network + "://" + s.Addr.String() + "#" + s.Name
	}
	return s.Network + "://" + s.Addr.String()
}

// host returns whom the certificate must be for: a name or an address.
func (s Server) host() string {
	if s.Name != "" {
		return s.Name
	}
	return s.Addr.Addr().WithZone("").String()
}

// url returns the URL of an "https" server.
func (s Server) url() string {
	host := s.host()
	switch {
	case s.Addr.Port() != portHTTPS:
		host = net.JoinHostPort(host, strconv.Itoa(int(s.Addr.Port())))
	case strings.Contains(host, ":"):
		host = "[" + host + "]"
	}
	return "https://" + host + s.Path
}

const (
	portDNS   = 53
	portHTTPS = 443
)

// Static returns a source of always the same servers, for Config.Servers.
func Static(servers ...Server) func() ([]Server, error) {
	return func() ([]Server, error) { return servers, nil }
}

// restat is how old a look at resolv.conf may be. The resolver of package net
// looks every 5 s, which is long for a host that has just changed its network.
const restat = time.Second

// ResolvConf returns a source of the name servers in the resolv.conf(5) file
// at path, for Config.Servers. The file is read again when it has changed. A
// file that is missing or names no server is ErrNoServer. now may be nil:
// time.Now.
func ResolvConf(path string, now func() time.Time) func() ([]Server, error) {
	if now == nil {
		now = time.Now
	}
	var last atomic.Pointer[reading]
	return func() ([]Server, error) {
		old := last.Load()
		if old != nil && now().Sub(old.at) < restat {
			return old.servers, old.err
		}
		fresh := read(path, old)
		fresh.at = now()
		last.Store(fresh)
		return fresh.servers, fresh.err
	}
}

// reading is what a look at a resolv.conf found.
type reading struct {
	at      time.Time
	file    os.FileInfo // nil when there was none
	servers []Server
	err     error
}

// read reads the file at path unless it is the one that old, which may be nil,
// was read from.
func read(path string, old *reading) *reading {
	info, err := os.Stat(path)
	if err != nil {
		return &reading{err: fmt.Errorf("%w: %w", ErrNoServer, err)}
	}
	if old != nil && old.file != nil && os.SameFile(old.file, info) &&
		old.file.ModTime().Equal(info.ModTime()) && old.file.Size() == info.Size() {
		return &reading{file: info, servers: old.servers, err: old.err}
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return &reading{err: fmt.Errorf("%w: %w", ErrNoServer, err)}
	}
	servers := nameservers(text)
	if len(servers) == 0 {
		err = fmt.Errorf("reading name servers from %s: %w", path, ErrNoServer)
	}
	return &reading{file: info, servers: servers, err: err}
}

// ErrNoServer is wrapped by errors of having nobody to ask.
var ErrNoServer = errors.New("no name server")

// nameservers returns the servers of a resolv.conf. Lines that it does not
// understand are passed over, as the C library does.
func nameservers(text []byte) []Server {
	var servers []Server
	lines := bufio.NewScanner(bytes.NewReader(text))
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 2 || fields[0] != "nameserver" {
			continue
		}
		if ip, err := netip.ParseAddr(fields[1]); err == nil {
			servers = append(servers, Server{Network: "udp", Addr: netip.AddrPortFrom(ip, portDNS)})
		}
	}
	return servers
}
