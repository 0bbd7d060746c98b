package crashfs

import (
	"bytes"
	"sync/atomic"
)

const (
	pageSize  = 4096
	leafPages = 64
	leafSize  = pageSize * leafPages
)

// generations hands out ownership numbers. A page, leaf or root may be changed
// in place only by the content whose generation it carries; everyone else
// copies first. Numbers are never reused in a process, so two contents that
// share pages can never both think they own one.
var generations atomic.Uint64

func newGeneration() uint64 { return generations.Add(1) }

var zeroPage [pageSize]byte

// page is one 4 KiB page; nil stands for a page of zeros.
type page struct {
	gen uint64
	b   [pageSize]byte
}

// leaf is 256 KiB of pages; nil stands for zeros.
type leaf struct {
	gen   uint64
	pages [leafPages]*page
}

// content is the bytes of a file as a copy-on-write tree of pages. The zero
// value is an empty file. Bytes between the pages and size read as zero, and no
// page holds anything but zeros past size. Not safe for concurrent use; two
// contents that share pages may be used at the same time.
type content struct {
	gen    uint64 // owner; 0 until the first write
	leaves []*leaf
	size   int64
}

// share returns a second content with the same bytes. After it neither side
// owns the shared pages.
func (c *content) share() content {
	c.gen = 0
	return *c
}

// own makes the root of the tree private to c.
func (c *content) own() {
	if c.gen != 0 {
		return
	}
	c.gen = newGeneration()
	c.leaves = append([]*leaf(nil), c.leaves...)
}

// writeAt stores p at off, growing the file when needed.
func (c *content) writeAt(p []byte, off int64) {
	c.own()
	end := off + int64(len(p))
	for len(p) > 0 {
		within := int(off % pageSize)
		n := min(len(p), pageSize-within)
		c.writePage(p[:n], off, within)
		p, off = p[n:], off+int64(n)
	}
	c.size = max(c.size, end)
}

// zeroAt writes n zero bytes at off.
func (c *content) zeroAt(off, n int64) {
	c.own()
	end := off + n
	for off < end {
		within := off % pageSize
		step := min(end-off, pageSize-within)
		c.writePage(zeroPage[:step], off, int(within))
		off += step
	}
	c.size = max(c.size, end)
}

func (c *content) writePage(p []byte, off int64, within int) {
	li, pi := int(off/leafSize), int(off%leafSize/pageSize)
	if allZero(p) && c.page(li, pi) == nil {
		return
	}
	for li >= len(c.leaves) {
		c.leaves = append(c.leaves, nil)
	}
	l := c.leaves[li]
	if l == nil {
		l = &leaf{gen: c.gen}
		c.leaves[li] = l
	} else if l.gen != c.gen {
		l = &leaf{gen: c.gen, pages: l.pages}
		c.leaves[li] = l
	}
	pg := l.pages[pi]
	if pg == nil {
		pg = &page{gen: c.gen}
		l.pages[pi] = pg
	} else if pg.gen != c.gen {
		pg = &page{gen: c.gen, b: pg.b}
		l.pages[pi] = pg
	}
	copy(pg.b[within:], p)
}

func (c *content) page(li, pi int) *page {
	if li >= len(c.leaves) || c.leaves[li] == nil {
		return nil
	}
	return c.leaves[li].pages[pi]
}

// readAt fills p from off and returns the count, which is short only at the end
// of the file.
func (c *content) readAt(p []byte, off int64) int {
	if off >= c.size {
		return 0
	}
	p = p[:min(int64(len(p)), c.size-off)]
	total := len(p)
	for len(p) > 0 {
		within := int(off % pageSize)
		n := min(len(p), pageSize-within)
		if pg := c.page(int(off/leafSize), int(off%leafSize/pageSize)); pg != nil {
			copy(p[:n], pg.b[within:])
		} else {
			clear(p[:n])
		}
		p, off = p[n:], off+int64(n)
	}
	return total
}

// flip inverts one bit. The offset must lie inside the file.
func (c *content) flip(off int64, bit uint) {
	var b [1]byte
	c.readAt(b[:], off)
	b[0] ^= 1 << bit
	c.writeAt(b[:], off)
}

func allZero(p []byte) bool {
	for len(p) > 0 {
		n := min(len(p), pageSize)
		if !bytes.Equal(p[:n], zeroPage[:n]) {
			return false
		}
		p = p[n:]
	}
	return true
}

// pagesFor is the space in bytes that a file of the given size takes.
func pagesFor(size int64) int64 {
	return (size + pageSize - 1) / pageSize * pageSize
}
