package main

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"testing"
	"time"
)

// testParallelDownloads fetches 1 MiB a thousand times at once. The gateway is
// the one that users run: with the race detector it is many times slower.
func testParallelDownloads(t *testing.T, n *namespaces, settings string) {
	plain := *n
	plain.binary = n.build(t, "plain")
	gate := plain.serve(t, "gate", settings)
	const downloads = 1000
	want := sha256.Sum256([]byte(n.run(t, "world", "curl", "-sS", "http://[2001:db8:99::80]/mebibyte")))
	fake := n.resolve(t, "lan", "v6only.test", "A")
	client := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return n.dial(ctx, "lan", network, netip.AddrPortFrom(fake, 80))
		},
	}}
	start := time.Now()
	whole := make(chan error)
	for range downloads {
		go func() { whole <- download(t.Context(), client, "http://v6only.test/mebibyte", want) }()
	}
	var broken []error
	for range downloads {
		if err := <-whole; err != nil {
			broken = append(broken, err)
		}
	}
	if len(broken) > 0 {
		t.Errorf("%d of %d downloads did not arrive whole, such as: %v", len(broken), downloads, broken[0])
	}
	t.Logf("%d downloads took %v", downloads, time.Since(start).Round(time.Millisecond))
	gate.stop(t)
}

func download(ctx context.Context, client *http.Client, url string, want [sha256.Size]byte) error {
	ctx, cancel := context.WithTimeout(ctx, 10*patience)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	sum := sha256.New()
	size, err := io.Copy(sum, response.Body)
	if err != nil {
		return fmt.Errorf("after %d octets: %w", size, err)
	}
	if [sha256.Size]byte(sum.Sum(nil)) != want {
		return fmt.Errorf("%d octets with another SHA-256", size)
	}
	return nil
}
