package host

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// The aliases of gateways' links, by which those of one network namespace know
// what is not theirs: one alone serves LANs, and has the nft table; others, with
// pools of their own, may serve the machine.
const (
	label    = "sixgate"
	labelLAN = "sixgate lan"
)

// claim is a link that has a label by us.
type claim struct {
	link  int    // its index; 0: none
	alias string // that it had before
	lan   bool
}

// neighbour is another gateway that runs, or begins.
type neighbour struct {
	link  string
	index int
	up    bool
	lan   bool
	pools []netip.Prefix // once it is up
}

// claimLink labels the link of s. Where that takes what another gateway has it is
// EBUSY. Of two that begin at a time, the one with the older link goes on.
func (n *Network) claimLink(s State) error {
	device, err := n.handle.LinkByName(s.Link)
	if err != nil {
		return fmt.Errorf("finding link %s: %w", s.Link, err)
	}
	want := claim{device.Attrs().Index, device.Attrs().Alias, len(s.LAN) > 0}
	if n.claim.link == want.link {
		return nil
	}
	text := label
	if want.lan {
		text = labelLAN
	}
	if err := n.handle.LinkSetAlias(device, text); err != nil {
		return fmt.Errorf("labelling link %s: %w", s.Link, err)
	}
	if err := n.collides(s, want); err != nil {
		return errors.Join(err, n.handle.LinkSetAlias(device, want.alias))
	}
	n.claim = want
	return nil
}

// collides returns EBUSY where another gateway has what s is to be.
func (n *Network) collides(s State, by claim) error {
	others, err := n.neighbours(by.link)
	if err != nil {
		return err
	}
	for _, o := range others {
		overlaps := slices.ContainsFunc(o.pools, func(p netip.Prefix) bool { return slices.ContainsFunc(s.ours(), p.Overlaps) })
		if (o.up || o.index < by.link) && (o.lan && by.lan || overlaps) {
			return o.busy()
		}
	}
	return nil
}

func (o neighbour) busy() error {
	return fmt.Errorf("another gateway runs on link %s of this network: %w", o.link, unix.EBUSY)
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

// guest reports whether a gateway that serves LANs, or not, leaves the nft table
// to another one.
func guest(lan bool, others []neighbour) bool {
	return !lan && slices.ContainsFunc(others, func(o neighbour) bool { return o.lan })
}

// neighbours returns the other gateways than the one whose link has this index.
func (n *Network) neighbours(index int) ([]neighbour, error) {
	links, err := whole(n.handle.LinkList)
	if err != nil {
		return nil, fmt.Errorf("listing links: %w", err)
	}
	var others []neighbour
	for _, l := range links {
		a := l.Attrs()
		o := neighbour{link: a.Name, index: a.Index, up: a.RawFlags&unix.IFF_LOWER_UP != 0, lan: a.Alias == labelLAN}
		device, ok := l.(*netlink.Tuntap)
		lives := o.up || ok && device.NonPersist // as long as its gateway
		if a.Index == index || a.Alias != label && a.Alias != labelLAN || !lives {
			continue
		}
		addresses, err := whole(func() ([]netlink.Addr, error) { return n.handle.AddrList(l, netlink.FAMILY_ALL) })
		if err != nil {
			return nil, fmt.Errorf("listing addresses of link %s: %w", a.Name, err)
		}
		for _, address := range addresses {
			o.pools = append(o.pools, prefix(address.IPNet).Masked())
		}
		others = append(others, o)
	}
	return others, nil
}
