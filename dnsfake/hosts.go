package dnsfake

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
)

// hostsPoll is how often the files are looked at.
const hostsPoll = 500 * time.Millisecond

// Hosts knows the names of the LAN from files that others write: hosts(5), and
// the leases of dnsmasq.
type Hosts struct {
	logger *slog.Logger
	names  atomic.Pointer[hostNames] // never nil
	others chan struct{}             // has one when Run is to look at files anew

	mu    sync.Mutex // guards what follows, over the reading of files
	files []*hostsFile
}

// hostsFile is a file as it was last read.
type hostsFile struct {
	path    string
	parse   func(data string) []hostLine
	info    fs.FileInfo // nil if there was none
	err     error
	entries []hostLine
}

// hostLine is a line of a file: an address, and its names in the form of key.
type hostLine struct {
	ip    netip.Addr
	names []string
}

// hostNames is what all files say. It does not change once it is made.
type hostNames struct {
	generation uint64 // another for each change
	addresses  map[string][]netip.Addr
	names      map[netip.Addr]string // the first one
}

// NewHosts returns a Hosts that knows nothing until Reload or Run are called. A
// nil logger is silent.
func NewHosts(hosts, leases []string, logger *slog.Logger) *Hosts {
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	h := &Hosts{logger: logger, others: make(chan struct{}, 1), files: hostsFiles(hosts, leases)}
	h.names.Store(&hostNames{})
	return h
}

func hostsFiles(hosts, leases []string) (files []*hostsFile) {
	for _, path := range hosts {
		files = append(files, &hostsFile{path: path, parse: parseHosts})
	}
	for _, path := range leases {
		files = append(files, &hostsFile{path: path, parse: parseLeases})
	}
	return files
}

// Follow takes these files in place of those before, and reads them.
func (h *Hosts) Follow(hosts, leases []string) {
	h.mu.Lock()
	h.files = hostsFiles(hosts, leases)
	h.readLocked(true)
	h.mu.Unlock()
	select {
	case h.others <- struct{}{}:
	default:
	}
}

// Run follows changes of the files until ctx ends, then returns nil.
func (h *Hosts) Run(ctx context.Context) error {
	for {
		var again <-chan time.Time
		if h.Reload() {
			again = time.After(hostsPoll)
		}
		select {
		case <-again:
		case <-h.others:
		case <-ctx.Done():
			return nil
		}
	}
}

// Reload reads the files that have changed, and reports whether there are any.
func (h *Hosts) Reload() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.readLocked(false)
	return len(h.files) > 0
}

// readLocked reads the files that have changed. changed tells that there are
// others than before.
func (h *Hosts) readLocked(changed bool) {
	for _, f := range h.files {
		changed = f.read(h.logger) || changed
	}
	if !changed {
		return
	}
	all := &hostNames{
		generation: h.names.Load().generation + 1,
		addresses:  make(map[string][]netip.Addr),
		names:      make(map[netip.Addr]string),
	}
	for _, f := range h.files {
		for _, e := range f.entries {
			for _, name := range e.names {
				if !slices.Contains(all.addresses[name], e.ip) {
					all.addresses[name] = append(all.addresses[name], e.ip)
				}
			}
			if _, known := all.names[e.ip]; !known {
				all.names[e.ip] = e.names[0]
			}
		}
	}
	h.names.Store(all)
}

// read reads the file if it has changed, and reports whether it has. What cannot
// be read keeps its names, but what is not there has none.
func (f *hostsFile) read(logger *slog.Logger) (changed bool) {
	info, err := os.Stat(f.path)
	switch {
	case err == nil && f.err == nil && f.info != nil && os.SameFile(info, f.info) &&
		info.Size() == f.info.Size() && info.ModTime().Equal(f.info.ModTime()):
		return false
	case err == nil:
		var data []byte
		if data, err = os.ReadFile(f.path); err == nil {
			f.entries, changed = f.parse(string(data)), true
		}
	case errors.Is(err, fs.ErrNotExist):
		changed = len(f.entries) > 0
		f.entries = nil
	}
	if err != nil && (f.err == nil || f.err.Error() != err.Error()) {
		logger.Warn("names of the LAN cannot be read", "err", err)
	}
	f.info, f.err = info, err
	return changed
}

// parseHosts reads a file of the form of hosts(5). Lines that are not of it, and
// names that are none, say nothing.
func parseHosts(data string) (lines []hostLine) {
	for text := range strings.Lines(data) {
		text, _, _ = strings.Cut(text, "#")
		if fields := strings.Fields(text); len(fields) > 1 {
			lines = appendLine(lines, fields[0], fields[1:])
		}
	}
	return lines
}

// parseLeases reads dnsmasq's leases: expiry, hardware address or IAID, IP
// address, name or "*", client ID or DUID. A client chooses its name, and is
// not to become the proxy or router of the others by it (VU#598349).
func parseLeases(data string) (lines []hostLine) {
	for text := range strings.Lines(data) {
		fields := strings.Fields(text)
		if len(fields) < 4 {
			continue
		}
		switch first, _, _ := strings.Cut(key(fields[3]), "."); first {
		case "wpad", "isatap", "localhost":
		default:
			lines = appendLine(lines, fields[2], fields[3:4])
		}
	}
	return lines
}

func appendLine(lines []hostLine, address string, names []string) []hostLine {
	ip, err := netip.ParseAddr(address)
	if err != nil || ip.Zone() != "" {
		return lines
	}
	line := hostLine{ip: ip.Unmap()}
	for _, name := range names {
		if _, ok := dns.IsDomainName(name); !ok {
			continue
		}
		name = key(name)
		if _, ok := literal(name); !ok && relayable(name) {
			line.names = append(line.names, name)
		}
	}
	if len(line.names) == 0 {
		return lines
	}
	return append(lines, line)
}

// lookup returns the addresses of name, in the form of key. A name without dots
// is also known below the domains that a LAN may have.
func (h *Hosts) lookup(name string) ([]netip.Addr, bool) {
	addresses := h.names.Load().addresses
	ips, ok := addresses[name]
	if first, domain, dotted := strings.Cut(name, "."); !ok && dotted && slices.Contains(localDomains(), domain) {
		ips, ok = addresses[first]
	}
	return ips, ok
}

// hostsGeneration returns which names of the LAN there are now.
func (s *Server) hostsGeneration() uint64 {
	if s.conf.Hosts == nil {
		return 0
	}
	return s.conf.Hosts.names.Load().generation
}

// hosts answers for what local files name: with the real addresses, as the
// client reaches them without us.
func (s *Server) hosts(req *request) (answer, bool) {
	if s.conf.Hosts == nil {
		return answer{}, false
	}
	q := req.question[0]
	if ips, ok := s.conf.Hosts.lookup(req.name); ok {
		switch q.Qtype {
		case dns.TypeA, dns.TypeAAAA, dns.TypeHTTPS, dns.TypeSVCB:
			return s.positive(req, ips...), true
		}
		_, t := s.conf.Policy().treatmentOf(req.name)
		if t != ordinary || !strings.Contains(req.name, ".") {
			return s.absence(req, req.name, nodata), true
		}
	}
	if net, _, exact := reverseNet(req.name); q.Qtype == dns.TypePTR && exact && net.IsSingleIP() {
		if host, ok := s.conf.Hosts.names.Load().names[net.Addr()]; ok {
			return answer{kind: local, rrs: []dns.RR{pointer(q, dns.Fqdn(host))}}, true
		}
	}
	return answer{}, false
}
