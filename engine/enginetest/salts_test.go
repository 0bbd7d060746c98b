package enginetest

import (
	"context"
	"crypto/rand"
	"sync"
	"testing"

	"fcp"
	"fcp/authority"
	"fcp/engine"
	"fcp/log"
)

// The salts of a segment may come from several peers at once. On a real disk, where
// that takes a while.
func TestSaltsAreKeptAtOnce(t *testing.T) {
	ctx, dir := context.Background(), t.TempDir()
	owner, err := authority.NewOwnerKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := engine.Init(ctx, dir, engine.InitOptions{Owner: owner, Device: "a"}); err != nil {
		t.Fatal(err)
	}
	e, err := engine.Open(ctx, dir, engine.Options{NoBallast: true})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	var work sync.WaitGroup
	for range 16 {
		work.Go(func() {
			if err := e.KeepSalts(&log.Remainder{Segment: make([]byte, fcp.HashSize)}, make([]byte, 4*log.SaltSize)); err != nil {
				t.Error(err)
			}
		})
	}
	work.Wait()
}
