package dnsfake

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"syscall"
	"time"
)

const (
	// firstIndex leaves room below the names for addresses of the gateway.
	firstIndex = 16
	// maxNames bounds the table's memory to some 200 MB however large the
	// pools are.
	maxNames = 1 << 20
	// defaultHold covers clients that go on using an answer after its TTL.
	defaultHold = 30 * time.Second
	// probes is how many places in a row a new name tries.
	probes = 8
	// linger is how long an address stands for its name after its last flow:
	// late segments of a closed connection live up to 2 MSL (RFC 9293,
	// section 3.4.2).
	linger = 2 * time.Minute
)

// What Table's methods fail with.
var (
	ErrPoolFull = fmt.Errorf("every fake address is in use: %w", syscall.ENOSPC)
	ErrUnknown  = fmt.Errorf("fake address that stands for no name: %w", syscall.ECONNREFUSED)
	ErrOutside  = errors.New("not an address of the pools")

	errRoot = errors.New("the root is no host")
)

// TableConfig gives a Table its room.
type TableConfig struct {
	IPv4, IPv6 netip.Prefix // the pools: reserved space, never used in real communication
	// Hold is the least time that an address goes on standing for its name
	// when the last TTL given out has ended; 0: 30 s. An address stands for its
	// name as long as there are others that are free or have been idle for
	// longer, so only a busy pool ever comes down to this.
	Hold time.Duration
	Now  func() time.Time // nil: time.Now
}

// Pair is the two addresses that stand for a name: the same index into both
// pools.
type Pair struct{ IPv4, IPv6 netip.Addr }

// Table is the mapping table of RFC 3089, section 3: it gives names addresses
// of the pools, and tells which name an address stands for. An address is not
// given to another name while a flow holds it or an answer with it is valid; of
// the others, the one that has been idle for the longest time goes first. A name
// tends to get the same address again, as it begins looking for a free one where
// a keyed hash of it points.
type Table struct {
	pool4, pool6 netip.Prefix
	hold         time.Duration
	now          func() time.Time
	epoch        time.Time     // second 0 of slot.due
	changed      chan struct{} // has one element when there are changes to save

	mu      sync.Mutex // guards what follows
	secret  [16]byte   // the hash's key
	size    int32      // slots
	slots   slots      // by index in the pools, above firstIndex
	unused  int32      // no slot below it was never used
	names   index      // the slots of names in the form of key
	idle    queue      // the slots that stand for a name and have no flows
	saving  bool       // there is a journal
	unsaved []int32    // the slots with unsaved set
}

// slot is what the table knows of an index.
type slot struct {
	name       string // "" when it stands for nothing
	due        int64  // the second since epoch from which it may be given away
	saved      int64  // the due that the journal has, or will when it has this slot
	flows      int32
	prev, next int32 // its neighbours in the queue
	unsaved    bool  // the journal has yet to write it
}

// chunkSlots is how many slots are made at a time: as few as bear the overhead,
// since a hash spreads the names of a small network over all the pool.
const chunkSlots = 64

// slots take memory where they have been used.
type slots []*[chunkSlots]slot

// at returns slot i.
func (s slots) at(i int32) *slot {
	c := &s[i/chunkSlots]
	if *c == nil {
		*c = new([chunkSlots]slot)
	}
	return &(*c)[i%chunkSlots]
}

// name returns what slot i stands for, "" if that is nothing.
func (s slots) name(i int32) string {
	if c := s[i/chunkSlots]; c != nil {
		return c[i%chunkSlots].name
	}
	return ""
}

// NewTable returns an empty Table.
func NewTable(conf TableConfig) (*Table, error) {
	size4, err := poolSize(conf.IPv4, conf.IPv4.Addr().Is4())
	if err != nil {
		return nil, err
	}
	size6, err := poolSize(conf.IPv6, conf.IPv6.Addr().Is6() && !conf.IPv6.Addr().Is4In6())
	if err != nil {
		return nil, err
	}
	if conf.Hold < 0 {
		return nil, fmt.Errorf("making a table: negative hold time %v", conf.Hold)
	}
	if conf.Hold == 0 {
		conf.Hold = defaultHold
	}
	if conf.Now == nil {
		conf.Now = time.Now
	}
	size := min(size4, size6, maxNames)
	t := &Table{
		pool4:   conf.IPv4.Masked(),
		pool6:   conf.IPv6.Masked(),
		hold:    conf.Hold,
		now:     conf.Now,
		epoch:   conf.Now(),
		changed: make(chan struct{}, 1),
		size:    int32(size),
		slots:   make(slots, (size+chunkSlots-1)/chunkSlots),
		names:   newIndex(),
		idle:    newQueue(),
	}
	rand.Read(t.secret[:]) // never fails
	return t, nil
}

// poolSize returns how many names fit a pool: all its addresses but the first
// ones and the last.
func poolSize(pool netip.Prefix, family bool) (int, error) {
	if !pool.IsValid() || !family {
		return 0, fmt.Errorf("making a table: no pool of the family: %v", pool)
	}
	size := 1<<min(pool.Addr().BitLen()-pool.Bits(), 30) - firstIndex - 1
	if size < 1 {
		return 0, fmt.Errorf("making a table: pool %v is too small", pool)
	}
	return size, nil
}

// Issue returns the addresses that stand for name, and promises that they will
// for ttl and the hold time from now. The error is ErrPoolFull, but for the root.
func (t *Table) Issue(name string, ttl time.Duration) (Pair, error) {
	name = key(name)
	if name == "" {
		return Pair{}, errRoot
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.secondLocked()
	t.idle.advance(t.slots, now)
	i, ok := t.names.find(t.slots, name)
	if !ok {
		var err error
		if i, err = t.takeLocked(name); err != nil {
			return Pair{}, err
		}
		t.slots.at(i).name = name
		t.names.add(t.slots, i)
	} else if t.slots.at(i).flows == 0 {
		t.idle.remove(t.slots, i)
	}
	s := t.slots.at(i)
	s.due = max(s.due, now+seconds(max(0, ttl)+t.hold))
	if s.flows == 0 {
		t.idle.add(t.slots, i)
	}
	t.saveLocked(i)
	return t.pair(i), nil
}

// takeLocked returns a slot that stands for nothing and is not in the queue: a
// free one where name should be, or any that was never used, or the one that
// has been idle for the longest time.
func (t *Table) takeLocked(name string) (int32, error) {
	place := t.placeLocked(name)
	for range probes {
		if t.slots.name(place) == "" {
			return place, nil
		}
		place = (place + 1) % t.size
	}
	for ; t.unused < t.size; t.unused++ {
		if t.slots.name(t.unused) == "" {
			return t.unused, nil
		}
	}
	i := t.idle.due.first
	if i == none {
		return 0, ErrPoolFull
	}
	t.idle.remove(t.slots, i)
	s := t.slots.at(i)
	t.names.remove(t.slots, s.name)
	*s = slot{unsaved: s.unsaved}
	return i, nil
}

// placeLocked returns the slot that name should have. Who does not know the
// secret cannot make names that crowd in one place.
func (t *Table) placeLocked(name string) int32 {
	var room [len(t.secret) + 256]byte
	sum := sha256.Sum256(append(append(room[:0], t.secret[:]...), name...))
	return int32(binary.BigEndian.Uint64(sum[:]) % uint64(t.size))
}

// Hold returns the name that addr stands for, and makes sure that it goes on
// standing for it until release is called. It may be called more than once.
// The error is ErrUnknown when addr is in a pool but stands for nothing, and
// ErrOutside when it is not.
func (t *Table) Hold(addr netip.Addr) (name string, release func(), err error) {
	if !t.Contains(addr) {
		return "", nil, ErrOutside
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	i, ok := t.slotLocked(addr)
	if !ok {
		return "", nil, ErrUnknown
	}
	s := t.slots.at(i)
	if s.flows == 0 {
		t.idle.remove(t.slots, i)
	}
	s.flows++
	return s.name, sync.OnceFunc(func() { t.release(i) }), nil
}

func (t *Table) release(i int32) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.slots.at(i)
	s.flows--
	s.due = max(s.due, t.secondLocked()+seconds(linger))
	if s.flows == 0 {
		t.idle.add(t.slots, i)
	}
	t.saveLocked(i)
}

// NameOf returns the name that addr stands for.
func (t *Table) NameOf(addr netip.Addr) (string, bool) {
	if !t.Contains(addr) {
		return "", false
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	i, ok := t.slotLocked(addr)
	if !ok {
		return "", false
	}
	return t.slots.at(i).name, true
}

// Has reports whether an address stands for name.
func (t *Table) Has(name string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	_, ok := t.names.find(t.slots, key(name))
	return ok
}

// Contains reports whether addr is of the pools.
func (t *Table) Contains(addr netip.Addr) bool {
	addr = addr.Unmap()
	return t.pool4.Contains(addr) || t.pool6.Contains(addr)
}

// Len returns how many names have an address.
func (t *Table) Len() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.names.len
}

// Cap returns how many names can have an address at a time.
func (t *Table) Cap() int { return int(t.size) }

// pair returns the addresses of slot i.
func (t *Table) pair(i int32) Pair {
	index := uint32(firstIndex + i)
	ip4, ip6 := t.pool4.Addr().As4(), t.pool6.Addr().As16()
	binary.BigEndian.PutUint32(ip4[:], binary.BigEndian.Uint32(ip4[:])|index)
	binary.BigEndian.PutUint32(ip6[12:], binary.BigEndian.Uint32(ip6[12:])|index)
	return Pair{netip.AddrFrom4(ip4), netip.AddrFrom16(ip6)}
}

// slotLocked returns the slot of addr, which is of the pools, if it has one.
func (t *Table) slotLocked(addr netip.Addr) (int32, bool) {
	addr = addr.Unmap()
	pool := t.pool6
	if addr.Is4() {
		pool = t.pool4
	}
	ip, base := addr.As16(), pool.Addr().As16()
	index := int(binary.BigEndian.Uint32(ip[12:]) - binary.BigEndian.Uint32(base[12:]))
	if index < firstIndex || index >= firstIndex+int(t.size) {
		return 0, false
	}
	i := int32(index - firstIndex)
	pair := t.pair(i) // the octets between prefix and index count too
	return i, t.slots.name(i) != "" && (addr == pair.IPv4 || addr == pair.IPv6)
}

// secondLocked returns the seconds since the epoch. They are monotonic, so a
// step of the host's clock breaks no promise.
func (t *Table) secondLocked() int64 { return int64(t.now().Sub(t.epoch) / time.Second) }

// seconds returns d in seconds, rounded up, and one more for the second that
// secondLocked cut off.
func seconds(d time.Duration) int64 { return int64((d+time.Second-1)/time.Second) + 1 }
