package appliance

import (
	"context"

	"golang.org/x/sync/errgroup"

	"sixgate/appliance/advert"
	"sixgate/appliance/host"
)

// watch starts tasks that call follow now, and at each change of the machine's
// network until ctx ends. follow returns the machine as it is then.
func (p *parts) watch(ctx context.Context, tasks *errgroup.Group, follow func() *machine) {
	routers := p.listenRouters(ctx, tasks)
	tasks.Go(func() error { return host.Watch(ctx, func() { routers(follow().uplinks) }) })
}

// follow takes up what a survey of the machine has found, and tells those parts
// that do not ask each time. It returns the machine as it is taken from now on.
func (p *parts) follow(now *machine, err error) *machine {
	before := p.machine.Load()
	if err != nil {
		p.logger.Warn("keeping what was last known of the machine", "err", err)
		return before
	}
	p.machine.Store(now)
	if now.uplink != before.uplink || now.String() != before.String() {
		p.logger.Info("the machine has changed", "uplink", familyNames(now.uplink), "lan", now)
		p.translator.follow()
	}
	return now
}

// listenRouters starts a task that finds the network's NAT64 in what routers
// advertise, where it is to be found. It returns how to tell it at which
// interfaces. Without the right to do so, DNS alone is asked.
func (p *parts) listenRouters(ctx context.Context, tasks *errgroup.Group) (follow func(uplinks []int)) {
	if !p.translator.find {
		return func([]int) {}
	}
	link, err := advert.OpenAll()
	if err != nil {
		p.logger.Warn("the NAT64 of the network is asked of DNS alone", "err", rightsError(p.policy.Load().config, err))
		return func([]int) {}
	}
	l := advert.NewListener(link, p.translator.hear, p.logger)
	tasks.Go(func() error { return l.Run(ctx) })
	return l.Follow
}
