package enginetest

import (
	"sync"
	"testing"

	"fcp"
	"fcp/log"
)

// The salts of a segment may come from several peers at once.
func TestSaltsAreKeptAtOnce(t *testing.T) {
	m := New(t, 7, 1)
	a := m.Nodes[0]
	var work sync.WaitGroup
	for range 50 {
		for range 4 {
			work.Go(func() {
				if err := a.KeepSalts(fcp.SegmentID{1}, make([]byte, 4*log.SaltSize)); err != nil {
					t.Error(err)
				}
			})
		}
	}
	work.Wait()
}
