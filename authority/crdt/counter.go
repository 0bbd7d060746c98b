package crdt

import "fcp"

// GCounter is a counter that only grows. The zero GCounter is 0.
type GCounter struct{ n vector }

type gCounterObject struct {
	Actors []count `cbor:"actors"`
}

// Kind implements State.
func (*GCounter) Kind() Kind { return KindGCounter }

// Value returns the sum over all actors.
func (c *GCounter) Value() (sum uint64) {
	for _, n := range c.n {
		sum += n
	}
	return sum
}

// Add adds n, at least 1, for an actor and returns the delta. CodeTooLarge above
// MaxCount or MaxActors; then nothing changed.
func (c *GCounter) Add(actor fcp.WriterID, n uint64) (*GCounter, error) {
	if n == 0 || n > MaxCount || c.n[actor] > MaxCount-n || actor.IsZero() {
		return nil, fcp.Errorf(fcp.CodeTooLarge, "a counter of an actor goes from 1 to %d", uint64(MaxCount))
	}
	delta := &GCounter{vector{actor: c.n[actor] + n}}
	return delta, c.Join(delta)
}

// Join implements State: of each actor the higher number.
func (c *GCounter) Join(s State) error {
	o, ok := s.(*GCounter)
	if !ok {
		return errKind(c, s)
	}
	n, err := c.n.joined(o.n)
	if err == nil {
		c.n = n
	}
	return err
}

// Encode implements State.
func (c *GCounter) Encode() ([]byte, error) { return encode(gCounterObject{c.n.list()}) }

func decodeGCounter(b []byte) (*GCounter, error) {
	var o gCounterObject
	if err := fcp.Unmarshal(b, &o); err != nil {
		return nil, err
	}
	n, err := vectorOf(o.Actors)
	return &GCounter{n}, err
}

// PNCounter is a counter that grows and shrinks. The zero PNCounter is 0.
type PNCounter struct{ plus, minus GCounter }

type pnCounterObject struct {
	Plus  []count `cbor:"plus"`
	Minus []count `cbor:"minus"`
}

// Kind implements State.
func (*PNCounter) Kind() Kind { return KindPNCounter }

// Value returns what was added less what was taken away.
func (c *PNCounter) Value() int64 { return int64(c.plus.Value()) - int64(c.minus.Value()) }

// Add adds n, not 0 and possibly negative, for an actor and returns the delta.
// Errors as GCounter.Add.
func (c *PNCounter) Add(actor fcp.WriterID, n int64) (*PNCounter, error) {
	side, size := &c.plus, uint64(n)
	if n < 0 {
		side, size = &c.minus, -uint64(n)
	}
	d, err := side.Add(actor, size)
	switch {
	case err != nil:
		return nil, err
	case n < 0:
		return &PNCounter{minus: *d}, nil
	}
	return &PNCounter{plus: *d}, nil
}

// Join implements State.
func (c *PNCounter) Join(s State) error {
	o, ok := s.(*PNCounter)
	if !ok {
		return errKind(c, s)
	}
	plus, err := c.plus.n.joined(o.plus.n)
	if err != nil {
		return err
	}
	minus, err := c.minus.n.joined(o.minus.n)
	if err == nil {
		c.plus.n, c.minus.n = plus, minus
	}
	return err
}

// Encode implements State.
func (c *PNCounter) Encode() ([]byte, error) {
	return encode(pnCounterObject{c.plus.n.list(), c.minus.n.list()})
}

func decodePNCounter(b []byte) (*PNCounter, error) {
	var o pnCounterObject
	if err := fcp.Unmarshal(b, &o); err != nil {
		return nil, err
	}
	plus, err := vectorOf(o.Plus)
	if err != nil {
		return nil, err
	}
	minus, err := vectorOf(o.Minus)
	return &PNCounter{GCounter{plus}, GCounter{minus}}, err
}
