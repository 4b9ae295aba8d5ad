package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"time"
)

// whole is how much a transfer carries whose every byte is checked, in MiB.
const whole = 1024

// transfers are the scenarios that show whether what arrives is what was sent.
// How the links cut and join packets is what could break it.
func transfers() []scenario {
	t := &table{"Transfers whose SHA-256 is the same at both ends", []measure{
		{"MiB", func(r reading) float64 { return r.Bytes / (1 << 20) }, nothing},
		{"seconds", func(r reading) float64 { return r.Seconds }, nothing},
	}}
	var all []scenario
	for _, mode := range []string{"on", "nogro", "off"} {
		for _, family := range []int{4, 6} {
			for _, way := range []string{"up", "down"} {
				all = append(all, scenario{
					name:  fmt.Sprintf("whole/%s-%d-%s", mode, family, way),
					table: t,
					links: links{offload: offloads()[mode]},
					load:  "whole-" + way,
					n:     whole,
					six:   family == 6,
				})
			}
		}
	}
	return all
}

// digest carries what can be checked: a client says how much it wants, as
// eight bytes, big endian, and gets as much noise and its SHA-256. Of 0 bytes
// it gets the SHA-256 of what it sends itself.
func digest(conn *net.TCPConn) error {
	var size [8]byte
	if _, err := io.ReadFull(conn, size[:]); err != nil {
		return err
	}
	sum := sha256.New()
	if n := binary.BigEndian.Uint64(size[:]); n > 0 {
		if _, err := io.CopyN(io.MultiWriter(conn, sum), noise(), int64(n)); err != nil {
			return err
		}
	} else if _, err := io.Copy(sum, conn); err != nil {
		return err
	}
	_, err := conn.Write(sum.Sum(nil))
	return err
}

// noise repeats nothing, so that what is lost, doubled or swapped shows.
func noise() io.Reader {
	var seed [32]byte
	binary.BigEndian.PutUint64(seed[:], rand.Uint64())
	return rand.NewChaCha8(seed)
}

// wholeUp sends n MiB, which the server must have got.
func wholeUp(ctx context.Context, server netip.Addr, n int, _ time.Duration) (done, error) {
	return digested(ctx, server, n, func(conn net.Conn, size int64) ([]byte, error) {
		sum := sha256.New()
		if _, err := conn.Write(make([]byte, 8)); err != nil {
			return nil, err
		}
		if _, err := io.CopyN(io.MultiWriter(conn, sum), noise(), size); err != nil {
			return nil, err
		}
		return sum.Sum(nil), conn.(*net.TCPConn).CloseWrite()
	})
}

// wholeDown gets n MiB, which must be what the server has sent.
func wholeDown(ctx context.Context, server netip.Addr, n int, _ time.Duration) (done, error) {
	return digested(ctx, server, n, func(conn net.Conn, size int64) ([]byte, error) {
		sum := sha256.New()
		if _, err := conn.Write(binary.BigEndian.AppendUint64(nil, uint64(size))); err != nil {
			return nil, err
		}
		_, err := io.CopyN(sum, conn, size)
		return sum.Sum(nil), err
	})
}

func digested(ctx context.Context, server netip.Addr, n int, carry func(net.Conn, int64) ([]byte, error)) (done, error) {
	conn, err := dial(ctx, server, digestPort)
	if err != nil {
		return done{}, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })()
	return transfer(conn, n, carry)
}

// transfer carries n MiB, and compares their SHA-256 with what the server says
// afterwards, which is the last it says.
func transfer(conn net.Conn, n int, carry func(conn net.Conn, size int64) ([]byte, error)) (done, error) {
	size := int64(n) << 20
	start := time.Now()
	mine, err := carry(conn, size)
	if err != nil {
		return done{}, fmt.Errorf("carrying %d MiB: %w", n, err)
	}
	theirs, err := io.ReadAll(conn)
	if err != nil {
		return done{}, fmt.Errorf("reading the SHA-256 of %d MiB: %w", n, err)
	}
	if !bytes.Equal(mine, theirs) {
		return done{}, errors.New("what arrived is not what was sent")
	}
	return done{Seconds: time.Since(start).Seconds(), Bytes: float64(size)}, nil
}
