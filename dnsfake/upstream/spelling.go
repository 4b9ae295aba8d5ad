package upstream

import "sync"

// minLetters is how many letters a name must have for its spelling to be told
// from all others: of 65,536 only one is the same by chance.
const minLetters = 16

// spellings are the names that servers are asked for at the moment, as they are
// spelled in the queries.
type spellings struct {
	mu    sync.Mutex
	names map[string]int // how many queries have each
}

func (s *spellings) add(name string) {
	if !telling(name) {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.names == nil {
		s.names = make(map[string]int)
	}
	s.names[name]++
}

func (s *spellings) remove(name string) {
	if !telling(name) {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.names[name]--; s.names[name] == 0 {
		delete(s.names, name)
	}
}

func (s *spellings) contain(name string) bool {
	if !telling(name) {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.names[name] > 0
}

// telling reports whether name is spelled as only chance would have it: with
// letters of both cases, and enough of them.
func telling(name string) bool {
	upper, lower := 0, 0
	for _, c := range []byte(name) {
		switch {
		case 'A' <= c && c <= 'Z':
			upper++
		case 'a' <= c && c <= 'z':
			lower++
		}
	}
	return upper > 0 && lower > 0 && upper+lower >= minLetters
}
