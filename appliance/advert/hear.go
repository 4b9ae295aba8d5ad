package advert

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"time"

	"golang.org/x/time/rate"
)

// heardPerSecond bounds the messages that are read. What comes beyond that, of
// a neighbour who floods the link, is the kernel's to drop.
const heardPerSecond = 100

// hear calls take with what link receives until ctx ends or link is closed.
func hear(ctx context.Context, link Link, logger *slog.Logger, take func(Packet)) {
	pace := rate.NewLimiter(heardPerSecond, heardPerSecond)
	for pace.Wait(ctx) == nil {
		p, err := link.Receive()
		switch {
		case err == nil:
			take(p)
		case errors.Is(err, net.ErrClosed):
			return
		default:
			logger.Debug("hearing neighbours", "err", err)
			select {
			case <-ctx.Done():
			case <-time.After(time.Second):
			}
		}
	}
}
