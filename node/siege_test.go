package node

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"io/fs"
	mrand "math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/quic-go/quic-go"

	"fcp"
	"fcp/engine"
	"fcp/gossip"
	"fcp/log"
	"fcp/node/wire"
)

// siege is three honest nodes and many hostile peers: members that misbehave, and
// others that are none.
type siege struct {
	*mesh
	honest []fcp.WriterID
	target []net.Addr // of the honest nodes
	ctx    context.Context
	work   sync.WaitGroup
	sent   atomic.Int64
	laps   [3]time.Duration // of the rounds so far: put, seen, rebuilt
}

// at lets a peer act at a steady rate until the siege ends.
func (s *siege) at(perSecond int, act func(rnd *mrand.Rand)) {
	s.work.Add(1)
	go func() {
		defer s.work.Done()
		rnd := mrand.New(mrand.NewPCG(uint64(perSecond), uint64(s.sent.Add(1))))
		t := time.NewTicker(time.Second / time.Duration(min(perSecond, 100)))
		defer t.Stop()
		for {
			select {
			case <-t.C:
				for range max(1, perSecond/100) {
					act(rnd)
					s.sent.Add(1)
				}
			case <-s.ctx.Done():
				return
			}
		}
	}()
}

// against returns a member's session with an honest node.
func (s *siege) against(i int, rnd *mrand.Rand) *Session {
	return s.nodes[i].n.session(s.honest[rnd.IntN(len(s.honest))])
}

func randomOf(rnd *mrand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rnd.Uint32())
	}
	return b
}

// member starts what enrolled nodes may do wrong, a kind for each in turn.
func (s *siege) member(i, kind int, segment fcp.SegmentID, rem *log.Remainder) {
	x := s.nodes[i]
	share := func() *roaring.Bitmap {
		b := roaring.New()
		b.AddRange(0, 1<<14)
		return b
	}
	switch kind {
	case 0: // questions without end
		s.at(500, func(rnd *mrand.Rand) {
			if v := s.against(i, rnd); v != nil {
				_ = v.send(normal, &shareQuery{Segment: segment})
				_ = v.send(normal, &saltsWanted{Segments: []fcp.SegmentID{segment, fcp.SegmentID(randomOf(rnd, 32))}})
			}
		})
	case 1: // inventories of what it does not have, and of what nobody has
		bits, err := share().ToBytes()
		if err != nil {
			s.t.Fatal(err)
		}
		s.at(50, func(rnd *mrand.Rand) {
			if v := s.against(i, rnd); v != nil {
				_ = v.send(normal, &gossip.Update{Entries: []gossip.Entry{{Segment: segment, Symbols: bits}}})
				_ = v.send(normal, &gossip.Update{Entries: []gossip.Entry{{Segment: fcp.SegmentID(randomOf(rnd, 32)), Symbols: bits}}})
			}
		})
	case 2: // symbols of something else, signed for
		lie(s.t, x, rem, uint32(200_000+1000*i), 150)
	case 3: // one authentic session datagram again and again, and many that do not authenticate
		said := map[*Session][]byte{}
		s.at(500, func(rnd *mrand.Rand) {
			if v := s.against(i, rnd); v != nil {
				if said[v] == nil {
					h := wire.Header{Object: segment, SymbolSize: fcp.SymbolSize}
					said[v] = v.sealSymbols(nil, &h, 400, []uint32{1}, func(int) []byte { return make([]byte, fcp.SymbolSize) })
				}
				_, _ = v.node.transport.quic.WriteTo(said[v], v.conn.RemoteAddr())
				b := randomOf(rnd, 1200)
				copy(b, v.id[:])
				_, _ = v.node.transport.quic.WriteTo(b, v.conn.RemoteAddr())
				_ = v.conn.SendDatagram(b[:600])
			}
		})
	case 4: // streams of noise, some of which never end
		s.at(10, func(rnd *mrand.Rand) {
			if v := s.against(i, rnd); v != nil {
				if st, err := v.conn.OpenUniStream(); err == nil {
					_, _ = st.Write(randomOf(rnd, 1+rnd.IntN(4000)))
					if rnd.IntN(2) == 0 {
						_ = st.Close()
					}
				}
			}
		})
	case kindFuture: // a clock that is a year ahead
		s.at(5, func(rnd *mrand.Rand) {
			_, _ = x.e.Put(s.ctx, engine.PutRequest{Key: fmt.Sprint("future/", rnd.Uint64()), Bytes: []byte("x")})
		})
	case 6: // symbols asked for and never taken: the same request at once many times
		s.at(50, func(rnd *mrand.Rand) {
			if v := s.against(i, rnd); v != nil {
				b := roaring.New()
				b.AddRange(0, 64)
				wanted, err := b.ToBytes()
				if err == nil {
					_ = v.send(normal, &symbolRequest{ID: v.nextRequest.Add(1), Segment: segment, First: 0, Count: 64, Wanted: wanted, Max: 64, Carrier: uint64(carrierStream), At: uint64(time.Now().UnixMilli())})
				}
			}
		})
	case 7: // offers of shares that it then does not give, and vectors of feeds that do not exist
		s.at(50, func(rnd *mrand.Rand) {
			if v := s.against(i, rnd); v != nil {
				_ = v.send(normal, &offer{Manifest: randomOf(rnd, 500), First: 0, Count: 10})
				_ = v.send(normal, &want{Zone: fcp.ZonePrivate, Writer: v.peer.Writer, Incarnation: rnd.Uint64(), Ranges: [][2]uint64{{1, 1 << 60}}})
			}
		})
	case kindPutBack: // an old image of its store was put back: it goes on, as a new incarnation
		s.at(5, func(rnd *mrand.Rand) {
			_, _ = x.e.Put(s.ctx, engine.PutRequest{Key: fmt.Sprint("after/", rnd.Uint64()), Bytes: []byte("x")})
		})
	}
}

// Of the kinds of misbehaviour that member knows, those that need more than its word.
const (
	kindFuture  = 5
	kindPutBack = 8
	memberKinds = 9
)

// second is what a member writes in the place of what it wrote before.
func second(i int) string { return fmt.Sprint("second/", i) }

// putBack writes something at a member, waits until the honest nodes have it, puts the
// image of its store from before in place, and writes something else there, before
// anybody can tell it what it wrote already. The member is left closed.
func (s *siege) putBack(i int) {
	s.t.Helper()
	x := s.nodes[i]
	image := s.t.TempDir()
	copyStore := func(to, from string) {
		err := os.RemoveAll(to)
		if err == nil {
			err = os.CopyFS(to, os.DirFS(from))
		}
		if err == nil {
			err = filepath.WalkDir(to, func(path string, d fs.DirEntry, err error) error {
				if err != nil {
					return err
				}
				return os.Chmod(path, map[bool]fs.FileMode{true: 0o700, false: 0o600}[d.IsDir()])
			})
		}
		if err != nil {
			s.t.Fatal(err)
		}
	}
	s.kill(i)
	copyStore(image, x.dir)
	s.open(x)
	s.start(x)
	key := fmt.Sprint("first/", i)
	s.put(i, key, []byte(key))
	for honest := range s.honest {
		eventually(s.t, time.Minute, "an honest node has the first history", func() bool {
			_, err := s.get(honest, key)
			return err == nil
		})
	}
	s.kill(i)
	copyStore(x.dir, image)
	s.open(x)
	s.put(i, second(i), []byte("x"))
	if err := x.e.Close(); err != nil {
		s.t.Fatal(err)
	}
	x.e = nil
}

// outsider starts what anybody can do who reaches the port.
func (s *siege) outsider(kind int) {
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		s.t.Fatal(err)
	}
	dialler := &quic.Transport{Conn: conn}
	s.t.Cleanup(func() {
		dialler.Close()
		conn.Close()
	})
	to := func(rnd *mrand.Rand) net.Addr { return s.target[rnd.IntN(len(s.target))] }
	switch kind % 4 {
	case 0: // noise
		s.at(300, func(rnd *mrand.Rand) { _, _ = conn.WriteTo(randomOf(rnd, rnd.IntN(1400)), to(rnd)) })
	case 1: // what looks like the first packet of a connection
		s.at(100, func(rnd *mrand.Rand) {
			b := randomOf(rnd, 1200)
			copy(b, []byte{0xc3, 0, 0, 0, 1, 8})
			_, _ = conn.WriteTo(b, to(rnd))
		})
	case 2: // connections without a certificate
		s.at(3, func(rnd *mrand.Rand) {
			ctx, cancel := context.WithTimeout(s.ctx, time.Second)
			defer cancel()
			c, err := dialler.Dial(ctx, to(rnd), &tls.Config{InsecureSkipVerify: true, NextProtos: []string{protocol}}, nil)
			if err == nil {
				_ = c.CloseWithError(0, "")
			}
		})
	case 3: // slow loris: connections that are begun and left
		s.at(3, func(rnd *mrand.Rand) {
			ctx, cancel := context.WithTimeout(s.ctx, 5*time.Millisecond)
			defer cancel()
			_, _ = dialler.Dial(ctx, to(rnd), &tls.Config{InsecureSkipVerify: true, NextProtos: []string{protocol}}, nil)
		})
	}
}

// round is what the honest nodes do: one puts, another sees it, a third rebuilds a
// segment from symbols.
func (s *siege) round(i int, rem *log.Remainder) error {
	key := fmt.Sprint("honest/", i)
	began := time.Now()
	lap := func(at int) {
		now := time.Now()
		s.laps[at] += now.Sub(began)
		began = now
	}
	s.put(0, key, []byte(key))
	lap(0)
	ctx, cancel := context.WithTimeout(context.Background(), patience(20*time.Second))
	defer cancel()
	for {
		r, err := s.nodes[1].e.Get(ctx, engine.GetRequest{Key: key})
		if err == nil {
			b, err := io.ReadAll(r)
			if err = errors.Join(err, r.Close()); err != nil || string(b) != key {
				return fmt.Errorf("%s: %q %v", key, b, err)
			}
			break
		}
		if !errors.Is(err, fcp.CodeNotFound) {
			return err
		}
		time.Sleep(200 * time.Microsecond)
	}
	lap(1)
	b, err := s.nodes[2].n.Fetch(ctx, rem)
	lap(2)
	if err == nil && len(b) == 0 {
		err = errors.New("an empty segment")
	}
	return err
}

func (s *siege) rounds(d time.Duration, from int, rem *log.Remainder) (perSecond float64, next int) {
	began := time.Now()
	next, s.laps = from, [3]time.Duration{}
	defer func() {
		k := time.Duration(max(next-from, 1))
		s.t.Logf("%d rounds, of which each put in %v, was seen in %v and rebuilt in %v", next-from, s.laps[0]/k, s.laps[1]/k, s.laps[2]/k)
	}()
	for ; time.Since(began) < d; next++ {
		if err := s.round(next, rem); err != nil {
			s.t.Fatal(err)
		}
	}
	return float64(next-from) / time.Since(began).Seconds(), next
}

func memory() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapInuse + m.StackInuse
}

// TestSiege lets hostile peers loose on three nodes that work on: what is written
// arrives, segments are rebuilt, memory is bounded, and nothing false is believed. The
// hostile peers are a process of their own, as they would have machines of their own,
// and each of the two processes has half of the processors. With FCP_LONG there are
// fifty of them for twenty seconds, and the honest nodes keep 70 % of their speed.
func TestSiege(t *testing.T) {
	evil, outsiders, length := memberKinds, 8, 2*time.Second
	long := os.Getenv("FCP_LONG") != ""
	if long {
		evil, outsiders, length = 2*memberKinds, 32, 20*time.Second
	}
	s := &siege{mesh: newMesh(t, 3+evil, nil)}
	s.together()
	for _, x := range s.nodes[:3] {
		s.honest = append(s.honest, x.n.self)
		s.target = append(s.target, x.n.Addr())
	}
	body := randomBytes(400_000, 1)
	s.put(0, "big", body)
	s.sealed(0)
	segment := s.nodes[0].n.ownSegments()[0]
	rem, err := s.nodes[2].n.remainder(segment)
	if err != nil {
		t.Fatal(err)
	}
	host := hostiles{Segment: segment[:], Outsiders: outsiders}
	for i, a := range s.target {
		host.Honest, host.Targets = append(host.Honest, s.honest[i][:]), append(host.Targets, a.String())
	}
	for i := range evil {
		x := s.nodes[3+i]
		if i%memberKinds == kindPutBack {
			s.putBack(3 + i)
		} else {
			s.kill(3 + i)
		}
		host.Members = append(host.Members, hostile{Dir: x.dir, Enrollment: x.opt.Enrollment, Index: 3 + i, Kind: i % memberKinds})
	}
	s.nodes = s.nodes[:3]
	other := startHostiles(t, &host) // a process begun later would have the half of this one
	pinned := pinHalf(t, 0)
	other.expects("ready")
	calm, next := s.rounds(length/2, 0, rem)
	runtime.GC()
	before := memory()
	peak, watched := before, make(chan struct{})
	watch, stop := context.WithCancel(context.Background())
	go func() {
		defer close(watched)
		for watch.Err() == nil {
			peak = max(peak, memory())
			time.Sleep(200 * time.Millisecond)
		}
	}()
	other.tell("begin")
	other.expects("begun")
	under, _ := s.rounds(length, next, rem)
	acted := other.end()
	stop()
	<-watched
	grown := int64(peak) - int64(before)
	t.Logf("%d hostile peers acted %d times; %.0f rounds a second before, %.0f under siege (%.0f %%), memory grew by %d MiB, processors shared: %v",
		evil+outsiders, acted, calm, under, 100*under/calm, grown>>20, !pinned)
	if grown > 256<<20 {
		t.Errorf("memory grew by %d MiB", grown>>20)
	}
	if long && pinned && under < 0.7*calm {
		t.Errorf("%.1f rounds a second, %.1f before", under, calm)
	}
	// Nothing of the future and no second history of a feed was taken in, and what is there
	// is what was put.
	for i := range s.nodes {
		err := s.nodes[i].e.List(context.Background(), engine.ListRequest{Prefix: "future/"}, func(e *engine.Entry) error {
			return fmt.Errorf("node %d has %s", i+1, e.Key)
		})
		if err != nil {
			t.Error(err)
		}
		for _, x := range host.Members {
			if x.Kind != kindPutBack {
				continue
			}
			if _, err := s.get(i, second(x.Index)); !errors.Is(err, fcp.CodeNotFound) {
				t.Errorf("node %d has the second history of node %d: %v", i+1, x.Index+1, err)
			}
		}
		if got, err := s.get(i, "big"); err != nil || !bytes.Equal(got, body) {
			t.Errorf("node %d: %v", i+1, err)
		}
	}
}
