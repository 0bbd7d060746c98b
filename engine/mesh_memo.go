package engine

import (
	"crypto/sha256"
	"sync"
)

// maxMemo bounds a memo; above it everything is forgotten and learnt again.
const maxMemo = 1 << 14

// memo remembers what a signed object, found good, says: the members of a mesh are
// looked up with every revocation, and a signature costs more than all else. Only a
// pure function of the bytes may be remembered. The zero value is ready; safe for
// concurrent use, and so must be reading what it returns.
type memo[V any] struct {
	mu    sync.Mutex
	known map[[sha256.Size]byte]V // by the hash of the object; guarded by mu
}

func (m *memo[V]) get(body []byte) (V, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	v, ok := m.known[sha256.Sum256(body)]
	return v, ok
}

func (m *memo[V]) put(body []byte, v V) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.known == nil || len(m.known) >= maxMemo {
		m.known = map[[sha256.Size]byte]V{}
	}
	m.known[sha256.Sum256(body)] = v
}
