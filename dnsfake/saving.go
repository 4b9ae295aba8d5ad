package dnsfake

import (
	"cmp"
	"math"
	"slices"
	"time"
)

// What follows is the table's side of the journal. The file's name for an index
// is the one in the pools, so that other bounds of ours do not move names.

// restore fills a new table with what a journal says, and has it note changes
// from now on. A nil secret leaves the table its own.
func (t *Table) restore(secret *[16]byte, records []record) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.saving = true
	if secret != nil {
		t.secret = *secret
	}
	zero := t.zeroLocked()
	latest := t.secondLocked() + maxLease
	for _, r := range records {
		i := int64(r.index) - firstIndex
		if i < 0 || i >= int64(t.size) || r.name == "" {
			continue
		}
		if before, ok := t.names.find(t.slots, r.name); ok {
			t.names.remove(t.slots, r.name)
			*t.slots.at(before) = slot{}
		}
		if name := t.slots.name(int32(i)); name != "" {
			t.names.remove(t.slots, name)
		}
		due := min(int64(r.lease)-zero, latest)
		*t.slots.at(int32(i)) = slot{name: r.name, due: due, saved: due}
		t.names.add(t.slots, int32(i))
	}
	t.queueLocked()
}

// queueLocked puts all slots that stand for a name into a new queue.
func (t *Table) queueLocked() {
	t.idle = newQueue()
	used := make([]int32, 0, t.names.len)
	for i := range t.size {
		if t.slots.name(i) != "" {
			used = append(used, i)
		}
	}
	slices.SortFunc(used, func(a, b int32) int { return cmp.Compare(t.slots.at(a).due, t.slots.at(b).due) })
	for _, i := range used {
		if t.slots.at(i).due <= t.idle.passed {
			t.idle.due.append(t.slots, list{i, i})
		} else {
			t.idle.add(t.slots, i)
		}
	}
}

// saveLocked sees to it that the journal will have what slot i promises.
func (t *Table) saveLocked(i int32) {
	s := t.slots.at(i)
	if !t.saving || s.due <= s.saved {
		return
	}
	s.saved = s.due + renewal
	t.unsaveLocked(i)
}

func (t *Table) unsaveLocked(i int32) {
	if t.slots.at(i).unsaved {
		return
	}
	t.slots.at(i).unsaved = true
	t.unsaved = append(t.unsaved, i)
	select {
	case t.changed <- struct{}{}:
	default:
	}
}

// changes returns the records of the slots that have changed since the last
// call.
func (t *Table) changes() (slots []int32, records []byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	slots, t.unsaved = t.unsaved, nil
	zero := t.zeroLocked()
	for _, i := range slots {
		t.slots.at(i).unsaved = false
		records = t.recordLocked(records, i, zero)
	}
	return slots, records
}

// unsave takes back changes whose records could not be written.
func (t *Table) unsave(slots []int32) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, i := range slots {
		t.unsaveLocked(i)
	}
}

// records appends to b the records of some slots in order, beginning with from,
// and returns where to go on. There are none left when it appends nothing.
func (t *Table) records(b []byte, from int) ([]byte, int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	zero := t.zeroLocked()
	for start := len(b); from < int(t.size) && len(b)-start < chunk; from++ {
		if t.slots.name(int32(from)) != "" {
			b = t.recordLocked(b, int32(from), zero)
		}
	}
	return b, from
}

func (t *Table) recordLocked(b []byte, i int32, zero int64) []byte {
	s := t.slots.at(i)
	lease := uint32(min(max(0, zero+max(s.due, s.saved)), math.MaxUint32))
	return record{uint32(firstIndex + i), lease, s.name}.append(b)
}

// hashKey returns the key of the hash that places names.
func (t *Table) hashKey() [16]byte {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.secret
}

// zero returns the table's second 0 in Unix seconds. It changes when somebody
// sets the host's clock.
func (t *Table) zero() int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.zeroLocked()
}

func (t *Table) zeroLocked() int64 {
	now := t.now()
	return now.Unix() - int64(now.Sub(t.epoch)/time.Second)
}
