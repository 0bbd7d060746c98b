package fcp

import (
	"sync"
	"time"
)

// Time is a hybrid logical time: milliseconds since the Unix epoch in the upper
// 48 bits, a counter in the lower 16. It orders events of one feed strictly and
// events of different feeds roughly; it never decides state on its own.
type Time uint64

const timeCounterBits = 16

// TimeFromWall returns the earliest hybrid time of a wall-clock instant.
func TimeFromWall(t time.Time) Time { return Time(uint64(t.UnixMilli()) << timeCounterBits) }

// Wall returns the wall-clock part, to the millisecond, in UTC.
func (t Time) Wall() time.Time { return time.UnixMilli(t.Milli()).UTC() }

// Milli returns the wall-clock part in milliseconds since the Unix epoch.
func (t Time) Milli() int64 { return int64(t >> timeCounterBits) }

// Counter returns the logical part.
func (t Time) Counter() uint16 { return uint16(t) }

// Epoch returns the number of the EpochLength window the time falls in.
func (t Time) Epoch() uint64 { return uint64(t.Milli()) / uint64(EpochLength/time.Millisecond) }

// Clock is a hybrid logical clock. It only moves forward, and a time more than
// MaxClockLead ahead of the wall clock never drags it. Safe for concurrent use.
type Clock struct {
	now func() time.Time // the wall clock

	mu   sync.Mutex
	last Time // guarded by mu
}

// NewClock returns a clock over the given wall clock.
func NewClock(now func() time.Time) *Clock { return &Clock{now: now} }

// Reserve returns the first of n consecutive times, all later than every time
// this clock gave or accepted before. n must be positive.
func (c *Clock) Reserve(n int) Time {
	wall := TimeFromWall(c.now())
	c.mu.Lock()
	defer c.mu.Unlock()
	first := max(wall, c.last+1)
	c.last = first + Time(n) - 1
	return first
}

// Observe moves the clock past a time seen in an event. A time more than
// MaxClockLead ahead of the wall clock is refused with CodeFuture and leaves the
// clock alone: the event must be held back until it is due.
func (c *Clock) Observe(t Time) error {
	limit := TimeFromWall(c.now().Add(MaxClockLead))
	if t > limit {
		return Errorf(CodeFuture, "the event's time is %s ahead of this clock",
			(time.Duration(t.Milli()-limit.Milli())*time.Millisecond + MaxClockLead).Round(time.Second))
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.last = max(c.last, t)
	return nil
}

// Restore sets a floor without the lead check. It is for times from this node's
// own log, which must never be given out again whatever the wall clock says.
func (c *Clock) Restore(t Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.last = max(c.last, t)
}
