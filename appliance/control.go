package appliance

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// ErrNotRunning is wrapped by errors of asking a gateway that does not run.
var ErrNotRunning = errors.New("no running gateway")

// ErrQuestion is wrapped by errors of asking what makes no sense.
var ErrQuestion = errors.New("the gateway does not understand")

// controlRoutes are what the control socket answers.
func (a *Appliance) controlRoutes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, r *http.Request) { a.writeJSON(w, a.Status()) })
	mux.HandleFunc("GET /flows", func(w http.ResponseWriter, r *http.Request) { a.writeJSON(w, a.Flows()) })
	mux.HandleFunc("GET /names", func(w http.ResponseWriter, r *http.Request) { a.writeNames(w) })
	mux.HandleFunc("GET /clients", func(w http.ResponseWriter, r *http.Request) { a.writeJSON(w, a.Clients()) })
	mux.HandleFunc("POST /reload", a.serveReload)
	mux.HandleFunc("GET /explain", func(w http.ResponseWriter, r *http.Request) {
		client, err := a.asClient(r.FormValue("client"))
		var e *Explanation
		if err == nil {
			e, err = a.Explain(r.Context(), r.FormValue("target"), client)
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		a.writeJSON(w, e)
	})
	return mux
}

// asClient returns the client that s names; "" is the machine itself, by its
// first address on a lan interface that is not link-local, or by loopback.
func (a *Appliance) asClient(s string) (netip.Addr, error) {
	if s != "" {
		ip, err := netip.ParseAddr(s)
		if err != nil {
			return ip, fmt.Errorf("%q is no address of a client", s)
		}
		return ip.Unmap(), nil
	}
	for _, l := range a.parts.machine.Load().lan {
		for _, p := range l.addresses {
			if !p.Addr().IsLinkLocalUnicast() {
				return p.Addr(), nil
			}
		}
	}
	return netip.AddrFrom4([4]byte{127, 0, 0, 1}), nil
}

// statusRoutes are what the status address answers, to people and monitors.
func (a *Appliance) statusRoutes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", a.servePage)
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
		a.logWriting(writeMetrics(w, a.Status()))
	})
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, r *http.Request) {
		_, err := fmt.Fprintln(w, "ok")
		a.logWriting(err)
	})
	return byNumber(a.withPassword(mux))
}

// withPassword asks for the password of the status page, where it has one. Who
// guesses is locked out for a while.
func (a *Appliance) withPassword(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		viewers := a.parts.policy.Load().viewers
		if viewers == nil || r.URL.Path == "/healthz" {
			h.ServeHTTP(w, r)
			return
		}
		name, password, given := r.BasicAuth()
		source, err := netip.ParseAddrPort(r.RemoteAddr)
		if given && err == nil {
			err = viewers.Authenticate(r.Context(), source.Addr(), name, password)
		}
		if !given || err != nil {
			w.Header().Set("WWW-Authenticate", `Basic realm="sixgate", charset="UTF-8"`)
			http.Error(w, "a name and password are needed", http.StatusUnauthorized)
			return
		}
		h.ServeHTTP(w, r)
	})
}

// byNumber refuses requests that name the server other than by an address or
// localhost: a web page that a browser on this machine shows could otherwise
// give a name of its own this address, and read what is not its.
func byNumber(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host, _, err := net.SplitHostPort(r.Host)
		if err != nil {
			host = r.Host
		}
		if host != "localhost" && net.ParseIP(host) == nil {
			http.Error(w, "ask by address", http.StatusMisdirectedRequest)
			return
		}
		h.ServeHTTP(w, r)
	})
}

func (a *Appliance) writeJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	a.logWriting(json.NewEncoder(w).Encode(v))
}

// writeNames writes the names one at a time: a full table is many times larger
// in JSON.
func (a *Appliance) writeNames(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "application/json")
	a.logWriting(WriteArray(w, a.parts.table.Mappings()))
}

// WriteArray writes a JSON array of values, each when it comes.
func WriteArray[T any](w io.Writer, values iter.Seq[T]) error {
	before := "["
	for v := range values {
		text, err := json.Marshal(v)
		if err != nil {
			return err
		}
		if _, err := fmt.Fprintf(w, "%s%s", before, text); err != nil {
			return err
		}
		before = ",\n"
	}
	if before == "[" {
		before = "[]"
	} else {
		before = "]"
	}
	_, err := fmt.Fprintln(w, before)
	return err
}

// logWriting tells of an answer that did not reach who asked.
func (a *Appliance) logWriting(err error) {
	if err != nil {
		a.Logger.Debug("answering a question about the gateway", "err", err)
	}
}

// serveHTTP serves until ctx ends. It waits out a shortage of files or memory.
func serveHTTP(ctx context.Context, ln net.Listener, h http.Handler, logger *slog.Logger) error {
	server := &http.Server{
		Handler: h, ErrorLog: slog.NewLogLogger(logger.Handler(), slog.LevelDebug),
		ReadTimeout: 5 * time.Second, WriteTimeout: time.Minute, IdleTimeout: time.Minute, MaxHeaderBytes: 8 << 10,
	}
	stop := context.AfterFunc(ctx, func() { server.Close() })
	defer stop()
	if err := server.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("answering on %s: %w", ln.Addr(), err)
	}
	return nil
}

// listenControl opens the control socket, for root and its group alone. The
// socket that a killed gateway left is replaced; that of a live one, and a file
// that is no socket, is not.
func listenControl(path string) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		return nil, fmt.Errorf("making the directory of the control socket: %w", err)
	}
	conn, err := net.Dial("unix", path)
	switch {
	case err == nil:
		conn.Close()
		return nil, fmt.Errorf("opening control socket %s: another gateway has it: %w", path, syscall.EADDRINUSE)
	case errors.Is(err, syscall.ECONNREFUSED):
		if info, err := os.Lstat(path); err == nil && info.Mode().Type() != fs.ModeSocket {
			return nil, fmt.Errorf("opening control socket %s: there is a file that is no socket: %w", path, syscall.EEXIST)
		}
		if err := os.Remove(path); err != nil {
			return nil, fmt.Errorf("replacing control socket: %w", err)
		}
	}
	ln, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("opening control socket: %w", err)
	}
	if err := os.Chmod(path, 0o660); err != nil {
		return nil, errors.Join(fmt.Errorf("opening control socket: %w", err), ln.Close())
	}
	return ln, nil
}

// Ask gets the answer of the gateway behind a control socket into v.
func Ask(ctx context.Context, socket, path string, v any) error {
	return request(ctx, socket, http.MethodGet, path, into(v))
}

// into returns what reads a whole answer into v.
func into(v any) func(*json.Decoder) error {
	return func(answer *json.Decoder) error { return answer.Decode(v) }
}

// AskNames gets the mapping table of the gateway behind a control socket.
func AskNames(ctx context.Context, socket string) (names []Mapping, err error) {
	err = request(ctx, socket, http.MethodGet, "/names", func(answer *json.Decoder) error {
		if _, err := answer.Token(); err != nil { // [
			return err
		}
		for answer.More() {
			var m Mapping
			if err := answer.Decode(&m); err != nil {
				return err
			}
			names = append(names, m)
		}
		_, err := answer.Token()
		return err
	})
	return names, err
}

// request has read read the gateway's answer.
func request(ctx context.Context, socket, method, path string, read func(*json.Decoder) error) error {
	client := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socket)
		},
	}}
	r, err := http.NewRequestWithContext(ctx, method, "http://localhost"+path, nil)
	if err != nil {
		return err
	}
	response, err := client.Do(r)
	if errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w at control socket %s", ErrNotRunning, socket)
	}
	if errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("asking at control socket %s: only root and the group that it belongs to may: %w", socket, err)
	}
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		why, err := io.ReadAll(io.LimitReader(response.Body, 1<<10))
		if response.StatusCode == http.StatusBadRequest {
			return errors.Join(fmt.Errorf("%w: %s", ErrQuestion, bytes.TrimSpace(why)), err)
		}
		return errors.Join(fmt.Errorf("the gateway says: %s", cmp.Or(string(bytes.TrimSpace(why)), response.Status)), err)
	}
	if err := read(json.NewDecoder(response.Body)); err != nil {
		return fmt.Errorf("reading the gateway's answer: %w", err)
	}
	return nil
}
