package socks

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/crypto/bcrypt"
)

func mustPassword(t testing.TB, s string) Password {
	t.Helper()
	p, err := ParsePassword(s)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func newUsers(t testing.TB) *Users {
	t.Helper()
	hash, err := bcrypt.GenerateFromPassword([]byte("secret"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	us, err := NewUsers(map[string]Password{"hashed": mustPassword(t, string(hash)), "plain": mustPassword(t, "p\x00w")})
	if err != nil {
		t.Fatal(err)
	}
	return us
}

func TestParsePassword(t *testing.T) {
	for _, s := range []string{"", "$2a$", "$2a$99$" + strings.Repeat("a", 53), strings.Repeat("p", 256)} {
		if _, err := ParsePassword(s); err == nil {
			t.Errorf("%q is a password", s)
		}
	}
	if p := mustPassword(t, "secret"); strings.Contains(fmt.Sprintf("%v %+v %s", p, &p, struct{ P Password }{p}), "secret") {
		t.Error("a password was printed")
	}
}

// passwords are conversations after the greeting's "05 01 02".
var passwords = []struct{ what, client, server string }{
	{"hashed", "01 06 686173686564 06 736563726574", "05 02 01 00"},
	{"plain, with a NUL", "01 05 706c61696e 03 700077", "05 02 01 00"},
	{"cut at the NUL", "01 05 706c61696e 01 70", "05 02 01 01"},
	{"wrong password", "01 06 686173686564 01 70", "05 02 01 01"},
	{"empty password", "01 06 686173686564 00", "05 02 01 01"},
	{"unknown user", "01 01 75 01 70", "05 02 01 01"},
	{"no user", "01 00 01 70", "05 02 01 01"},
	{"255 octets each", "01 ff" + strings.Repeat("75", 255) + "ff" + strings.Repeat("70", 255), "05 02 01 01"},
	{"version 5", "05 06 686173686564 06 736563726574", "05 02 01 01"},
	{"cut", "01 06 6861", "05 02 01 01"},
}

func TestPasswords(t *testing.T) {
	const request, reply = "05 01 00 03 01 61 0050", "05 00 00 01 c0000207 0007"
	for _, tt := range passwords {
		t.Run(tt.what, func(t *testing.T) {
			user := ""
			conn := dial(t, start(t, &Server{Access: only(newUsers(t)), Handler: handlerFunc(func(ctx context.Context, r *Request) {
				user = r.User()
				echo(ctx, r)
			})}))
			conn.Write(unhex(t, "05 02 00 02"+tt.client+request))
			conn.CloseWrite()
			want := tt.server
			if strings.HasSuffix(want, "01 00") {
				want += reply
			}
			got, err := io.ReadAll(conn)
			if err != nil || !bytes.Equal(got, unhex(t, want)) {
				t.Errorf("got % x, %v, want %s", got, err, want)
			}
			if accepted := len(got) > 4; accepted != (user != "") {
				t.Errorf("user %q", user)
			}
		})
	}
}

// TestUnknownNamesCost wants an unknown name, and a wrong password of one in
// plain text, to cost what the dearest hash does: else the time tells the names.
func TestUnknownNamesCost(t *testing.T) {
	dear, err := bcrypt.GenerateFromPassword([]byte("x"), bcrypt.MinCost+2)
	if err != nil {
		t.Fatal(err)
	}
	passwords := map[string]Password{}
	for name, text := range map[string]string{"plain": "secret", "hash": string(dear)} {
		if passwords[name], err = ParsePassword(text); err != nil {
			t.Fatal(err)
		}
	}
	users, err := NewUsers(passwords)
	if err != nil {
		t.Fatal(err)
	}
	for name, u := range map[string]*user{"unknown": &users.nobody, "plain": users.byName["plain"], "hash": users.byName["hash"]} {
		if cost, err := bcrypt.Cost(u.hash); cost != bcrypt.MinCost+2 || err != nil {
			t.Errorf("%s: cost %d, %v", name, cost, err)
		}
	}
}

func TestUsersMustAuthenticate(t *testing.T) {
	addr := start(t, &Server{Access: only(newUsers(t)), Handler: handlerFunc(echo)})
	for _, tt := range []struct{ client, server string }{
		{"05 01 00 05 01 00 03 01 61 0050", "05 ff"},
		{"05 02 00 01 05 01 00 03 01 61 0050", "05 ff"},
		{"04 01 0050 c0000201 686173686564 00", "00 5b 0000 00000000"},
	} {
		conn := dial(t, addr)
		conn.Write(unhex(t, tt.client))
		conn.CloseWrite()
		if got, err := io.ReadAll(conn); err != nil || !bytes.Equal(got, unhex(t, tt.server)) {
			t.Errorf("got % x, %v, want %s", got, err, tt.server)
		}
	}
}

// A source that has been wrong too often is not heard, right or wrong, until
// some time has passed; others are.
func TestGuessersAreLockedOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		us := newUsers(t)
		guesser, other := netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8:0:1::1")
		neighbour := netip.MustParseAddr("2001:db8::2")
		for range maxGuesses {
			if err := us.Authenticate(t.Context(), guesser, "hashed", "wrong"); !errors.Is(err, syscall.EACCES) {
				t.Fatal(err)
			}
		}
		for _, ip := range []netip.Addr{guesser, neighbour} {
			if err := us.Authenticate(t.Context(), ip, "hashed", "secret"); !errors.Is(err, syscall.EACCES) {
				t.Errorf("%s is heard: %v", ip, err)
			}
		}
		if err := us.Authenticate(t.Context(), other, "hashed", "secret"); err != nil {
			t.Error(err)
		}
		time.Sleep(guessTime)
		if err := us.Authenticate(t.Context(), guesser, "hashed", "secret"); err != nil {
			t.Error(err)
		}
	})
}

func TestGuessesAreCounted(t *testing.T) {
	s := &Server{Access: only(newUsers(t)), Handler: handlerFunc(echo)}
	addr := start(t, s)
	for range maxGuesses + 2 {
		conn := dial(t, addr)
		conn.Write(unhex(t, "05 01 02 01 06 686173686564 01 70"))
		conn.CloseWrite()
		if got, err := io.ReadAll(conn); err != nil || !bytes.Equal(got, unhex(t, "05 02 01 01")) {
			t.Errorf("got % x, %v", got, err)
		}
	}
	if got, want := s.Counters(), (Counters{WrongPasswords: maxGuesses, LockedOut: 2}); got != want {
		t.Errorf("counted %+v, want %+v", got, want)
	}
}

func TestGuessersAreBounded(t *testing.T) {
	var g guesses
	ip, now := netip.MustParseAddr("10.0.0.0"), time.Now()
	for range 2 * maxGuessers {
		ip = ip.Next()
		g.count(ip, now)
	}
	if len(g.until) > maxGuessers {
		t.Errorf("%d sources are remembered", len(g.until))
	}
	g.count(ip.Next(), now.Add(2*guessTime))
	if len(g.until) != 1 {
		t.Errorf("%d sources are remembered after their time", len(g.until))
	}
}

// BenchmarkAuthenticate shows that a known password does not cost a hash each
// time, and that an unknown user costs as much as a wrong password.
func BenchmarkAuthenticate(b *testing.B) {
	us := newUsers(b)
	for _, tt := range []struct{ what, name, password string }{{"right", "hashed", "secret"}, {"wrong", "hashed", "x"}, {"unknown", "x", "x"}} {
		b.Run(tt.what, func(b *testing.B) {
			for b.Loop() {
				us.guesses.until = nil
				us.Authenticate(b.Context(), netip.Addr{}, tt.name, tt.password)
			}
		})
	}
}

// only returns the access of users from anywhere.
func only(users *Users) func() *Access { return func() *Access { return &Access{Users: users} } }
