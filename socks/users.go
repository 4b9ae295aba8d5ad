package socks

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"net/netip"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/crypto/bcrypt"
)

// maxPassword is what PLEN and ULEN can count (RFC 1929, section 2).
const maxPassword = 255

// Password is what a user proves to know: a bcrypt hash, or the plain text. It
// prints as neither.
type Password struct {
	text string
	cost int // of a hash; 0 for plain text
}

// ParsePassword parses a bcrypt hash, or plain text of 1 to 255 octets. What
// starts like a hash has to be one.
func ParsePassword(s string) (Password, error) {
	if strings.HasPrefix(s, "$2") {
		cost, err := bcrypt.Cost([]byte(s))
		if err != nil {
			return Password{}, fmt.Errorf("parsing a password that starts as a bcrypt hash: %w", err)
		}
		return Password{s, cost}, nil
	}
	if s == "" || len(s) > maxPassword {
		return Password{}, fmt.Errorf("parsing a password of %d octets: want 1 to %d", len(s), maxPassword)
	}
	return Password{text: s}, nil
}

// IsPlain reports whether p is plain text.
func (p Password) IsPlain() bool { return p.cost == 0 }

// String hides p.
func (p Password) String() string { return "(hidden)" }

// Users are those who may use a server. A wrong password costs as much time as
// an unknown name, and a source that guesses is locked out for a while.
type Users struct {
	byName  map[string]*user
	nobody  user // takes the place of unknown users
	key     [sha256.Size]byte
	hashing chan struct{} // bounds the processors that compare hashes
	guesses guesses
}

type user struct {
	hash []byte // never nil
	// digest is of the password, by Users.key: the plain text, or what the
	// hash was seen to match, as bcrypt is too slow for each connection.
	digest atomic.Pointer[[sha256.Size]byte]
}

// NewUsers returns the users with their passwords.
func NewUsers(passwords map[string]Password) (*Users, error) {
	cost := bcrypt.MinCost
	for _, p := range passwords {
		cost = max(cost, p.cost)
	}
	unmatched, err := bcrypt.GenerateFromPassword([]byte(rand.Text()), cost)
	if err != nil {
		return nil, fmt.Errorf("hashing what stands for unknown users: %w", err)
	}
	us := &Users{
		byName:  make(map[string]*user),
		nobody:  user{hash: unmatched},
		hashing: make(chan struct{}, max(1, runtime.NumCPU()/2)),
	}
	rand.Read(us.key[:]) // never fails
	for name, p := range passwords {
		u := &user{hash: []byte(p.text)}
		if p.IsPlain() {
			u.hash = unmatched
			u.digest.Store(us.digestOf(p.text))
		}
		us.byName[name] = u
	}
	return us, nil
}

var (
	errWrong     = fmt.Errorf("wrong name or password: %w", syscall.EACCES)
	errLockedOut = fmt.Errorf("too many wrong passwords: %w", syscall.EACCES)
)

// Authenticate returns EACCES for a wrong name or password, and for any from a
// source that is locked out.
func (us *Users) Authenticate(ctx context.Context, source netip.Addr, name, password string) error {
	if us.guesses.locked(source, time.Now()) {
		return fmt.Errorf("authenticating %q from %s: %w", name, source, errLockedOut)
	}
	u := us.byName[name]
	if u == nil {
		u = &us.nobody
	}
	digest := us.digestOf(password)
	if good := u.digest.Load(); good != nil && hmac.Equal(good[:], digest[:]) {
		return nil
	}
	select {
	case us.hashing <- struct{}{}:
	case <-ctx.Done():
		return fmt.Errorf("authenticating %q: %w", name, context.Cause(ctx))
	}
	err := bcrypt.CompareHashAndPassword(u.hash, []byte(password))
	<-us.hashing
	if err != nil || u == &us.nobody {
		us.guesses.count(source, time.Now())
		return fmt.Errorf("authenticating %q: %w", name, errWrong)
	}
	u.digest.Store(digest)
	return nil
}

func (us *Users) digestOf(password string) *[sha256.Size]byte {
	mac := hmac.New(sha256.New, us.key[:])
	mac.Write([]byte(password))
	return (*[sha256.Size]byte)(mac.Sum(nil))
}
