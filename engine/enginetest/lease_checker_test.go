package enginetest

import (
	"fmt"
	"math"
	"time"

	"github.com/anishathalye/porcupine"

	"fcp"
	"fcp/authority"
)

// What a history of leases must satisfy. The object is a register behind a fence:
// acquire gives a number above every one given before; a write under a number is
// taken unless a higher one was given, and then lies behind every write of a lower
// one; a read shows the last write taken.

type leaseOp uint8

const (
	opAcquire leaseOp = iota // only those that gave a lease
	opWrite
	opRead
)

type leaseIn struct {
	op    leaseOp
	fence authority.Fence
	value int
}

type leaseOut struct {
	taken, unknown bool
	fence          authority.Fence
	value          int
}

type leaseRegister struct {
	granted, fence authority.Fence
	value          int
}

var leaseModel = (&porcupine.NondeterministicModel{
	Init: func() []any { return []any{leaseRegister{}} },
	Step: func(state, input, output any) []any {
		s, in, out := state.(leaseRegister), input.(leaseIn), output.(leaseOut)
		switch in.op {
		case opAcquire:
			if out.fence <= s.granted {
				return nil
			}
			s.granted = out.fence
			return []any{s}
		case opRead:
			if out.fence != s.fence || out.value != s.value {
				return nil
			}
			return []any{s}
		}
		var next []any
		if (out.taken || out.unknown) && in.fence >= s.fence && in.fence <= s.granted {
			next = append(next, leaseRegister{s.granted, in.fence, in.value})
		}
		if out.unknown || !out.taken && s.granted > in.fence {
			next = append(next, s)
		}
		return next
	},
	DescribeOperation: func(input, output any) string { return fmt.Sprintf("%+v -> %+v", input, output) },
}).ToModel()

// applied is one effect that happened, in the order of the sink.
type applied struct {
	fence  authority.Fence
	ref    fcp.Hash
	holder fcp.WriterID
	value  int
}

// held is when a holder believed that it held the thing, in true time.
type held struct {
	holder      fcp.WriterID
	from, until time.Time
}

// history is what happened to one thing.
type history struct {
	ops     []porcupine.Operation
	effects []applied
	leases  []authority.LeaseSpec
	refs    []fcp.Hash
	held    []held
	bounded bool // clocks differ by no more than the skew, and every holder stops in time
}

const never = math.MaxInt64

// fault returns what is wrong with a history; "" for nothing.
func (h *history) fault() string {
	byFence := map[authority.Fence]fcp.Hash{}
	for i, l := range h.leases {
		if ref, ok := byFence[l.Fence]; ok && ref != h.refs[i] {
			return fmt.Sprintf("two leases with the fence %d", l.Fence)
		}
		byFence[l.Fence] = h.refs[i]
	}
	for i := 1; i < len(h.effects); i++ {
		a, b := h.effects[i-1], h.effects[i]
		if b.fence < a.fence {
			return fmt.Sprintf("the sink took fence %d behind %d", b.fence, a.fence)
		}
		if b.fence == a.fence && b.ref != a.ref {
			return fmt.Sprintf("effects of two leases under fence %d", b.fence)
		}
	}
	if h.bounded {
		for i, a := range h.held {
			for _, b := range h.held[:i] {
				if a.holder != b.holder && a.from.Before(b.until) && b.from.Before(a.until) {
					return fmt.Sprintf("%.8s and %.8s hold it at one time", a.holder, b.holder)
				}
			}
		}
	}
	if r := porcupine.CheckOperationsTimeout(leaseModel, h.ops, 20*time.Second); r != porcupine.Ok {
		return fmt.Sprintf("not linearizable: %s", r)
	}
	return ""
}
