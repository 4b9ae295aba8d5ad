package stack

import (
	"fmt"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
	netstack "gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/icmp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
)

// nic is the one network interface that netstack has.
const nic tcpip.NICID = 1

// bufferMin is the least that a TCP buffer may be set to, in bytes.
const bufferMin = 4 << 10

// newNetwork returns a netstack that takes every packet of link for its own
// and answers from any address.
func newNetwork(link *link, share share) (*netstack.Stack, error) {
	network := netstack.New(netstack.Options{
		NetworkProtocols:   []netstack.NetworkProtocolFactory{ipv4.NewProtocol, ipv6.NewProtocol},
		TransportProtocols: []netstack.TransportProtocolFactory{tcp.NewProtocol, icmp.NewProtocol4, icmp.NewProtocol6},
		HandleLocal:        false, // else a packet between two fake addresses would never leave
	})
	if terr := configure(network, link, share); terr != nil {
		network.Destroy()
		return nil, fmt.Errorf("configuring netstack: %s", terr)
	}
	return network, nil
}

func configure(network *netstack.Stack, link *link, share share) tcpip.Error {
	if terr := setTCPOptions(network, share); terr != nil {
		return terr
	}
	if terr := network.CreateNIC(nic, link); terr != nil {
		return terr
	}
	// Packets to any address are ours, and so is any source address. Forwarding
	// stays off: it is not needed for that, and would drop merged segments
	// longer than the MTU (gvisor#14011).
	if terr := network.SetPromiscuousMode(nic, true); terr != nil {
		return terr
	}
	if terr := network.SetSpoofing(nic, true); terr != nil {
		return terr
	}
	network.SetRouteTable([]tcpip.Route{
		{Destination: header.IPv4EmptySubnet, NIC: nic},
		{Destination: header.IPv6EmptySubnet, NIC: nic},
	})
	return link.connect(network)
}

func setTCPOptions(network *netstack.Stack, share share) tcpip.Error {
	var (
		sack = tcpip.TCPSACKEnabled(true)
		// Towards a LAN, reno recovers from loss several times faster than
		// netstack's cubic, whose window regrows by the clock rather than by
		// round trips; cubic also had an overflow (gvisor#11632).
		congestion = tcpip.CongestionControlOption("reno")
		// RACK off: with it, 4 of 78 runs of TestKernelClient under the race
		// detector stood still in the middle of a transfer, without it none of
		// 184 (see also Xray-core#5600). Those were over the portable carrier;
		// over virtio none of 44 did, but RACK gained nothing either: runs took
		// a tenth longer, and 0.5 % of loss cost as much.
		recovery = tcpip.TCPRecovery(0)
		// With 1 % of packets lost on a LAN, one loss in twelve ends in a time-out:
		// of a segment that is lost again, or where less than three follow it.
		// With netstack's 200 ms, downloads were at a quarter of what the kernel
		// carries, with 60 ms at two thirds; with 50 ms of RTT it makes no
		// difference. RFC 6298, section 2.4, wants more, for fear of repeating
		// what is only acknowledged late: clients delay their ACKs by 40 to
		// 50 ms, and where they take longer, the measured RTT raises the time-out.
		repeat  = tcpip.TCPMinRTOOption(60 * time.Millisecond)
		send    = tcpip.TCPSendBufferSizeRangeOption{Min: bufferMin, Default: share.bufferDefault, Max: share.bufferMax}
		receive = tcpip.TCPReceiveBufferSizeRangeOption{Min: bufferMin, Default: share.bufferDefault, Max: share.bufferMax}
		// At thousands of closes a second, the 60 s of RFC 9293 would hold a
		// gigabyte of endpoints; delayed segments are no concern on a link
		// that ends in this host.
		timeWait = tcpip.TCPTimeWaitTimeoutOption(2 * time.Second)
		// FIN_WAIT2 after a full close: Linux waits 60 s, for the same reason.
		linger = tcpip.TCPLingerTimeoutOption(20 * time.Second)
	)
	for _, option := range []tcpip.SettableTransportProtocolOption{
		&sack, &congestion, &recovery, &repeat, &send, &receive, &timeWait, &linger,
	} {
		if terr := network.SetTransportProtocolOption(tcp.ProtocolNumber, option); terr != nil {
			return terr
		}
	}
	return nil
}
