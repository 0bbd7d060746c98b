package state

import (
	"sync"

	"github.com/cockroachdb/pebble/v2"
)

// A scheduler lets Pebble run one compaction at a time, and none while hold
// says so. Pebble's own has no way to hold compactions, and a clock.
type scheduler struct {
	hold func() bool

	mu       sync.Mutex
	changed  sync.Cond
	db       pebble.DBForCompaction
	running  bool
	granting bool // the scheduler is calling db
	refused  bool // a compaction was refused while granting
	closed   bool
}

func newScheduler(hold func() bool) *scheduler {
	c := &scheduler{hold: hold}
	c.changed.L = &c.mu
	return c
}

func (c *scheduler) Register(_ int, db pebble.DBForCompaction) {
	c.mu.Lock()
	c.db = db
	c.mu.Unlock()
}

func (c *scheduler) Unregister() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	for c.granting {
		c.changed.Wait()
	}
}

func (c *scheduler) TrySchedule() (bool, pebble.CompactionGrantHandle) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed || c.running || c.hold() {
		c.refused = true
		return false, nil
	}
	c.running = true
	return true, grant{c: c}
}

func (c *scheduler) UpdateGetAllowedWithoutPermission() {}

// offer lets a compaction run that was refused, if one may run now.
func (c *scheduler) offer() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.db != nil && !c.closed && !c.running && !c.granting && !c.hold() {
		c.running, c.granting, c.refused = true, true, false
		c.mu.Unlock()
		waiting, _ := c.db.GetWaitingCompaction()
		accepted := waiting && c.db.Schedule(grant{c: c})
		c.mu.Lock()
		c.granting = false
		c.changed.Broadcast()
		if accepted {
			return
		}
		c.running = false
		if !c.refused {
			return
		}
	}
}

// A grant is the permission for one compaction.
type grant struct{ c *scheduler }

func (grant) Started()                                          {}
func (grant) MeasureCPU(pebble.CompactionGoroutineKind)         {}
func (grant) CumulativeStats(pebble.CompactionGrantHandleStats) {}

func (g grant) Done() {
	g.c.mu.Lock()
	g.c.running = false
	g.c.mu.Unlock()
	g.c.offer()
}
