package node

import (
	"context"
	"encoding/binary"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/RoaringBitmap/roaring/v2"

	"fcp"
	"fcp/engine/symbols"
	"fcp/node/simnet"
)

// wholePair is two nodes of which the second reads from the first, which has one
// segment.
func wholePair(t *testing.T, test func(m *simMesh, giver, reader *Session, ref symbols.Ref)) {
	synctest.Test(t, func(t *testing.T) {
		m := newSimMeshOf(t, 2, 5, simnet.Link{Delay: time.Millisecond}, func(_ int, o *Options) { o.Policy = symbols.Policy{Need: 1, Of: 1} })
		defer m.close()
		m.together()
		m.put(0, "big", randomBytes(300_000, 1))
		m.sealed(0)
		time.Sleep(10 * time.Second) // of two sessions begun at once one stays
		n := m.nodes[0].n
		test(m, n.session(m.nodes[1].n.Writer()), m.nodes[1].n.session(n.Writer()), n.sharesOf(n.ownSegments()[0])[0])
	})
}

// TestAWholeShareIsTakenOnce has a peer answer with streams that are too short, too
// long, two at once, and of what nobody asked for: each is refused, and the session
// goes on.
func TestAWholeShareIsTakenOnce(t *testing.T) {
	wholePair(t, func(m *simMesh, giver, reader *Session, _ symbols.Ref) {
		send := func(id uint64, size int) {
			t.Helper()
			out, err := giver.conn.OpenUniStreamSync(within(t, 10*time.Second))
			if err != nil {
				t.Fatal(err)
			}
			// The reader may stop reading before all is written.
			_, _ = out.Write(append(binary.BigEndian.AppendUint64(make([]byte, 2), id), make([]byte, size)...))
			_ = out.Close()
		}
		for i, c := range []struct {
			size int
			want fcp.Code
		}{{999, fcp.CodeTimeout}, {1001, fcp.CodeTooLarge}, {0, fcp.CodeTimeout}, {1 << 20, fcp.CodeTooLarge}, {1000, 0}} {
			id := uint64(1000 + i)
			w := reader.whole.expect(id, carrierWhole, make([]byte, 1000))
			send(id, c.size)
			if err := <-w.done; c.want == 0 && err != nil || c.want != 0 && !errors.Is(err, c.want) {
				t.Errorf("%d bytes of 1000: %v, want %v", c.size, err, c.want)
			}
			unasked := m.nodes[1].n.metrics.SymbolsUnasked.Load()
			send(id, 1000) // again
			send(id+100, 1000)
			eventually(t, 10*time.Second, "both are refused", func() bool { return m.nodes[1].n.metrics.SymbolsUnasked.Load() == unasked+2 })
			reader.whole.forget(id)
		}
		if reader.ctx.Err() != nil || m.nodes[1].n.session(giver.node.self) != reader {
			t.Error("the session ended")
		}
	})
}

// TestAWholeShareThatIsGivenUpEnds stops waiting for a share whose giver is slow: the
// stream is cancelled and its buffer is left alone soon.
func TestAWholeShareThatIsGivenUpEnds(t *testing.T) {
	wholePair(t, func(_ *simMesh, giver, reader *Session, _ symbols.Ref) {
		w := reader.whole.expect(7, carrierWhole, make([]byte, 1000))
		out, err := giver.conn.OpenUniStreamSync(within(t, 10*time.Second))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := out.Write(append(binary.BigEndian.AppendUint64(make([]byte, 2), 7), 1, 2, 3)); err != nil {
			t.Fatal(err)
		}
		eventually(t, 10*time.Second, "the stream has begun", func() bool {
			reader.whole.mu.Lock()
			defer reader.whole.mu.Unlock()
			return w.stream != nil
		})
		reader.whole.forget(7)
		if err := <-w.done; err == nil {
			t.Error("three bytes are a share")
		}
		select {
		case <-out.Context().Done():
		case <-time.After(10 * time.Second):
			t.Error("the giver is not told")
		}
	})
}

// TestRequestsForWholeSharesAreBounded asks for a part of a share, for one that is not
// there, and with an exhausted budget.
func TestRequestsForWholeSharesAreBounded(t *testing.T) {
	wholePair(t, func(m *simMesh, giver, reader *Session, ref symbols.Ref) {
		n := m.nodes[1].n
		ask := func(ref symbols.Ref, count uint32) error {
			wanted := roaring.New()
			wanted.AddRange(uint64(ref.First), uint64(ref.First+count))
			q, err := n.newRequest(reader, ref, wanted, carrierWhole)
			if err == nil {
				err = q.sign(n.engine.Signer())
			}
			if err != nil {
				t.Fatal(err)
			}
			w := reader.whole.expect(q.ID, carrierWhole, make([]byte, int(ref.Count)*fcp.SymbolSize))
			defer reader.whole.forget(q.ID)
			if err := reader.send(urgent, q); err != nil {
				t.Fatal(err)
			}
			return <-w.done
		}
		if err := ask(ref, ref.Count-1); !errors.Is(err, fcp.CodeInvalidArgument) {
			t.Error("a part of a share:", err)
		}
		other := ref
		other.Segment[0] ^= 1
		if err := ask(other, other.Count); !errors.Is(err, fcp.CodeNotFound) {
			t.Error("another segment:", err)
		}
		if err := ask(ref, ref.Count); err != nil {
			t.Error("a share:", err)
		}
		giver.budget.mu.Lock()
		giver.budget.spent.Symbols = giver.budget.limit.Symbols - uint64(ref.Count) + 1
		giver.budget.mu.Unlock()
		if err := ask(ref, ref.Count); !errors.Is(err, fcp.CodeExhausted) {
			t.Error("beyond the budget:", err)
		}
	})
}

// TestABusyPeerIsAskedAgain: as many requests are under way as a peer may have, and a
// second later one is over.
func TestABusyPeerIsAskedAgain(t *testing.T) {
	wholePair(t, func(m *simMesh, giver, reader *Session, ref symbols.Ref) {
		var over func()
		for over == nil {
			done, err := giver.budget.serve()
			if err != nil {
				t.Fatal(err)
			}
			if giver.budget.serving == maxServing {
				over = done
			}
		}
		const busy = time.Second
		time.AfterFunc(busy, over)
		at := time.Now()
		if _, err := m.nodes[1].n.fetchWhole(context.Background(), reader, ref); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(at); took < busy {
			t.Error("not refused:", took)
		}
	})
}

// TestAPeerWithoutWholeSharesGivesFrames brings a segment from a peer that does not
// name the carrier, and one from a peer that does: both are the segment.
func TestAPeerWithoutWholeSharesGivesFrames(t *testing.T) {
	wholePair(t, func(m *simMesh, _, reader *Session, ref symbols.Ref) {
		n := m.nodes[1].n
		carriers := reader.caps.Carriers
		var got [2][]byte
		for i, c := range [][]uint64{carriers, carriers[:3]} {
			reader.caps.Carriers = c
			file, err := n.fetchSource(context.Background(), reader, ref)
			if err != nil {
				t.Fatal(err)
			}
			got[i] = file[ref.HeadSize():]
		}
		if string(got[0]) != string(got[1]) || len(got[0]) == 0 {
			t.Error("the carriers give different bytes")
		}
		if frames := n.metrics.DatagramsReceived.Load(); frames == 0 {
			t.Error("no frame came")
		}
	})
}
