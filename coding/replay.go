package coding

import (
	"unsafe"

	"fcp/coding/internal/gf256"
)

// replayer runs a program on the tiles of one stripe after another. It belongs
// to one goroutine.
type replayer struct {
	prog    *program
	stripe  int              // the stripe the pointers are for, -1 for none
	rows    []unsafe.Pointer // the stripe's part of every row's symbol
	forward []unsafe.Pointer // rows in the order forward loads them
	back    []unsafe.Pointer
	stage   []byte // copies of parts too short for a kernel

	outs   []unsafe.Pointer // a decoder's lost symbols' parts
	single []unsafe.Pointer // part, as a list
	part   [gf256.MinWidth]byte
}

// reset prepares for a program over rows rows.
func (r *replayer) reset(p *program, rows int) {
	r.prog = p
	r.stripe = -1
	r.rows = resize(r.rows, rows)
	r.forward = resize(r.forward, len(p.loadForward)+gf256.Ahead)
	r.back = resize(r.back, len(p.loadBack)+gf256.Ahead)
}

// enter sets the pointers for a stripe whose rows have been filled in.
func (r *replayer) enter(index int, s stripe) {
	r.stripe = index
	if s.size < gf256.MinWidth {
		r.stage = resize(r.stage, len(r.rows)*gf256.MinWidth)
		for i, p := range r.rows {
			copy(r.stage[i*gf256.MinWidth:], unsafe.Slice((*byte)(p), s.size))
			r.rows[i] = unsafe.Pointer(&r.stage[i*gf256.MinWidth])
		}
	}
	order(r.forward, r.prog.loadForward, r.rows)
	order(r.back, r.prog.loadBack, r.rows)
}

func order(to []unsafe.Pointer, loads []uint32, rows []unsafe.Pointer) {
	for i, row := range loads {
		to[i] = rows[row]
	}
	// What a kernel prefetches beyond the end must be valid and may be anything.
	for i := len(loads); i < len(to); i++ {
		to[i] = unsafe.Pointer(&zeros)
	}
}

// run computes the intermediate symbols of a tile in the workspace at ws.
func (r *replayer) run(ws unsafe.Pointer, t *tile) {
	p, w, f := r.prog, t.width, &gf256.Best
	clear(unsafe.Slice((*byte)(unsafe.Add(ws, p.zero*w)), p.zeros*w))
	f.Sum(ws, w, p.forward, r.forward, t.col)
	if len(p.horner) > 0 {
		f.Horner(ws, w, p.horner, p.last)
	}
	f.Sum(ws, w, p.middle, nil, 0)
	if len(p.mul) > 0 {
		f.MulSum(ws, w, p.mul)
	}
	f.Sum(ws, w, p.back, r.back, t.col)
}
