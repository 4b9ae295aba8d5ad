package appliance

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
)

func TestControlSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "run", "control.sock")
	var got string
	if err := Ask(t.Context(), path, "/status", &got); !errors.Is(err, ErrNotRunning) {
		t.Errorf("nobody there: %v", err)
	}
	for _, life := range []string{"first", "after a kill"} {
		ln, err := listenControl(path)
		if err != nil {
			t.Fatalf("%s: %v", life, err)
		}
		if _, err := listenControl(path); !errors.Is(err, syscall.EADDRINUSE) {
			t.Errorf("%s: a second gateway got %v", life, err)
		}
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o660 {
			t.Errorf("%s: %v, %v", life, info.Mode(), err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() {
			ended <- serveHTTP(ctx, ln, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				json.NewEncoder(w).Encode(life)
			}), slog.New(slog.DiscardHandler))
		}()
		if err := Ask(t.Context(), path, "/status", &got); err != nil || got != life {
			t.Errorf("%s: answer %q, %v", life, got, err)
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		// What a killed gateway leaves: a file that nobody listens behind.
		stale, err := listenControl(path)
		if err != nil {
			t.Fatal(err)
		}
		stale.(interface{ SetUnlinkOnClose(bool) }).SetUnlinkOnClose(false)
		stale.Close()
		if err := Ask(t.Context(), path, "/status", &got); !errors.Is(err, ErrNotRunning) {
			t.Errorf("%s: a dead gateway: %v", life, err)
		}
	}
}

// TestControlSocketSparesFiles has a configuration that names a file of somebody
// else's.
func TestControlSocketSparesFiles(t *testing.T) {
	path := filepath.Join(t.TempDir(), "precious")
	if err := os.WriteFile(path, []byte("text"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := listenControl(path); !errors.Is(err, syscall.EEXIST) {
		t.Errorf("got %v", err)
	}
	if text, err := os.ReadFile(path); err != nil || string(text) != "text" {
		t.Errorf("the file has %q, %v", text, err)
	}
}

// TestAsClient has a lan interface without an address that a client could have.
func TestAsClient(t *testing.T) {
	a := &Appliance{parts: &parts{}}
	a.parts.machine.Store(&machine{lan: []lan{{name: "lan0"}, {name: "lan1", addresses: []netip.Prefix{
		netip.MustParsePrefix("fe80::1/64"), netip.MustParsePrefix("fd00:77::1/64"),
	}}}})
	if client, err := a.asClient(""); err != nil || client != netip.MustParseAddr("fd00:77::1") {
		t.Errorf("got %v, %v", client, err)
	}
	if client, err := a.asClient("::ffff:192.0.2.2"); err != nil || client != netip.MustParseAddr("192.0.2.2") {
		t.Errorf("got %v, %v", client, err)
	}
	if _, err := a.asClient("printer"); err == nil {
		t.Error("a name was taken for an address")
	}
	a.parts.machine.Store(&machine{lan: []lan{{name: "lan0"}}})
	if client, err := a.asClient(""); err != nil || client != netip.MustParseAddr("127.0.0.1") {
		t.Errorf("got %v, %v", client, err)
	}
}

// TestQuestion asks what makes no sense, which is the fault of who asks.
func TestQuestion(t *testing.T) {
	path := filepath.Join(t.TempDir(), "control.sock")
	ln, err := listenControl(path)
	if err != nil {
		t.Fatal(err)
	}
	a := &Appliance{Options: Options{Logger: slog.New(slog.DiscardHandler)}, parts: &parts{}}
	a.parts.machine.Store(&machine{})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- serveHTTP(ctx, ln, a.controlRoutes(), a.Logger) }()
	for query, want := range map[string]string{
		"/explain?target=a..b":                     `the gateway does not understand: parsing host "a..b": label of 0 or over 63 octets`,
		"/explain?target=a.example&client=printer": `the gateway does not understand: "printer" is no address of a client`,
	} {
		if err := Ask(t.Context(), path, query, new(Explanation)); !errors.Is(err, ErrQuestion) || err.Error() != want {
			t.Errorf("%s: %v", query, err)
		}
	}
	if err := Ask(t.Context(), path, "/nowhere", new(Explanation)); err == nil || errors.Is(err, ErrQuestion) {
		t.Errorf("no such question: %v", err)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestByNumber(t *testing.T) {
	h := byNumber(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	for host, want := range map[string]int{
		"127.0.0.1:8064": 200, "[::1]:8064": 200, "localhost:8064": 200, "127.0.0.1": 200,
		"rebound.example:8064": 421, "rebound.example": 421, "": 421,
	} {
		r := httptest.NewRequest("GET", "/metrics", nil)
		r.Host = host
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != want {
			t.Errorf("Host %q: %d, want %d", host, w.Code, want)
		}
	}
}

// Names come one at a time, and a list that ends too early is none.
func TestAskNames(t *testing.T) {
	all := []Mapping{
		{Name: "a.example", IPv4: netip.MustParseAddr("198.18.0.16"), IPv6: netip.MustParseAddr("2001:2::10")},
		{Name: "b.example", IPv4: netip.MustParseAddr("198.18.0.17"), IPv6: netip.MustParseAddr("2001:2::11"), Flows: 2},
	}
	for _, test := range []struct {
		names []Mapping
		cut   int // octets of the answer
		ok    bool
	}{{all, 0, true}, {all[:1], 0, true}, {nil, 0, true}, {all, 2, false}, {all, 20, false}} {
		var text bytes.Buffer
		if err := WriteArray(&text, slices.Values(test.names)); err != nil {
			t.Fatal(err)
		}
		text.Truncate(text.Len() - test.cut)
		path := filepath.Join(t.TempDir(), "socket")
		ln, err := listenControl(path)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() {
			ended <- serveHTTP(ctx, ln, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.Write(text.Bytes())
			}), slog.New(slog.DiscardHandler))
		}()
		got, err := AskNames(t.Context(), path)
		if (err == nil) != test.ok || test.ok && !slices.Equal(got, test.names) {
			t.Errorf("%s: got %v, %v", &text, got, err)
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
}
