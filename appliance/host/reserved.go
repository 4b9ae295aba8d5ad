package host

import (
	"fmt"
	"strconv"
	"strings"
)

// reservedPorts lists the ports that the kernel gives to nobody who does not
// ask for them: what the administrator keeps for servers.
const reservedPorts = "net.ipv4.ip_local_reserved_ports"

// Ports are some of TCP's or UDP's.
type Ports []portRange

type portRange struct{ first, last uint16 }

// Contains reports whether port is one of ps.
func (ps Ports) Contains(port uint16) bool {
	for _, r := range ps {
		if r.first <= port && port <= r.last {
			return true
		}
	}
	return false
}

// ReservedPorts returns those that are kept for this machine's servers.
func ReservedPorts() (Ports, error) {
	value, err := readSysctl(reservedPorts)
	if err != nil {
		return nil, err
	}
	ports, err := parsePorts(value)
	if err != nil {
		return nil, fmt.Errorf("reading sysctl %s: %w", reservedPorts, err)
	}
	return ports, nil
}

// parsePorts reads ports and ranges with commas between them.
func parsePorts(list string) (ports Ports, err error) {
	for part := range strings.SplitSeq(list, ",") {
		if part == "" {
			continue
		}
		from, to, isRange := strings.Cut(part, "-")
		if !isRange {
			to = from
		}
		first, err := strconv.ParseUint(from, 10, 16)
		if err != nil {
			return nil, err
		}
		last, err := strconv.ParseUint(to, 10, 16)
		if err != nil {
			return nil, err
		}
		ports = append(ports, portRange{uint16(first), uint16(last)})
	}
	return ports, nil
}
