package stack

import (
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
)

// UserTimeout returns how long r's connection waits for an acknowledgement; 0
// is for ever, as long as the client answers at all.
func (r *TCPRequest) UserTimeout() time.Duration {
	var option tcpip.TCPUserTimeoutOption
	r.ep.GetSockOpt(&option)
	return time.Duration(option)
}
