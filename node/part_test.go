package node

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/RoaringBitmap/roaring/v2"

	"fcp"
	"fcp/engine/symbols"
	"fcp/log"
)

// TestARebuildTakesPartsOverTCP rebuilds from two peers: over streams until bulk
// connections stand, then over these, and over streams again where they break.
func TestARebuildTakesPartsOverTCP(t *testing.T) {
	m := newMesh(t, 4, nil)
	m.together()
	m.put(0, "big", randomBytes(400_000, 1))
	m.sealed(0)
	id := m.nodes[0].n.ownSegments()[0]
	m.kill(0)
	var reader *Node
	var givers []*Node
	for _, x := range m.nodes[1:] {
		if len(x.n.sharesOf(id)) == 0 {
			reader = x.n
		} else {
			givers = append(givers, x.n)
		}
	}
	var rem *log.Remainder
	eventually(t, 10*time.Second, "the segment is known", func() (ok bool) {
		var err error
		rem, err = reader.remainder(id)
		return err == nil && rem != nil
	})
	var want []byte
	rebuild := func(what string) {
		t.Helper()
		b, err := reader.Fetch(within(t, 20*time.Second), rem)
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if want == nil {
			want = b
		} else if !bytes.Equal(b, want) {
			t.Fatalf("%s: other bytes", what)
		}
	}
	ready := func() bool {
		for _, g := range givers {
			if s := reader.session(g.self); s == nil || !s.bulkReady() {
				return false
			}
		}
		return true
	}
	frames := func() uint64 { return reader.metrics.DatagramsReceived.Load() }
	rebuild("over streams")
	eventually(t, 10*time.Second, "bulk connections", ready)
	eventually(t, 10*time.Second, "no frame beside the parts", func() bool { // some of the first rebuild may be late
		before := frames()
		rebuild("over TCP")
		return frames() == before
	})
	for _, g := range givers { // the givers' ends break, and nobody noticed yet
		s := g.session(reader.self)
		s.bulk.mu.Lock()
		s.bulk.out = nil
		s.bulk.mu.Unlock()
	}
	before := frames()
	rebuild("without connections")
	if frames() == before {
		t.Error("parts came over connections that the givers do not have")
	}
}

// TestPiecesAreBounded sends pieces of a part that are too large, no whole symbols, more
// than was asked for, cut short, of another request; and the end of a connection is told.
func TestPiecesAreBounded(t *testing.T) {
	wholePair(t, func(_ *simMesh, _, reader *Session, ref symbols.Ref) {
		const size = fcp.SymbolSize
		frame := func(id uint64, symbols int) []byte { return bulkFrame(id, uint32(symbols*size), symbols*size) }
		for _, c := range []struct {
			name string
			sent []byte
			want fcp.Code // of the connection's end
			came int      // symbols
			left bool     // others are waited for still, and whoever waits is told
		}{
			{"in pieces", slices.Concat(frame(5, 60), frame(5, 40)), fcp.CodeTimeout, 100, false},
			{"one by one", bytes.Repeat(frame(5, 1), 100), fcp.CodeTimeout, 100, false},
			{"nothing", nil, fcp.CodeTimeout, 0, true},
			{"a part of it", frame(5, 63), fcp.CodeTimeout, 63, true},
			{"cut short", frame(5, 10)[:9*size], fcp.CodeTimeout, 0, true},
			{"no symbol", frame(5, 0), fcp.CodeMalformed, 0, true},
			{"half a symbol", bulkFrame(5, size/2, size/2), fcp.CodeMalformed, 0, true},
			{"too large a piece", frame(5, 64), fcp.CodeMalformed, 0, true},
			{"huge", bulkFrame(5, 1<<32-1, 0), fcp.CodeTooLarge, 0, true},
			{"more than asked for", slices.Concat(frame(5, 60), frame(5, 41)), fcp.CodeMalformed, 60, true},
			{"and others", slices.Concat(frame(6, 9), frame(5, 60), frame(7, 9), frame(5, 40), frame(5, 1)), fcp.CodeTimeout, 100, false},
			{"others without end", bytes.Repeat(frame(6, 1), bulkUnasked+2), fcp.CodeMalformed, 0, true},
			{"others between pieces", slices.Concat(bytes.Repeat(frame(6, 1), bulkUnasked), frame(5, 50), bytes.Repeat(frame(6, 1), bulkUnasked), frame(5, 50)), fcp.CodeTimeout, 100, false},
		} {
			got := reader.node.newCollector(ref.Segment)
			esis := make([]uint32, 100)
			for i := range esis {
				esis[i] = uint32(7 + 3*i)
			}
			reader.whole.expectPart(5, slices.Clone(esis), got)
			here, there := net.Pipe()
			ended := make(chan error, 1)
			go func() { ended <- reader.readBulk(there); there.Close() }()
			go func() {
				_, _ = here.Write(c.sent) // may not be read to its end
				here.Close()
			}()
			if err := <-ended; !errors.Is(err, c.want) {
				t.Errorf("%s: the connection ended with %v, want %v", c.name, err, c.want)
			}
			var came []uint32
			told := false
			for len(got.in) > 0 {
				x := <-got.in
				came = append(came, x.esis...)
				if len(x.symbols) != len(x.esis)*size {
					t.Errorf("%s: %d bytes of %d symbols", c.name, len(x.symbols), len(x.esis))
				}
				told = told || x.refused == 5
			}
			if !slices.Equal(came, esis[:c.came]) || told != c.left {
				t.Errorf("%s: %d symbols came, %d should; told of the end: %v", c.name, len(came), c.came, told)
			}
			if len(reader.whole.open) != 0 {
				t.Errorf("%s: something is waited for still", c.name)
				clear(reader.whole.open)
			}
		}
	})
}

// TestGivingPartsEnds: who has enough gets no more pieces.
func TestGivingPartsEnds(t *testing.T) {
	wholePair(t, func(m *simMesh, giver, reader *Session, ref symbols.Ref) {
		here, there := net.Pipe()
		defer here.Close()
		giver.bulk.setOut(there)
		wanted := roaring.New()
		wanted.AddRange(uint64(ref.First), uint64(ref.End()))
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- m.nodes[0].n.serveParts(ctx, giver, 5, ref, wanted) }()
		if _, err := io.ReadFull(here, make([]byte, bulkHead+maxPiece*fcp.SymbolSize)); err != nil {
			t.Fatal(err)
		}
		cancel()
		go func() { _, _ = io.Copy(io.Discard, here) }()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if n := m.nodes[0].n.metrics.SymbolsSent.Load(); n >= uint64(ref.Count) {
			t.Errorf("%d of %d symbols were sent to who has enough", n, ref.Count)
		}
	})
}
