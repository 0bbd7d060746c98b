package node

import (
	"bytes"
	"context"
	"math/rand/v2"
	"reflect"
	"testing"
	"time"

	"github.com/zeebo/blake3"

	"fcp"
	"fcp/coding"
	"fcp/node/wire"
)

// FuzzLane feeds blocks to the decoder of messages on the lane: what it takes is
// what its encoder makes, and nothing that has to come once and in order.
func FuzzLane(f *testing.F) {
	for _, m := range samples(f) {
		b, err := encodeLane(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
		f.Add(append(b, 0, 0, 0))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		whole := bytes.TrimRight(b, "\x00")
		for n := len(whole); n <= min(len(b), len(whole)+8); n++ { // the id covers what is not padding
			m, err := decodeLane(blake3.Sum256(b[:n]), b)
			if err != nil {
				continue
			}
			again, err := encodeLane(m)
			if err != nil || !bytes.Equal(again, b[:n]) {
				t.Fatalf("%T comes back as something else: %v", m, err)
			}
			switch m.(type) {
			case *shareQuery, *shareHeads, *symbolRequest, *symbolReply, *decodeStatus:
			default:
				t.Fatalf("%T came over the lane", m)
			}
		}
	})
}

// TestALaneMessageIsJoinedOnce joins a message of several symbols, of which half are
// lost, from whatever comes, in any order, among symbols of others that never end.
func TestALaneMessageIsJoinedOnce(t *testing.T) {
	n := &Node{life: context.Background()}
	m := &shareHeads{Segment: fcp.SegmentID{1}, Shares: []shareHead{{Manifest: []byte{1}, Count: 9, Head: randomBytes(20_000, 7)}}, ID: 3}
	b, err := encodeLane(m)
	if err != nil {
		t.Fatal(err)
	}
	id := blake3.Sum256(b)
	k := (len(b) + fcp.SymbolSize - 1) / fcp.SymbolSize
	plan, err := n.plans.Get(context.Background(), k)
	if err != nil {
		t.Fatal(err)
	}
	enc, err := coding.NewEncoder(plan, k, laneShape(fcp.SymbolSize), coding.EncoderOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := enc.Reset(b); err != nil {
		t.Fatal(err)
	}
	if err := enc.Encode(context.Background()); err != nil {
		t.Fatal(err)
	}
	rnd := rand.New(rand.NewPCG(1, 2))
	var l laneLink
	var got []any
	for _, esi := range rnd.Perm(4 * k) {
		if rnd.IntN(2) == 0 {
			continue
		}
		symbol := make([]byte, fcp.SymbolSize)
		if err := enc.Symbol(symbol, uint32(esi)); err != nil {
			t.Fatal(err)
		}
		out, err := l.join(n, id, fcp.SymbolSize, &wire.Record{ESI: uint32(esi), K: uint16(k)}, symbol)
		if err != nil {
			t.Fatal(err)
		}
		if out != nil {
			m, err := decodeLane(id, out)
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, m)
		}
		if esi%8 == 0 { // two others that never become whole
			other := [32]byte{byte(esi % 3), 9}
			if _, err := l.join(n, other, fcp.SymbolSize, &wire.Record{ESI: uint32(esi), K: maxLaneSymbols}, symbol); err != nil {
				t.Fatal(err)
			}
		}
		if len(l.parts) > maxLaneParts {
			t.Fatalf("%d messages are not whole", len(l.parts))
		}
	}
	if len(got) != 1 || !reflect.DeepEqual(got[0], m) {
		t.Errorf("%d messages came", len(got))
	}
	for _, r := range []wire.Record{{K: 0}, {K: maxLaneSymbols + 1}, {K: 1, ESI: 1}, {K: 2, ESI: coding.MaxESI + 1}} {
		if _, err := l.join(n, id, fcp.SymbolSize, &r, make([]byte, fcp.SymbolSize)); err == nil {
			t.Errorf("a symbol %d of %d is taken", r.ESI, r.K)
		}
	}
}

// TestAPacerNeverWedges gives a pacer reports that are lies: its window stays within
// its bounds, and it always lets a packet go after a while.
func TestAPacerNeverWedges(t *testing.T) {
	for seed := range uint64(50) {
		rnd := rand.New(rand.NewPCG(seed, 5))
		p := newPacer(time.Duration(rnd.IntN(50)) * time.Millisecond)
		now, seq := time.Unix(1000, 0), uint64(0)
		for range 5000 {
			wait, _ := p.next(now)
			if wait == 0 {
				seq += 1 + rnd.Uint64N(3)
				p.sent(seq, now)
			} else {
				now = now.Add(min(wait, time.Duration(1+rnd.IntN(int(20*time.Millisecond)))))
			}
			if rnd.IntN(4) == 0 {
				r := paceReport{rnd.Uint64N(seq + 10), rnd.Uint64N(2*seq + 1), time.Duration(rnd.Int64()), time.Duration(rnd.Uint64N(1 << 32))}
				if rnd.IntN(2) == 0 {
					r.at = time.Duration(now.UnixNano())
				}
				p.report(r, now)
			}
			if p.window < paceLeast || p.window > paceMost || p.rtt <= 0 || p.loss < 0 || p.loss > 1 {
				t.Fatalf("seed %d: window %v, round trip %v, loss %v", seed, p.window, p.rtt, p.loss)
			}
		}
		for waited := time.Duration(0); ; {
			wait, _ := p.next(now)
			if wait == 0 {
				break
			}
			if now, waited = now.Add(wait), waited+wait; waited > time.Minute {
				t.Fatalf("seed %d: no packet may go for a minute: %v", seed, wait)
			}
		}
	}
}
