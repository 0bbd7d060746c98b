package coding

// program is the elimination written down as symbol operations, to be replayed
// on any number of payloads. It names workspace slots: slots 0..L-1 end up as
// the intermediate symbols, those behind are scratch. Every stage is one stream
// for one kernel of internal/gf256, run in the order of the fields.
//
// Symbols of the source block (or received symbols) are not slots: a record
// marked as having one takes the next entry of a pointer stream, whose order
// the load fields give. That keeps the source where the caller has it.
type program struct {
	slots int // size of the workspace
	zero  int // first slot that must be zero before the run
	zeros int // how many

	forward []uint32 // sums: partial symbols E, syndromes of the dense rows
	horner  []uint32 // HDPC recurrence over E
	last    uint32   // slot that takes the recurrence's last value
	middle  []uint32 // sums: HDPC rows, combination tables, binary solution
	mul     []uint32 // sums of products: what only the HDPC rows settle
	back    []uint32 // sums: all other intermediate symbols

	loadForward []uint32 // row of each symbol that forward loads
	loadBack    []uint32 // row of each symbol that back loads
}

// reset empties the program of a system of so many rows.
func (p *program) reset(slots, rows int) {
	p.slots = slots
	p.forward = reserve(p.forward, 9*rows)
	p.horner = reserve(p.horner, 2*rows)
	p.middle = reserve(p.middle, 3*rows/2)
	p.mul = p.mul[:0]
	p.back = reserve(p.back, 11*rows)
	p.loadForward = reserve(p.loadForward, rows)
	p.loadBack = reserve(p.loadBack, rows)
}

// clone returns a copy that shares nothing with p and wastes no capacity.
func (p *program) clone() *program {
	q := *p
	q.forward = tight(p.forward)
	q.horner = tight(p.horner)
	q.middle = tight(p.middle)
	q.mul = tight(p.mul)
	q.back = tight(p.back)
	q.loadForward = tight(p.loadForward)
	q.loadBack = tight(p.loadBack)
	return &q
}

func tight(s []uint32) []uint32 {
	t := make([]uint32, len(s))
	copy(t, s)
	return t
}

// bytes is the memory the streams take.
func (p *program) bytes() int {
	return 4 * (len(p.forward) + len(p.horner) + len(p.middle) + len(p.mul) + len(p.back) +
		len(p.loadForward) + len(p.loadBack))
}

// sum accumulates one record of a stream of sums.
type sum struct {
	stream []uint32
	head   int
}

func (s *sum) begin(dst uint32) {
	s.head = len(s.stream)
	s.stream = append(s.stream, dst, 0)
}

func (s *sum) add(slot uint32) { s.stream = append(s.stream, slot) }

// end closes the record; load says that it also takes a symbol.
func (s *sum) end(load bool) {
	n := uint32(len(s.stream) - s.head - 2)
	if load {
		n |= 1 << 31
	}
	s.stream[s.head+1] = n
}

func (s *sum) terms() int { return len(s.stream) - s.head - 2 }

// drop forgets the record begun last.
func (s *sum) drop() { s.stream = s.stream[:s.head] }

// records returns where each record of a stream of sums begins.
func records(stream []uint32) []uint32 {
	n := 0
	for at := 0; at < len(stream); at += 2 + int(stream[at+1]&^(1<<31)) {
		n++
	}
	out := make([]uint32, 0, n)
	for at := 0; at < len(stream); at += 2 + int(stream[at+1]&^(1<<31)) {
		out = append(out, uint32(at))
	}
	return out
}
