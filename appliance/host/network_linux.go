package host

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"reflect"
	"slices"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Network holds a network namespace, that of the caller of New, to a State.
// It is not for concurrent use.
type Network struct {
	log    *slog.Logger
	handle *netlink.Handle // nil once closed
	claim  claim
	held   *State // nil until the first Set that succeeded
	link   link
	told   time.Time // when a loss of routes was told last

	text   string  // of our table as it stands; empty: unknown
	before journal // in our table as it stands
}

// New returns a Network that has changed nothing yet. A nil logger is silent.
func New(logger *slog.Logger) (*Network, error) {
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	handle, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("opening netlink: %w", err)
	}
	return &Network{log: logger, handle: handle}, nil
}

// Set makes the network that of s, changing only what differs, also from an
// earlier Set: what others have removed of it is put back. What a killed
// gateway left is taken over: its routes and table become those of s, and
// Close restores what was before it. After an error the network is what it
// was before Set, and before the gateway if this was the first. Where another
// gateway has the pools, or serves LANs as this one would, that is EBUSY.
func (n *Network) Set(s State) error {
	if n.handle == nil {
		return fmt.Errorf("setting the network: %w", net.ErrClosed)
	}
	if err := s.validate(); err != nil {
		return err
	}
	if err := n.claimLink(s); err != nil {
		return err
	}
	if err := n.apply(s); err != nil {
		if n.held != nil {
			return errors.Join(err, n.apply(*n.held))
		}
		return errors.Join(err, n.restore(), n.dropClaim())
	}
	if n.held == nil || !reflect.DeepEqual(*n.held, s) {
		n.log.Info("network set", "link", s.Link, "addresses", s.Addresses, "lan", s.LAN)
	}
	n.held = &s
	return nil
}

// apply goes from what keeps fakes off the world to what brings them in.
func (n *Network) apply(s State) error {
	others, err := n.neighbours(n.claim.link)
	if err != nil {
		return err
	}
	if err := n.setRoutes(s.ours(), others); err != nil {
		return err
	}
	if guest(n.claim.lan, others) {
		return n.setLink(s)
	}
	if err := n.setDelivery(s.handedOver()); err != nil {
		return err
	}
	if err := n.setTable(s); err != nil {
		return err
	}
	return n.setLink(s)
}

// Close restores what the network was before the gateway. Later calls do
// nothing.
func (n *Network) Close() error {
	if n.handle == nil {
		return nil
	}
	var err error
	if n.claim.link != 0 { // else it may be another gateway's
		if err = errors.Join(n.restore(), n.dropClaim()); err == nil {
			n.log.Info("network restored")
		}
	}
	n.handle.Close()
	n.handle = nil
	return err
}

// restore is apply backwards, to nothing.
func (n *Network) restore() error {
	err := n.restoreLink()
	others, unknown := n.neighbours(n.claim.link)
	if unknown != nil {
		return errors.Join(err, unknown)
	}
	if !guest(n.claim.lan, others) {
		err = errors.Join(err, n.removeTable(), n.setDelivery(nil))
	}
	return errors.Join(err, n.setRoutes(nil, others))
}

// CleanUp removes what a killed gateway left: routes, nft table, and the
// sysctls that it changed, whose values are in the table. The killed
// gateway's link went with it; where a gateway that serves LANs runs, CleanUp
// changes nothing and returns EBUSY.
func CleanUp() error {
	n, err := New(nil)
	if err != nil {
		return err
	}
	defer n.handle.Close()
	others, err := n.neighbours(0)
	if err != nil {
		return err
	}
	if i := slices.IndexFunc(others, func(o neighbour) bool { return o.lan }); i >= 0 {
		return fmt.Errorf("cleaning up: %w", others[i].busy())
	}
	return n.restore()
}
