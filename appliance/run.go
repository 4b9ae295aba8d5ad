package appliance

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"sixgate/appliance/config"
	"sixgate/appliance/confine"
	"sixgate/socks/gateway"
	"sixgate/socks/nat64"
	"sixgate/stack"
)

// settling is how often it is looked whether what a program has sent is on its
// way, after the program has ended.
const settling = 20 * time.Millisecond

// Program is a program to run.
type Program = confine.Program

// Enter is called in the process that RunProgram has started for a program, and
// returns only when it does not become that program.
func Enter(socket int, path string, args, env []string) error {
	return confine.Enter(socket, path, args, env)
}

// RunProgram runs a program as the socksified client of RFC 3089, which it need
// not know: whatever it does by TCP and UDP goes through a gateway in this
// process. It returns the program's exit status, or 128 and the number of the
// signal that ended it; with an error, what a shell has for a program that
// cannot be executed, or 0 where it never came to that.
func RunProgram(c *config.Config, p Program, o Options) (status int, err error) {
	g, err := newPersonal(c, o)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, g.close()) }()
	status, err = confine.Run(p, confine.Network{
		TUN: c.TUN.Name, MTU: c.TUN.MTU, Addresses: g.parts.machine.Load().gatewayAddresses(g.config), Resolver: g.router(),
	}, g.start)
	switch {
	case err == nil:
		g.settle()
	case status == 0 && g.stop == nil:
		err = fmt.Errorf("%w: %w", ErrHost, err)
	}
	return status, err
}

// personal is a gateway for one program.
type personal struct {
	Options
	config *config.Config
	parts  *parts
	tasks  errgroup.Group
	stop   context.CancelFunc // of the tasks; nil before start
}

// newPersonal builds a gateway, and changes nothing of the machine.
func newPersonal(c *config.Config, o Options) (*personal, error) {
	own := *c
	own.LAN = config.LAN{}
	own.Pool.State = ""
	// A program may have use for one family only, whatever its host has.
	own.DNS.Fake = config.FakeAlways
	// A mark needs a capability, and nothing here is captured.
	own.Direct.Mark = 0
	// The table is the program's alone.
	own.Limits.NewNames = 0
	g := &personal{Options: o, config: &own}
	m, err := g.survey(true)
	if err != nil {
		return nil, err
	}
	if g.parts, err = build(&own, m, o.Logger); err != nil {
		return nil, err
	}
	g.parts.tun.literal = everywhere
	return g, nil
}

// survey looks at the machine as the one of a program that has IPv6 or has not.
// Who runs the program may reach the machine itself without it.
func (g *personal) survey(ipv6 bool) (*machine, error) {
	m, err := survey(g.config)
	if err != nil {
		return nil, err
	}
	m.denied, m.ipv6 = nil, ipv6
	return m, nil
}

// router returns the gateway's address in the program's network, where it is the
// DNS server, too. What goes to the link's own address stays inside.
func (g *personal) router() netip.Addr { return g.config.Pool.IPv4.Addr().Next().Next() }

// everywhere is the literal of a program whose every packet comes to the
// gateway. Programs on networks of IPv6 alone may write IPv4 addresses behind a
// prefix.
func everywhere(_, ip netip.Addr) (netip.Addr, bool) {
	if v4, ok := nat64.Literal(ip); ok {
		ip = v4
	}
	return ip, ip.IsGlobalUnicast()
}

// start serves the device tun.
func (g *personal) start(tun int, ipv6 bool) error {
	device, err := stack.TakeTUN(tun)
	if err != nil {
		return err
	}
	m := g.parts.follow(g.survey(ipv6))
	packets, err := stack.New(stack.Config{
		Device: device, MTU: g.config.TUN.MTU, Memory: m.memory, Handler: g.parts.tun, Logger: g.Logger,
		MaxDatagramFlows: flows(g.config, m) / 2, Router: g.router(),
	})
	if err != nil {
		return errors.Join(err, device.Close())
	}
	g.parts.tun.packets.Store(packets)
	ctx, stop := context.WithCancel(context.Background())
	g.stop = stop
	g.parts.hosts.Reload() // before the first query
	g.tasks.Go(func() error { return packets.Run(ctx) })
	g.tasks.Go(func() error { return g.parts.hosts.Run(ctx) })
	g.tasks.Go(func() error { return g.parts.translator.run(ctx) })
	g.parts.watch(ctx, &g.tasks, func() *machine { return g.parts.follow(g.survey(ipv6)) })
	return nil
}

// settle waits, but not for ever, until what the program has sent before its end
// is on its way: its kernel still holds some of it. UDP flows have no end.
func (g *personal) settle() {
	again := time.NewTicker(settling)
	defer again.Stop()
	end := time.After(drainTime)
	for {
		select {
		case <-end:
			return
		case <-again.C:
		}
		if !slices.ContainsFunc(g.parts.gateway.Flows(), func(f gateway.Flow) bool { return f.Network == "tcp" || f.Type == 0 }) {
			return
		}
	}
}

// close ends all flows, and what start has started.
func (g *personal) close() error {
	now, cancel := context.WithCancel(context.Background())
	cancel()
	if g.stop != nil {
		g.stop() // first, as a handshake that the program has left would hold up the rest
	}
	g.parts.gateway.Shutdown(now)
	return errors.Join(g.tasks.Wait(), g.parts.close())
}
