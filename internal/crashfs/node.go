package crashfs

import (
	"maps"
	"slices"
	"time"
)

// node is a file or a directory, whatever names it has. All fields are guarded
// by FS.mu.
type node struct {
	dir     bool
	modTime time.Time
	links   int // names in the current view
	handles int // open files

	// Of a file: what reads see, what the medium holds, and the writes since
	// the last sync in the order they were made.
	current content
	durable content
	pending []write

	// Of a directory: the same three.
	entries        map[string]*node
	durableEntries map[string]*node
	pendingEntries []entryChange
}

// write is one unsynced write; data is nil when all n bytes are zero.
type write struct {
	off  int64
	n    int64
	data []byte
}

// entryChange is one unsynced change of a directory: name now stands for node,
// or for nothing when node is nil.
type entryChange struct {
	name string
	node *node
	step *step
}

// step is what must happen together: the one change of a create, link or
// remove, the two of a rename. settled means that a sync of one directory has
// already made a part of it durable.
type step struct{ settled bool }

func newFile() *node { return &node{} }

func newDir() *node {
	return &node{dir: true, entries: map[string]*node{}, durableEntries: map[string]*node{}}
}

// put changes an entry of the directory as part of s.
func (d *node) put(name string, n *node, s *step) {
	if old := d.entries[name]; old != nil {
		old.links--
	}
	if n == nil {
		delete(d.entries, name)
	} else {
		n.links++
		d.entries[name] = n
	}
	d.pendingEntries = append(d.pendingEntries, entryChange{name, n, s})
}

// sync makes what the node holds durable.
func (n *node) sync() {
	if n.dir {
		if len(n.pendingEntries) == 0 {
			return
		}
		n.durableEntries = maps.Clone(n.entries)
		for _, c := range n.pendingEntries {
			c.step.settled = true
		}
		n.pendingEntries = nil
		return
	}
	if len(n.pending) == 0 {
		return
	}
	n.durable = n.current.share()
	n.pending = nil
}

// write stores p at off in the current view and remembers it as unsynced.
func (n *node) write(p []byte, off int64) {
	if len(p) == 0 {
		return
	}
	w := write{off: off, n: int64(len(p))}
	if !allZero(p) {
		w.data = slices.Clone(p)
	}
	n.current.apply(w)
	n.pending = append(n.pending, w)
}

// apply repeats a remembered write.
func (c *content) apply(w write) {
	if w.data == nil {
		c.zeroAt(w.off, w.n)
		return
	}
	c.writeAt(w.data, w.off)
}

// part returns bytes [from, to) of the write, both offsets in the file.
func (w write) part(from, to int64) write {
	p := write{off: from, n: to - from}
	if w.data != nil {
		p.data = w.data[from-w.off : to-w.off]
	}
	return p
}

// space is what the node takes of the disk, in bytes.
func (n *node) space() int64 {
	if n.dir {
		return 0
	}
	return pagesFor(n.current.size)
}

func sortedNames(entries map[string]*node) []string {
	return slices.Sorted(maps.Keys(entries))
}
