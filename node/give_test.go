package node

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"fcp"
	"fcp/engine"
)

// TestALongFeedIsGivenOnce has a node come back that missed more than a session's queue
// holds: it gets it in one session, not again and again.
func TestALongFeedIsGivenOnce(t *testing.T) {
	m := newMesh(t, 2, nil)
	m.together()
	m.kill(1)
	const events, writers = 9600, 96 // of 1 KiB each: above maxQueued
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			body := randomBytes(900, uint64(w))
			for i := w; i < events; i += writers {
				if _, err := m.nodes[0].e.Put(context.Background(), engine.PutRequest{Key: fmt.Sprint(i), Bytes: body}); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	before := m.nodes[0].n.Metrics().EventsSent.Load()
	m.open(m.nodes[1])
	m.start(m.nodes[1])
	m.together()
	m.equalRoots(fcp.ZonePrivate)
	if sent := m.nodes[0].n.Metrics().EventsSent.Load() - before; sent > 3*events {
		t.Errorf("%d events were sent for %d", sent, events)
	}
}
