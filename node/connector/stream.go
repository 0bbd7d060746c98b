package connector

import (
	"slices"
	"strconv"

	"fcp"
)

// ParseCursor reads the cursor of an event stream (spec/wire.md section 13.10):
// the decimal number of the last event seen. An empty cursor asks for everything,
// and all is true. Signs, spaces, leading zeros, other bases and numbers above 64
// bits are CodeInvalidArgument, so that a cursor has one form.
func ParseCursor(s string) (seq uint64, all bool, err error) {
	if s == "" {
		return 0, true, nil
	}
	seq, err = strconv.ParseUint(s, 10, 64)
	if err != nil || FormatCursor(seq) != s {
		return 0, false, fcp.Errorf(fcp.CodeInvalidArgument, "cursor %.40q", s)
	}
	return seq, false, nil
}

// FormatCursor is the inverse of ParseCursor for a number.
func FormatCursor(seq uint64) string { return strconv.FormatUint(seq, 10) }

// Pending are the events of a stream that were sent and not acknowledged. The zero
// Pending is empty and ready. Not safe for concurrent use.
type Pending struct {
	seqs []uint64 // ascending
}

// Sent adds an event that asks for an acknowledgement. Adding one twice changes
// nothing.
func (p *Pending) Sent(seq uint64) {
	if i, there := slices.BinarySearch(p.seqs, seq); !there {
		p.seqs = slices.Insert(p.seqs, i, seq)
	}
}

// Ack takes acknowledgements in any order. It returns those that were pending and
// those that were not, each in the order given.
func (p *Pending) Ack(seqs ...uint64) (acked, missing []uint64) {
	for _, s := range seqs {
		i, there := slices.BinarySearch(p.seqs, s)
		if !there {
			missing = append(missing, s)
			continue
		}
		p.seqs = slices.Delete(p.seqs, i, i+1)
		acked = append(acked, s)
	}
	return acked, missing
}

// Nack tells which of the refused events are pending: they stay so, and are to be
// sent again. The others are missing.
func (p *Pending) Nack(seqs ...uint64) (again, missing []uint64) {
	for _, s := range seqs {
		if _, there := slices.BinarySearch(p.seqs, s); there {
			again = append(again, s)
		} else {
			missing = append(missing, s)
		}
	}
	return again, missing
}

// Seqs returns what is pending, ascending. The caller must not change it.
func (p *Pending) Seqs() []uint64 { return p.seqs }
