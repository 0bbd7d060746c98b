package authority

import (
	"sync"
	"testing"

	"fcp"
)

// TestLinkCacheIsBoundedAndShared fills a small cache from several goroutines: it
// keeps at most two generations, and a token used all the time stays.
func TestLinkCacheIsBoundedAndShared(t *testing.T) {
	const size = 8
	c := NewLinkCache(size)
	hot := &verifiedLink{}
	c.add(fcp.Hash{255}, hot)
	var wg sync.WaitGroup
	for g := range byte(4) {
		wg.Go(func() {
			for i := range byte(200) {
				c.add(fcp.Hash{g, i}, &verifiedLink{})
				c.get(fcp.Hash{g, i / 2})
			}
		})
	}
	wg.Wait()
	c.add(fcp.Hash{255}, hot)
	for i := range byte(100) {
		c.add(fcp.Hash{9, i}, &verifiedLink{})
		if c.get(fcp.Hash{255}) != hot {
			t.Fatal("a token in use was dropped")
		}
		if n := len(c.young) + len(c.old); n > 2*size {
			t.Fatalf("%d tokens kept", n)
		}
	}
	if c.get(fcp.Hash{0, 0}) != nil {
		t.Error("an old token was kept")
	}
	var none *LinkCache
	none.add(fcp.Hash{1}, hot)
	if none.get(fcp.Hash{1}) != nil {
		t.Error("no cache remembers")
	}
}
