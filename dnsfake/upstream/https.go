package upstream

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"syscall"
	"time"

	"github.com/miekg/dns"
)

const (
	mediaType = "application/dns-message" // RFC 8484, section 6
	maxSize   = 65535                     // octets of a message
	// httpIdle is when a connection without queries is closed.
	httpIdle = 30 * time.Second
	// httpPing is how long a connection with queries may be silent before it
	// is asked whether it still lives (RFC 9113, section 6.7).
	httpPing = time.Second
)

// https asks a server by HTTP/2, over one connection at a time (RFC 8484).
type https struct {
	url    string
	client *http.Client
}

func (c *Config) https(server Server) *https {
	var h2 http.Protocols
	h2.SetHTTP2(true)
	tcp := c.plainTCP(server)
	return &https{server.url(), &http.Client{
		Transport: &http.Transport{
			// A dial outlives the query that began it, so it needs an end of
			// its own.
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				ctx, cancel := context.WithTimeout(ctx, c.Timeout)
				defer cancel()
				return tcp(ctx)
			},
			TLSHandshakeTimeout: c.Timeout,

			TLSClientConfig: c.verify(server),
			Protocols:       &h2,
			HTTP2:           &http.HTTP2Config{SendPingTimeout: httpPing, PingTimeout: c.Timeout},
			IdleConnTimeout: httpIdle,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

func (h *https) exchange(ctx context.Context, query []byte) (*dns.Msg, error) {
	clear(query[:2]) // RFC 8484, section 4.1
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, h.url, bytes.NewReader(query))
	if err != nil {
		return nil, err
	}
	request.Header.Set("Content-Type", mediaType)
	request.Header.Set("Accept", mediaType)
	request.Header.Set("User-Agent", "") // nobody's business (RFC 8484, section 8.2)
	response, err := h.client.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK || response.Header.Get("Content-Type") != mediaType {
		return nil, fmt.Errorf("the server answers %s with %q: %w", response.Status, response.Header.Get("Content-Type"), syscall.EPROTO)
	}
	wire, err := io.ReadAll(io.LimitReader(response.Body, maxSize))
	if err != nil {
		return nil, err
	}
	return matchConnected(wire, query)
}

func (h *https) close() { h.client.CloseIdleConnections() }
