package dnsfake

// queue has the idle slots in the order in which they may be given away: by
// slot.due, in seconds. Lists run through the slots themselves, one for each
// second to come and one for all that are due, so that adding and removing are
// O(1) and time moves a slot but once.
type queue struct {
	due    list           // the longest due first
	coming map[int64]list // by second, after passed
	passed int64          // the last second whose list has been moved to due
}

// list is a list of slots through slot.prev and slot.next, which are none at
// its ends.
type list struct{ first, last int32 }

const none = -1

func newQueue() queue {
	return queue{due: list{none, none}, coming: make(map[int64]list)}
}

// add puts slot i, which is in no list, into the queue.
func (q *queue) add(slots slots, i int32) {
	s := slots.at(i)
	s.due = max(s.due, q.passed+1)
	at, ok := q.coming[s.due]
	if !ok {
		at = list{none, none}
	}
	at.append(slots, list{i, i})
	q.coming[s.due] = at
}

// remove takes slot i, which add put in, out of the queue.
func (q *queue) remove(slots slots, i int32) {
	due := slots.at(i).due
	if due <= q.passed {
		q.due.remove(slots, i)
		return
	}
	at := q.coming[due]
	at.remove(slots, i)
	if at.first == none {
		delete(q.coming, due)
	} else {
		q.coming[due] = at
	}
}

// advance moves to due what has become due by second now.
func (q *queue) advance(slots slots, now int64) {
	for ; q.passed < now && len(q.coming) > 0; q.passed++ {
		if at, ok := q.coming[q.passed+1]; ok {
			q.due.append(slots, at)
			delete(q.coming, q.passed+1)
		}
	}
	q.passed = max(q.passed, now)
}

// append puts the slots of other behind those of l.
func (l *list) append(slots slots, other list) {
	if l.first == none {
		slots.at(other.first).prev = none
		*l = other
	} else {
		slots.at(l.last).next = other.first
		slots.at(other.first).prev = l.last
		l.last = other.last
	}
	slots.at(l.last).next = none
}

func (l *list) remove(slots slots, i int32) {
	s := slots.at(i)
	if s.prev == none {
		l.first = s.next
	} else {
		slots.at(s.prev).next = s.next
	}
	if s.next == none {
		l.last = s.prev
	} else {
		slots.at(s.next).prev = s.prev
	}
}
