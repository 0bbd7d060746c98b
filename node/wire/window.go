package wire

// DefaultWindow is the replay window of a session, in frames.
const DefaultWindow = 8192

// Window is a sliding replay window (spec/wire.md section 9.8): numbers start at
// 1, a new highest is always good, and one below it is good once as long as it is
// less than the window's size behind. The zero value is a window of size 1. Not
// safe for concurrent use.
type Window struct {
	size    uint64
	highest uint64
	bits    []uint64 // bit n%cap is set when number n was seen
}

// NewWindow returns a window of that many numbers; 0 acts as 1.
func NewWindow(size int) *Window {
	size = max(size, 1)
	return &Window{size: uint64(size), bits: make([]uint64, (size+63)/64)}
}

// Accept reports whether n is new, and remembers it. Call it only for frames that
// are authentic.
func (w *Window) Accept(n uint64) bool {
	if w.bits == nil {
		*w = *NewWindow(1)
	}
	span := uint64(len(w.bits)) * 64
	switch {
	case n == 0:
		return false
	case n > w.highest:
		if n-w.highest >= span {
			clear(w.bits)
		} else {
			for i := w.highest + 1; i <= n; i++ {
				w.bits[i%span/64] &^= 1 << (i % 64)
			}
		}
		w.highest = n
	case w.highest-n >= w.size || w.bits[n%span/64]&(1<<(n%64)) != 0:
		return false
	}
	w.bits[n%span/64] |= 1 << (n % 64)
	return true
}
