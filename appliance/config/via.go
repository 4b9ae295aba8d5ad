package config

import (
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"

	"sixgate/socks"
)

// portSOCKS is the port of a SOCKS server that is named without one.
const portSOCKS = 1080

// Via sends what no rule of c takes through a chain of SOCKS servers, the
// nearest first, each written as socks5://[user[:password]@]host[:port].
func (c *Config) Via(urls []string) error {
	over := ""
	for i, text := range urls {
		o, err := viaOutlet(text)
		if err != nil {
			return err
		}
		o.Name, o.Over = "via "+strconv.Itoa(i+1), over // no name that a file can have
		c.Outlets = append(c.Outlets, o)
		over = o.Name
	}
	if over != "" {
		c.Rules = append(c.Rules, Rule{Outlet: over})
	}
	return nil
}

// viaOutlet parses the URL of one server. Its errors do not tell the password.
func viaOutlet(text string) (Outlet, error) {
	u, err := url.Parse(text)
	if err != nil {
		if e, ok := errors.AsType[*url.Error](err); ok {
			err = e.Err // without the text
		}
		return Outlet{}, fmt.Errorf("reading the URL of a SOCKS server: %w", err)
	}
	bad := func(err error) (Outlet, error) {
		return Outlet{}, fmt.Errorf("reading the URL %s: %w (write it like socks5://gw.example:1080)", u.Redacted(), err)
	}
	if u.Scheme != "socks5" && u.Scheme != "socks5h" { // names travel to the server by both
		return bad(fmt.Errorf("scheme %q is not socks5", u.Scheme))
	}
	if u.Opaque != "" || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" {
		return bad(errors.New("more than a server"))
	}
	port := uint64(portSOCKS)
	if text := u.Port(); text != "" {
		if port, err = strconv.ParseUint(text, 10, 16); err != nil || port == 0 {
			return bad(fmt.Errorf("port %s is not from 1 to 65535", text))
		}
	}
	o := Outlet{Type: OutletSOCKS5}
	if o.Server, err = socks.ParseHost(u.Hostname(), uint16(port)); err != nil {
		return bad(err)
	}
	if u.User == nil {
		return o, nil
	}
	o.Username = u.User.Username()
	o.Password, _ = u.User.Password()
	if _, err := userName(o.Username); err != nil {
		return bad(err)
	}
	if _, err := plainPassword(o.Password); err != nil {
		return bad(err)
	}
	return o, nil
}
