package coding

import "fcp/coding/internal/rfc6330"

// matrix is the sparse binary part of the constraint matrix A of section
// 5.3.3.4.2: one LT row per encoding symbol and the S LDPC rows. The HDPC rows
// are never stored; dense.go derives what it needs of them by a recurrence.
//
// Rows are ordered: LT rows with a symbol (0..data-1), LT rows of padding
// symbols whose value is known to be zero, LDPC rows. Every row lists its
// columns below W first, then (from rowMid) those of the P permanently
// inactive symbols.
type matrix struct {
	blk  rfc6330.Block
	lt   []uint32 // internal symbol id of every LT row
	data int      // how many of them carry a symbol

	rowStart []uint32
	rowMid   []uint32
	rowCols  []uint32

	colStart []uint32 // for columns below W: which rows hold them
	colRows  []uint32
}

func (m *matrix) rows() int { return len(m.lt) + int(m.blk.S) }

// build fills the rows from blk, lt and data.
func (m *matrix) build() {
	rows := m.rows()
	m.rowStart = resize(m.rowStart, rows+1)
	m.rowMid = resize(m.rowMid, rows)
	m.rowCols = reserve(m.rowCols, 21*rows/2)
	m.colStart = resize(m.colStart, int(m.blk.W)+2)
	clear(m.colStart)
	count := m.colStart[2:] // shifted, so that filling leaves the starts in place
	for r, x := range m.lt {
		start := len(m.rowCols)
		var n int
		m.rowCols, n = m.blk.AppendRow(m.rowCols, x)
		m.rowStart[r] = uint32(start)
		m.rowMid[r] = uint32(start + n)
		for _, c := range m.rowCols[start : start+n] {
			count[c]++
		}
	}
	m.buildLDPC(count)
	m.transpose()
}

// buildLDPC appends the LDPC rows (section 5.3.3.3).
func (m *matrix) buildLDPC(count []uint32) {
	b := &m.blk
	first := uint32(len(m.lt))
	size := m.rowMid[first:] // counts, then fill positions, at last the mid marks
	for r := range size {
		size[r] = 1 // the identity column B+r
	}
	for i := range b.B {
		r0, r1, r2 := b.LDPCRows(i)
		size[r0]++
		size[r1]++
		size[r2]++
		count[i] += 3
	}
	at := uint32(len(m.rowCols))
	for r := range size {
		n := size[r]
		m.rowStart[int(first)+r] = at
		size[r] = at
		at += n + 2
	}
	m.rowStart[m.rows()] = at
	m.rowCols = append(m.rowCols, make([]uint32, int(at)-len(m.rowCols))...)
	put := func(r, c uint32) {
		m.rowCols[size[r]] = c
		size[r]++
	}
	for i := range b.B {
		r0, r1, r2 := b.LDPCRows(i)
		put(r0, i)
		put(r1, i)
		put(r2, i)
	}
	for r := range b.S {
		put(r, b.B+r)
		count[b.B+r]++
		m.rowCols[size[r]] = b.W + r%b.P
		m.rowCols[size[r]+1] = b.W + (r+1)%b.P
	}
}

// transpose fills colStart and colRows from the rows.
func (m *matrix) transpose() {
	w := int(m.blk.W)
	for c := 2; c < w+2; c++ {
		m.colStart[c] += m.colStart[c-1]
	}
	m.colRows = resize(m.colRows, int(m.colStart[w+1]))
	next := m.colStart[1:]
	for r := range m.rows() {
		for _, c := range m.rowCols[m.rowStart[r]:m.rowMid[r]] {
			m.colRows[next[c]] = uint32(r)
			next[c]++
		}
	}
}

// active returns the columns of row r below W.
func (m *matrix) active(r uint32) []uint32 { return m.rowCols[m.rowStart[r]:m.rowMid[r]] }

// row returns all columns of row r.
func (m *matrix) row(r uint32) []uint32 { return m.rowCols[m.rowStart[r]:m.rowStart[r+1]] }

// resize returns a slice of length n that reuses s when it is large enough. Its
// content is undefined.
func resize[T any](s []T, n int) []T {
	if cap(s) < n {
		return make([]T, n, n+n/8)
	}
	return s[:n]
}

// reserve returns an empty slice that reuses s and has room for n. Streams whose
// length is known only at the end begin with room for what random symbols
// need: growing by append would leave as much garbage as they hold.
func reserve[T any](s []T, n int) []T {
	if cap(s) < n {
		return make([]T, 0, n)
	}
	return s[:0]
}
