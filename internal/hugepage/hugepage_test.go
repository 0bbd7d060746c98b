package hugepage

import "testing"

// Advice must not touch what is in the memory, whatever its size and place.
func TestAdviceChangesNothing(t *testing.T) {
	Advise[byte](nil)
	for _, n := range []int{1, Size - 1, Size, Size + 4096, 2*Size - 1, 5 * Size} {
		for _, from := range []int{0, 1, 4096} {
			b := make([]byte, from+n)
			for i := range b {
				b[i] = byte(i)
			}
			Advise(b[from:])
			for i := range b {
				if b[i] != byte(i) {
					t.Fatalf("%d bytes from %d: byte %d changed", n, from, i)
				}
			}
		}
	}
	words := make([]uint64, Size/2)
	words[len(words)-1] = 7
	if Advise(words); words[len(words)-1] != 7 {
		t.Fatal("a word changed")
	}
}
