package node

import (
	"context"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"fcp"
	"fcp/engine/symbols"
	"fcp/log"
	"fcp/node/impair"
	"fcp/node/simnet"
)

// lanePath is a mesh of two over a path of 20 ms round trip: the first node has a
// segment of one mebibyte that the second reads over the lane.
type lanePath struct {
	*simMesh
	paths []*impair.Wrapped
	rem   *log.Remainder
}

func newLanePath(t *testing.T) *lanePath {
	l := &lanePath{simMesh: newSimMeshOf(t, 2, 41, simnet.Link{}, func(i int, o *Options) {
		o.Lane, o.Policy = true, symbols.Policy{Need: 1, Of: 1}
		w := impair.Wrap(o.Network, impair.Path{Delay: 10 * time.Millisecond})
		o.Network = w
	})}
	for _, x := range l.nodes {
		l.paths = append(l.paths, x.opt.Network.(*impair.Wrapped))
	}
	l.together()
	l.put(0, "big", randomBytes(1<<20-4096, 1))
	l.rem = l.laneSegment()
	return l
}

// laneSegment seals what the first node put and waits until the second knows of it.
func (m *mesh) laneSegment() (rem *log.Remainder) {
	m.t.Helper()
	m.seal(0)
	id := m.nodes[0].n.ownSegments()[0]
	eventually(m.t, 10*time.Second, "the reader knows of the segment", func() bool {
		var err error
		rem, err = m.nodes[1].n.remainder(id)
		return err == nil && rem != nil && m.nodes[1].n.needSalts(context.Background(), rem) == nil
	})
	return rem
}

func (l *lanePath) set(p impair.Path) {
	for i, w := range l.paths {
		p.Seed = uint64(i + 1)
		w.Set(p)
	}
}

func (l *lanePath) fetch(t *testing.T) time.Duration {
	t.Helper()
	at := time.Now()
	if _, err := l.nodes[1].n.Fetch(context.Background(), l.rem); err != nil {
		t.Fatal(err)
	}
	return time.Since(at)
}

// TestTheLaneIsAsFastAsThePathLets reads a mebibyte over the lane at 20 ms round
// trip and several rates of loss, each time over a new session that knows nothing of
// the path: at most twice the time without loss divided by the share that arrives.
func TestTheLaneIsAsFastAsThePathLets(t *testing.T) {
	rates := []int{20e6 / 8}
	if os.Getenv("FCP_LONG") != "" {
		rates = append(rates, 100e6/8, 0)
	}
	for _, rate := range rates {
		synctest.Test(t, func(t *testing.T) {
			l := newLanePath(t)
			defer l.close()
			run := func(loss int) time.Duration {
				path := impair.Path{Delay: 10 * time.Millisecond}
				l.set(path)
				l.nodes[1].n.session(l.nodes[0].n.Writer()).end(nil)
				time.Sleep(5 * time.Second)
				l.together()
				eventually(t, time.Minute, "the reader knows who has the segment", func() bool {
					n := l.nodes[1].n
					n.mu.Lock()
					defer n.mu.Unlock()
					return len(n.core.Holders(fcp.SegmentID(l.rem.Segment))) > 0
				})
				path.Loss = loss
				if rate > 0 {
					path.Link = &impair.Link{Rate: rate, Queue: 256 << 10}
				}
				l.set(path)
				return l.fetch(t)
			}
			free := run(0)
			t.Log("at", rate*8/1e6, "Mbit/s without loss:", free)
			for _, loss := range []int{500, 2000, 4000, 6000} {
				p := float64(loss) / 10000
				got, most := run(loss), time.Duration(2*float64(free)/(1-p))
				t.Logf("loss %v: %v, %.2f of what loss alone explains", p, got, got.Seconds()/(free.Seconds()/(1-p)))
				if got > most {
					t.Errorf("at %d Mbit/s and loss %v: %v, at most %v", rate*8/1e6, p, got, most)
				}
			}
			l.set(impair.Path{})
		})
	}
}
