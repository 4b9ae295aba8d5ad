package confine

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"reflect"
	"syscall"
	"testing"
)

func TestLine(t *testing.T) {
	near, far, err := newLine()
	if err != nil {
		t.Fatal(err)
	}
	defer near.close()
	sent := order{"sixgate0", 1500, []netip.Prefix{netip.MustParsePrefix("198.18.0.1/15")}, netip.MustParseAddr("198.18.0.2"), true}
	if err := near.send(sent); err != nil {
		t.Fatal(err)
	}
	var got order
	if fd, err := far.receive(&got); err != nil || fd != -1 || !reflect.DeepEqual(got, sent) {
		t.Errorf("received %+v, descriptor %d, %v, want %+v", got, fd, err, sent)
	}

	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if err := far.send(report{IPv6: true}, int(w.Fd())); err != nil {
		t.Fatal(err)
	}
	w.Close()
	var ready report
	fd, err := near.receive(&ready)
	if err != nil || !ready.IPv6 || ready.err() != nil {
		t.Fatalf("received %+v, %v", ready, err)
	}
	other := os.NewFile(uintptr(fd), "pipe")
	if _, err := other.WriteString("by another end"); err != nil {
		t.Error(err)
	}
	other.Close()
	if text, err := io.ReadAll(r); err != nil || string(text) != "by another end" {
		t.Errorf("read %q, %v", text, err)
	}

	far.close()
	if _, err := near.receive(&ready); err != io.EOF {
		t.Errorf("from a closed line: %v", err)
	}
	if err := near.send(sent); !errors.Is(err, syscall.EPIPE) {
		t.Errorf("to a closed line: %v", err)
	}
}

// TestClosedWithMessageUnread is what the process does that dies early.
func TestClosedWithMessageUnread(t *testing.T) {
	near, far, err := newLine()
	if err != nil {
		t.Fatal(err)
	}
	defer near.close()
	if err := near.send(order{}); err != nil {
		t.Fatal(err)
	}
	far.close()
	if _, err := near.receive(new(report)); err != io.EOF {
		t.Errorf("got %v", err)
	}
}

func TestReport(t *testing.T) {
	err := newReport(fmt.Errorf("opening it: %w", syscall.EACCES)).err()
	if err == nil || err.Error() != "opening it: permission denied" || !errors.Is(err, syscall.EACCES) || !errors.Is(err, os.ErrPermission) {
		t.Errorf("got %v", err)
	}
	if err := newReport(io.ErrUnexpectedEOF).err(); err == nil || errors.Is(err, syscall.Errno(0)) {
		t.Errorf("got %v", err)
	}
}
