package enginetest

import (
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// skewed is a node's own clock: the mesh's, off by so much.
type skewed struct {
	clock *Clock
	skew  atomic.Int64 // nanoseconds
}

// Now returns the node's time.
func (s *skewed) Now() time.Time { return s.clock.Now().Add(time.Duration(s.skew.Load())) }

// SetSkew sets how far the node's clock is ahead of the mesh's.
func (n *Node) SetSkew(d time.Duration) { n.clock.skew.Store(int64(d)) }

// Skew returns how far the node's clock is ahead of the mesh's.
func (n *Node) Skew() time.Duration { return time.Duration(n.clock.skew.Load()) }

// Image returns what a power cut would leave of the node's disk now: everything that
// was synced and nothing else.
func (n *Node) Image() *vfs.MemFS {
	return n.env.FS.(*vfs.MemFS).CrashClone(vfs.CrashCloneCfg{})
}

// Crash cuts the node's power and starts it again from what was synced.
func (n *Node) Crash() { n.CrashTo(n.Image()) }

// CrashTo starts the node again from an image of its disk. An older image than the
// last is a disk that lied about syncing.
func (n *Node) CrashTo(image *vfs.MemFS) {
	n.m.T.Helper()
	n.m.check(n.Engine.Close()) // writes to the disk that is given up
	n.env.FS = image
	n.open()
}
