package main

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"os"
	"time"

	"github.com/quic-go/quic-go/http3"
)

const usage = `usage: http3 serve ADDRESS    send back what is posted
       http3 post URL         post some MiB and want them back`

// size is of what is posted, in bytes: enough for QUIC to look for the path's
// MTU meanwhile (RFC 9000, section 14.3).
const size = 8 << 20

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "http3:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	switch {
	case len(args) == 2 && args[0] == "serve":
		return serve(args[1])
	case len(args) == 2 && args[0] == "post":
		return post(args[1])
	}
	return errors.New(usage)
}

func serve(address string) error {
	certificate, err := certify()
	if err != nil {
		return err
	}
	server := &http3.Server{
		Addr:      address,
		TLSConfig: http3.ConfigureTLSConfig(&tls.Config{Certificates: []tls.Certificate{certificate}}),
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			io.Copy(w, r.Body) // the client sees what is missing
		}),
	}
	return server.ListenAndServe()
}

// certify returns a certificate that nobody trusts.
func certify() (tls.Certificate, error) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(24 * time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, public, private)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: private}, err
}

func post(url string) error {
	transport := &http3.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
	defer transport.Close()
	sent := make([]byte, size)
	if _, err := rand.Read(sent); err != nil {
		return err
	}
	client := &http.Client{Transport: transport, Timeout: time.Minute}
	response, err := client.Post(url, "application/octet-stream", bytes.NewReader(sent))
	if err != nil {
		return err
	}
	defer response.Body.Close()
	received, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	if !bytes.Equal(sent, received) {
		return fmt.Errorf("%d octets came back of %d, or others", len(received), len(sent))
	}
	fmt.Println(response.Proto, "brought them back")
	return nil
}
