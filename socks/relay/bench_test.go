package relay

import (
	"io"
	"net"
	"sync"
	"syscall"
	"testing"
	"time"
)

// BenchmarkStream sends over loopback through a relay, in either way that the
// kernel can carry it.
func BenchmarkStream(b *testing.B) {
	ways := map[string]func(src, dst net.Conn){
		"splice":  func(src, dst net.Conn) { splice(rawConn(src), rawConn(dst), func(int64) {}) },
		"io.Copy": func(src, dst net.Conn) { io.Copy(dst, src) },
	}
	for _, name := range []string{"splice", "io.Copy"} {
		for _, size := range []int{1 << 10, 64 << 10, 1 << 20} {
			b.Run(name+"/"+sizeName(size), func(b *testing.B) {
				client, near := benchPair(b)
				out, far := benchPair(b)
				b.SetBytes(int64(size))
				var wg sync.WaitGroup
				wg.Go(func() {
					ways[name](near, out)
					out.(*net.TCPConn).CloseWrite()
				})
				wg.Go(func() { io.Copy(io.Discard, far) })
				buf := make([]byte, size)
				began := cpu(b)
				for b.Loop() {
					client.Write(buf)
				}
				client.(*net.TCPConn).CloseWrite()
				wg.Wait()
				b.ReportMetric(float64((cpu(b)-began).Milliseconds())/(float64(b.N)*float64(size)/(1<<30)), "cpu-ms/GiB")
			})
		}
	}
}

func sizeName(n int) string {
	if n >= 1<<20 {
		return "1MiB"
	}
	return map[int]string{1 << 10: "1KiB", 64 << 10: "64KiB"}[n]
}

// cpu returns the processor time of this process.
func cpu(b *testing.B) time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		b.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

func benchPair(b *testing.B) (net.Conn, net.Conn) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer ln.Close()
	x, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	y, err := ln.Accept()
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { x.Close(); y.Close() })
	return x, y
}
