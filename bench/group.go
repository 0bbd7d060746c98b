package main

import (
	"errors"
	"runtime"
	"sync"
)

// errClosed is what a submit after close gets.
var errClosed = errors.New("the committer is closed")

// batch is what one group commit makes durable: records laid end to end in buf,
// record i ending at ends[i]. It is valid only until the commit returns.
type batch struct {
	buf  []byte
	ends []int
}

func (b *batch) reset() { b.buf, b.ends = b.buf[:0], b.ends[:0] }

// record returns the i-th record.
func (b *batch) record(i int) []byte {
	from := 0
	if i > 0 {
		from = b.ends[i-1]
	}
	return b.buf[from:b.ends[i]]
}

// outcome is shared by the writers of one group. err is written before done is
// closed and only read after.
type outcome struct {
	done chan struct{}
	err  error
}

// committer is the group committer in front of every store that has none of its
// own, the raw limit included, so that all of them are driven alike. It is
// written to cost as little as it can, because the raw limit is a yardstick:
//
//   - Writers copy their record straight into the group's buffer, so the
//     committer has one contiguous pwrite and copies nothing.
//   - One channel per group: a close wakes all its writers at once, instead of
//     one send per writer. Each group allocates only that channel and outcome.
//   - Two buffers, swapped: while one is being synced the other fills.
//   - The committer never waits for a timer. It yields the processor while
//     records keep coming, so that the writers just woken join the next group
//     instead of finding a group of one under way (see gather).
//
// Measured and left out: the first writer of a group committing it itself (no
// faster, a little noisier) and syscalls that keep the processor (no faster,
// and they would hold up the garbage collector for a whole fdatasync).
type committer struct {
	commit func(*batch) error // called by run only

	mu      sync.Mutex
	filling *batch   // guarded by mu
	waiting *outcome // guarded by mu; of the writers in filling
	closed  bool     // guarded by mu

	kick   chan struct{} // capacity 1: filling is not empty, or closed
	exited chan struct{}
}

// newCommitter starts the committer goroutine; close ends it.
func newCommitter(commit func(*batch) error) *committer {
	c := &committer{
		commit: commit, filling: new(batch), waiting: newOutcome(),
		kick: make(chan struct{}, 1), exited: make(chan struct{}),
	}
	go c.run()
	return c
}

func newOutcome() *outcome { return &outcome{done: make(chan struct{})} }

// submit copies rec and returns when the group that holds it is durable.
func (c *committer) submit(rec []byte) error {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return errClosed
	}
	b, o := c.filling, c.waiting
	b.buf = append(b.buf, rec...)
	b.ends = append(b.ends, len(b.buf))
	first := len(b.ends) == 1
	c.mu.Unlock()
	if first {
		c.wake()
	}
	<-o.done
	return o.err
}

func (c *committer) wake() {
	select {
	case c.kick <- struct{}{}:
	default:
	}
}

func (c *committer) run() {
	defer close(c.exited)
	spare := new(batch)
	for range c.kick {
		c.gather()
		c.mu.Lock()
		b, o, closed := c.filling, c.waiting, c.closed
		c.filling, c.waiting = spare, newOutcome()
		c.mu.Unlock()
		if len(b.ends) > 0 {
			o.err = c.commit(b)
			close(o.done)
		}
		if closed {
			return
		}
		b.reset()
		spare = b
	}
}

// gather yields until a whole turn of the scheduler brought no further record.
// With one writer that is one yield, well under a microsecond; with many it is
// the difference between groups of all writers and alternating groups of one
// and the rest.
func (c *committer) gather() {
	for last := -1; ; {
		c.mu.Lock()
		n := len(c.filling.ends)
		c.mu.Unlock()
		if n == last {
			return
		}
		last = n
		runtime.Gosched()
	}
}

// close ends the committer after the records already submitted are committed.
func (c *committer) close() {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.wake()
	<-c.exited
}
