package appliance

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/netutil"
	"golang.org/x/sync/errgroup"

	"sixgate/appliance/config"
	"sixgate/appliance/host"
	"sixgate/dnsfake"
	"sixgate/stack"
)

// drainTime is how long flows may go on after the gateway was told to stop.
const drainTime = 3 * time.Second

// ErrHost is wrapped by errors of a host that cannot run a gateway: no TUN
// device or no nftables, or not the right to use them.
var ErrHost = errors.New("this host cannot run the gateway")

// Options are what a gateway needs besides its configuration.
type Options struct {
	Version string       // what it says it is
	Logger  *slog.Logger // never nil

	// Notify tells the service manager of a state in the words of
	// sd_notify(3). It may be nil.
	Notify func(state string)
	// Watchdog is how long the service manager waits for a sign of life; 0:
	// for ever.
	Watchdog time.Duration

	// Load reads the configuration again for a gateway that runs with running.
	// It may be nil: there is nothing to reload.
	Load func(running *config.Config) (*config.Config, error)
	// HangUps make the gateway reload. It may be nil.
	HangUps <-chan os.Signal
	// Level is that of Logger, which follows the configuration. It may be nil.
	Level *slog.LevelVar
}

// Appliance is a whole gateway.
type Appliance struct {
	Options
	started time.Time
	parts   *parts
	packets atomic.Pointer[stack.Stack] // nil before Run

	reloading sync.Mutex // held by who reloads
}

// New builds a gateway, and changes nothing of the machine.
func New(c *config.Config, o Options) (*Appliance, error) {
	m, err := survey(c)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrHost, err)
	}
	if o.Notify == nil {
		o.Notify = func(string) {}
	}
	a := &Appliance{Options: o, started: time.Now()}
	if a.parts, err = build(c, m, o.Logger); err != nil {
		return nil, err
	}
	return a, nil
}

// config returns the configuration in force.
func (a *Appliance) config() *config.Config { return a.parts.policy.Load().config }

// Run opens the gateway to the world, serves until ctx ends, and closes it: DNS
// opens last and closes first, as a fake answer is a promise. Whatever went
// up before an error is taken down again. What a killed predecessor left is
// taken over.
func (a *Appliance) Run(ctx context.Context) (err error) {
	limitMemory(a.parts.machine.Load().memory, a.Logger)
	defer func() { err = errors.Join(err, a.parts.close()) }()
	device, err := stack.OpenTUN(a.config().TUN.Name, a.config().TUN.MTU)
	if err != nil {
		return hostError(a.config(), err)
	}
	defer func() {
		if closing := device.Close(); !errors.Is(closing, os.ErrClosed) { // the stack closes it too
			err = errors.Join(err, closing)
		}
	}()
	network, err := host.New(a.Logger)
	if err != nil {
		return hostError(a.config(), err)
	}
	defer func() { err = errors.Join(err, network.Close()) }()
	defer a.parts.handover.close()
	if err := a.parts.handover.open(ctx, a.config().TUN.Handover, a.state(a.parts.machine.Load())); err != nil {
		return err
	}
	if err := network.Set(a.state(a.parts.machine.Load())); err != nil {
		return hostError(a.config(), err)
	}
	defer a.keepNames(ctx)()
	packets, err := stack.New(stack.Config{
		Device: device, MTU: a.config().TUN.MTU, Memory: a.parts.machine.Load().memory, Handler: a.parts.tun, Logger: a.Logger,
		// Datagrams leave TCP room: their sources are easily forged.
		MaxDatagramFlows: flows(a.config(), a.parts.machine.Load()) / 2,
		Router:           router(a.config()),
	})
	if err != nil {
		return err
	}
	a.packets.Store(packets)
	a.parts.tun.packets.Store(packets)
	return a.serve(ctx, packets, network)
}

// state returns what the gateway wants of the network of m.
func (a *Appliance) state(m *machine) host.State {
	s := m.state(a.config())
	s.Handover = a.parts.handover.addresses()
	return s
}

// keepNames takes up what the last run promised, and keeps it in the state file
// until stop is called. Without a file the promises last as long as the process.
func (a *Appliance) keepNames(ctx context.Context) (stop func()) {
	if a.config().Pool.State == "" {
		return func() {}
	}
	journal, err := dnsfake.OpenJournal(a.config().Pool.State, a.parts.table, a.Logger)
	if err != nil {
		a.Logger.Warn("names will get other addresses after a restart", "err", err)
		return func() {}
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := journal.Run(ctx); err != nil {
			a.Logger.Warn("names will get other addresses after a restart", "err", err)
		}
	}()
	return func() {
		cancel()
		<-done
	}
}

// serve runs the stack and the listeners until ctx ends or one of them fails,
// then lets the flows of both inlets end before the stack does.
func (a *Appliance) serve(ctx context.Context, packets *stack.Stack, network *host.Network) error {
	ctx, stopListening := context.WithCancel(ctx)
	defer stopListening()
	tasks, ctx := errgroup.WithContext(ctx)
	stackCtx, stopStack := context.WithCancel(context.WithoutCancel(ctx))
	defer stopStack()
	tasks.Go(func() error { return packets.Run(stackCtx) })
	a.parts.handover.serve(tasks)
	dns := &dnsSockets{server: a.parts.dns, tasks: tasks, open: map[netip.AddrPort]dnsSocket{}}
	a.parts.hosts.Reload() // before the first query
	tasks.Go(func() error { return a.parts.hosts.Run(ctx) })
	tasks.Go(func() error { return a.parts.translator.run(ctx) })
	err := hostError(a.config(), a.listen(ctx, tasks, dns))
	if err == nil {
		err = hostError(a.config(), a.parts.senders.set(ctx, tasks, a.config(), a.parts.machine.Load()))
	}
	if err == nil {
		a.listenSight(ctx, tasks)
		a.parts.watch(ctx, tasks, func() *machine { return a.follow(ctx, tasks, network, dns) })
		tasks.Go(func() error { return a.live(ctx) })
		tasks.Go(func() error { return returnMemory(ctx) })
		tasks.Go(func() error { return a.heed(ctx) })
		tasks.Go(func() error {
			minutes := time.NewTicker(dropsPeriod)
			defer minutes.Stop()
			a.tellDrops(ctx, minutes.C)
			return nil
		})
		tasks.Go(func() error {
			if err := a.parts.dns.FindLoop(ctx); err != nil {
				a.Logger.Error("no name will have an answer; [dns] upstreams, or resolv.conf without them, must name other resolvers than this gateway", "err", err)
			}
			return nil
		})
		a.Logger.Info("ready")
		a.Notify("READY=1")
		<-ctx.Done()
		a.Notify("STOPPING=1")
		a.Logger.Info("stopping", "flows", len(a.parts.gateway.Flows()))
	}
	stopListening()
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTime)
	defer cancel()
	context.AfterFunc(drain, func() { // handshakes that no client ends, too
		a.parts.handover.close()
		stopStack()
	})
	a.parts.gateway.Shutdown(drain)
	a.parts.handover.close()
	stopStack()
	err = errors.Join(err, tasks.Wait())
	a.Logger.Debug("stopped", "tun", packets.Counters(), "dns", a.parts.dns.Counters(), "gateway", a.parts.gateway.Counters())
	return err
}

// listen starts tasks that serve SOCKS and, last, DNS until ctx ends.
func (a *Appliance) listen(ctx context.Context, tasks *errgroup.Group, dns *dnsSockets) error {
	opened, err := listen(ctx, "SOCKS", false, a.parts.machine.Load().listenSOCKS(a.config()))
	if err != nil {
		return err
	}
	for _, s := range opened {
		tasks.Go(func() error {
			return a.parts.socks.Serve(ctx, newPatient(s.listener, "accepting SOCKS clients", a.Logger))
		})
	}
	// The gateway's own addresses in the pools answer DNS like all the others
	// there, unless a server of this machine has taken port 53 everywhere.
	for _, own := range a.parts.machine.Load().gatewayAddresses(a.config()) {
		if err := dns.serve(ctx, netip.AddrPortFrom(own.Addr(), portDNS)); err != nil {
			a.Logger.Warn("no DNS on the gateway's own fake address", "err", err)
		}
	}
	return dns.set(ctx, a.parts.machine.Load().listenDNS(a.config()))
}

// maxViewers is how many connections the status page has at a time: strangers
// who open many, where it is not on loopback, take no files from clients' flows.
const maxViewers = 64

// listenSight starts tasks that show how the gateway is. It runs without them,
// too: another gateway of this machine may have their places.
func (a *Appliance) listenSight(ctx context.Context, tasks *errgroup.Group) {
	if socket := a.config().Control.Socket; socket != "" {
		ln, err := listenControl(socket)
		if err != nil {
			a.Logger.Warn("nobody can ask this gateway", "err", err)
		} else {
			tasks.Go(func() error { return serveHTTP(ctx, ln, a.controlRoutes(), a.Logger) })
		}
	}
	if addr := a.config().Status.Listen; addr.IsValid() {
		opened, err := listen(ctx, "status", false, []netip.AddrPort{addr})
		if err != nil {
			a.Logger.Warn("no status page", "err", err)
			return
		}
		tasks.Go(func() error {
			return serveHTTP(ctx, netutil.LimitListener(opened[0].listener, maxViewers), a.statusRoutes(), a.Logger)
		})
	}
}

// live gives the service manager signs of life until ctx ends. Each looks at
// all parts, so that a lock that is never freed ends them.
func (a *Appliance) live(ctx context.Context) error {
	if a.Watchdog <= 0 {
		return nil
	}
	signs := time.NewTicker(a.Watchdog / 2)
	defer signs.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-signs.C:
			a.Status()
			a.Notify("WATCHDOG=1")
		}
	}
}

// follow looks at the machine again and makes the gateway fit it: what is
// faked, what is denied, where DNS is served, what is advertised, and what others
// have removed of the gateway's network.
func (a *Appliance) follow(ctx context.Context, tasks *errgroup.Group, network *host.Network, dns *dnsSockets) *machine {
	now := a.parts.follow(survey(a.config()))
	if ctx.Err() != nil {
		return now
	}
	err := errors.Join(
		network.Set(a.state(now)),
		dns.set(ctx, now.listenDNS(a.config())),
		a.parts.senders.set(ctx, tasks, a.config(), now),
	)
	if err != nil && ctx.Err() == nil { // at the end the link goes first
		a.Logger.Warn("following a change of the machine", "err", err)
	}
	return now
}

// CleanUp removes what a killed gateway of this configuration left.
func CleanUp(c *config.Config) error {
	if f := admin().check(grant(c)); !f.OK {
		return fmt.Errorf("%w: cleaning up takes CAP_NET_ADMIN: %s", ErrHost, f.Advice)
	}
	return hostError(c, host.CleanUp())
}
