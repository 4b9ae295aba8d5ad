package host

import (
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// label is the alias of a gateway's link, by which other gateways of its network
// namespace know that the routes and the table are not theirs.
const label = "sixgate"

// claim is a link that has the label by us.
type claim struct {
	link  int    // its index; 0: none
	alias string // that it had before
}

// claimLink puts the label on a link. Where another gateway runs it is EBUSY. Of
// two that begin at a time, the one with the older link goes on.
func (n *Network) claimLink(name string) error {
	device, err := n.handle.LinkByName(name)
	if err != nil {
		return fmt.Errorf("finding link %s: %w", name, err)
	}
	index := device.Attrs().Index
	if n.claim.link == index {
		return nil
	}
	if err := n.handle.LinkSetAlias(device, label); err != nil {
		return fmt.Errorf("labelling link %s: %w", name, err)
	}
	if err := n.others(index); err != nil {
		return errors.Join(err, n.handle.LinkSetAlias(device, device.Attrs().Alias))
	}
	n.claim = claim{index, device.Attrs().Alias}
	return nil
}

// dropClaim takes the label off.
func (n *Network) dropClaim() error {
	device, err := n.handle.LinkByIndex(n.claim.link)
	if _, gone := errors.AsType[netlink.LinkNotFoundError](err); gone {
		err = nil
	} else if err == nil {
		err = n.handle.LinkSetAlias(device, n.claim.alias)
	}
	if err != nil {
		return fmt.Errorf("taking the label off link %d: %w", n.claim.link, err)
	}
	n.claim = claim{}
	return nil
}

// others returns EBUSY where a gateway runs on another link than the one of this
// index, or begins on an older one.
func (n *Network) others(index int) error {
	links, err := whole(n.handle.LinkList)
	if err != nil {
		return fmt.Errorf("listing links: %w", err)
	}
	for _, l := range links {
		a := l.Attrs()
		if a.Alias != label || a.Index == index {
			continue
		}
		device, ok := l.(*netlink.Tuntap)
		lives := ok && device.NonPersist // as long as its gateway
		if opened := a.RawFlags&unix.IFF_LOWER_UP != 0; opened || lives && (index == 0 || a.Index < index) {
			return fmt.Errorf("another gateway runs on link %s of this network: %w", a.Name, unix.EBUSY)
		}
	}
	return nil
}
