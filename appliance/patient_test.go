package appliance

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// short is a Listener without descriptors for a number of times.
type short struct {
	net.Listener
	times  int
	closed chan struct{}
}

func (s *short) Accept() (net.Conn, error) {
	select {
	case <-s.closed:
		return nil, net.ErrClosed
	default:
	}
	if s.times--; s.times >= 0 {
		return nil, fmt.Errorf("accept: %w", syscall.EMFILE)
	}
	return &net.TCPConn{}, nil
}

func (s *short) Close() error { close(s.closed); return nil }

func TestPatient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		ln := &short{times: 12, closed: make(chan struct{})}
		p := newPatient(ln, "accepting", slog.New(slog.NewTextHandler(&log, nil)))
		began := time.Now()
		if _, err := p.Accept(); err != nil {
			t.Error(err)
		}
		if took := time.Since(began); took < 2*time.Second || took > 12*time.Second {
			t.Errorf("12 errors took %s", took)
		}
		if !strings.Contains(log.String(), "too many open files") || strings.Count(log.String(), "\n") != 1 {
			t.Errorf("log: %s", &log)
		}
		ln.times = 1000
		began = time.Now()
		time.AfterFunc(10*time.Millisecond, func() { p.Close() })
		if _, err := p.Accept(); !errors.Is(err, net.ErrClosed) || time.Since(began) > 10*time.Millisecond {
			t.Errorf("%v, %s after the wait began", err, time.Since(began))
		}
	})
}
