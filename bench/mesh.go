package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	mrand "math/rand/v2"
	"path/filepath"
	"slices"
	"time"

	"fcp"
	"fcp/authority"
	"fcp/engine"
	"fcp/engine/symbols"
	"fcp/log"
	"fcp/node"
	"fcp/node/impair"
)

// meshRows are about nodes that talk over loopback, all in this process.
//
// mesh/rebuild: a node rebuilds a sealed segment from two peers, each of which has half
// of its symbols. mesh/revocation: from the append on one of five nodes until the state
// of all others shows it. mesh/lane: a node reads a segment over the lane at 20 ms round
// trip and 20 Mbit/s, with random loss in both directions. mesh/pin: a node takes a
// large object in for good; its limit is a QUIC stream of the same bytes, written to
// a file and synced. memory/mesh/pin: the highest resident size of both nodes together.
func meshRows() []Row {
	rows := []Row{
		{Name: "mesh/rebuild/1MiB", Unit: "ms", Lower: true, Subjects: []Subject{rebuildSubject()}},
		{Name: "mesh/revocation/5", Unit: "ms", Lower: true, Subjects: []Subject{revocationSubject()}},
	}
	for _, percent := range []int{0, 5, 20, 40, 60} {
		rows = append(rows, Row{Name: fmt.Sprintf("mesh/lane/1MiB/loss=%d", percent), Unit: "ms", Lower: true, Subjects: []Subject{laneSubject(percent)}})
	}
	for _, mib := range []int64{64, 1024} {
		raw := rawTransfer(mib << 20)
		rows = append(rows, Row{Name: fmt.Sprintf("mesh/pin/%dMiB", mib), Unit: "MB/s", Limit: &raw, Subjects: []Subject{pinSubject(mib<<20, false)}})
	}
	rows = append(rows, Row{Name: "memory/mesh/pin/1024MiB", Unit: "MB", Lower: true, Subjects: []Subject{pinSubject(1<<30, true)}})
	return rows
}

// meshNodes are nodes of one owner.
type meshNodes struct {
	owner   *authority.OwnerKey
	dir     string
	genesis []byte
	members []*meshNode
}

type meshNode struct {
	*node.Node
	engine *engine.Engine
	dir    string
}

// newMeshNodes makes a store and its first node.
func newMeshNodes(ctx context.Context, dir string, configure func(*node.Options)) (m *meshNodes, err error) {
	m = &meshNodes{dir: dir}
	if m.owner, err = authority.NewOwnerKey(rand.Reader); err != nil {
		return nil, err
	}
	first := filepath.Join(dir, "node-0")
	if _, err := engine.Init(ctx, first, engine.InitOptions{Owner: m.owner, Device: "node 0"}); err != nil {
		return nil, err
	}
	x, err := m.start(ctx, first, node.Options{}, configure)
	if err != nil {
		return nil, err
	}
	m.genesis, err = x.engine.GenesisBytes()
	return m, err
}

func (m *meshNodes) start(ctx context.Context, dir string, o node.Options, configure func(*node.Options)) (*meshNode, error) {
	e, err := engine.Open(ctx, dir, engine.Options{NoBallast: true})
	if err != nil {
		return nil, err
	}
	o.Engine = e
	if configure != nil {
		configure(&o)
	}
	n, err := node.Start(ctx, o)
	if err != nil {
		return nil, errors.Join(err, e.Close())
	}
	x := &meshNode{n, e, dir}
	m.members = append(m.members, x)
	return x, nil
}

// join enrolls another node and waits until it has a session with all others.
func (m *meshNodes) join(ctx context.Context, configure func(*node.Options)) (*meshNode, error) {
	keys, err := authority.NewNodeKeys(rand.Reader)
	if err != nil {
		return nil, err
	}
	first := m.members[0]
	name := fmt.Sprintf("node %.8s", keys.Writer())
	manifests, err := first.engine.Enroll(ctx, engine.EnrollOptions{Owner: m.owner, Node: keys.Public(), Name: name})
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(m.dir, fmt.Sprintf("node-%.8s", keys.Writer()))
	if err := engine.Join(ctx, dir, engine.JoinOptions{Node: keys, Genesis: m.genesis, Manifests: manifests}); err != nil {
		return nil, err
	}
	o := node.Options{Peers: []string{first.Addr().String()}}
	list, err := first.engine.Members()
	if err != nil {
		return nil, err
	}
	for _, x := range list {
		if x.Writer == keys.Writer() {
			o.Enrollment = x.Proof
		}
	}
	x, err := m.start(ctx, dir, o, configure)
	if err != nil {
		return nil, err
	}
	return x, x.WaitPeers(ctx, len(m.members)-1)
}

// leave ends a node.
func (m *meshNodes) leave(x *meshNode) error {
	m.members = slices.DeleteFunc(m.members, func(y *meshNode) bool { return x == y })
	return errors.Join(x.Close(), x.engine.Close())
}

func (m *meshNodes) close() error {
	var err error
	for _, x := range slices.Clone(m.members) {
		err = errors.Join(err, m.leave(x))
	}
	return err
}

// data returns the data segments that a node was told of, once their salts are here.
func (x *meshNode) data(ctx context.Context, want int) (out []*log.Remainder, err error) {
	for ; ; time.Sleep(5 * time.Millisecond) {
		out = out[:0]
		err := x.engine.DataSegments(fcp.ZonePrivate, func(r *log.Remainder) error {
			if _, err := x.engine.SegmentSalts(r); err == nil {
				out = append(out, r)
			}
			return nil
		})
		if err != nil || len(out) >= want {
			return out, err
		}
		if ctx.Err() != nil {
			return nil, fmt.Errorf("%d of %d segments are known: %w", len(out), want, ctx.Err())
		}
	}
}

// putSealed puts an object and seals it.
func (x *meshNode) putSealed(ctx context.Context, size int64) error {
	if _, err := x.engine.Put(ctx, engine.PutRequest{Key: largeKey, Body: randomReader(size)}); err != nil {
		return err
	}
	_, err := x.engine.Log().Seal(ctx, log.SealOptions{All: true})
	return err
}

// percentile returns the p-th percentile of durations, which it sorts.
func percentile(d []time.Duration, p int) time.Duration {
	slices.Sort(d)
	return d[min(len(d)-1, len(d)*p/100)]
}

func latencies(took []time.Duration) Sample {
	p50, p99 := percentile(took, 50), percentile(took, 99)
	return Sample{Value: float64(p50.Microseconds()) / 1000, Ops: int64(len(took)), P50: p50, P99: p99}
}

// meshSession measures how long something takes, again and again.
type meshSession struct {
	mesh *meshNodes
	once func(ctx context.Context) (time.Duration, error)
}

func (s *meshSession) Close() error { return s.mesh.close() }

func (s *meshSession) Run(ctx context.Context, d time.Duration) (Sample, error) {
	var took []time.Duration
	for end := time.Now().Add(d); len(took) == 0 || time.Now().Before(end); {
		t, err := s.once(ctx)
		if err != nil {
			return Sample{}, err
		}
		took = append(took, t)
	}
	return latencies(took), nil
}

func rebuildSubject() Subject {
	return Subject{Name: "node", Open: func(ctx context.Context, dirs Dirs) (Session, error) {
		m, err := newMeshNodes(ctx, dirs.Round, nil)
		if err != nil {
			return nil, err
		}
		for range 3 {
			if _, err := m.join(ctx, nil); err != nil {
				return nil, errors.Join(err, m.close())
			}
		}
		first := m.members[0]
		if err := first.putSealed(ctx, 1<<20-4096); err != nil {
			return nil, errors.Join(err, m.close())
		}
		for segments, missing := 0, 1; segments == 0 || missing > 0; time.Sleep(5 * time.Millisecond) {
			if segments, missing, err = first.Spread(); err != nil {
				return nil, errors.Join(err, m.close())
			}
		}
		var reader *meshNode
		var rem *log.Remainder
		for _, x := range m.members[1:] {
			list, err := x.data(ctx, 1)
			if err != nil {
				return nil, errors.Join(err, m.close())
			}
			shares := 0
			if err := x.engine.Shares(func(engine.HeldShare) error { shares++; return nil }); err != nil {
				return nil, errors.Join(err, m.close())
			}
			if shares == 0 {
				reader, rem = x, list[0]
			}
		}
		if err := m.leave(first); err != nil || reader == nil {
			return nil, errors.Join(err, m.close(), errors.New("every node holds a share"))
		}
		return &meshSession{m, func(ctx context.Context) (time.Duration, error) {
			at := time.Now()
			_, err := reader.Fetch(ctx, rem)
			return time.Since(at), err
		}}, nil
	}}
}

func revocationSubject() Subject {
	return Subject{Name: "node", Open: func(ctx context.Context, dirs Dirs) (Session, error) {
		m, err := newMeshNodes(ctx, dirs.Round, nil)
		if err != nil {
			return nil, err
		}
		for range 4 {
			if _, err := m.join(ctx, nil); err != nil {
				return nil, errors.Join(err, m.close())
			}
		}
		if _, err := m.members[0].engine.Put(ctx, engine.PutRequest{Key: "a", Bytes: []byte("zone")}); err != nil {
			return nil, errors.Join(err, m.close())
		}
		for _, x := range m.members { // the zone is known to all
			for err := error(nil); ; time.Sleep(time.Millisecond) {
				if _, err = x.engine.ZoneRoot(fcp.ZonePrivate); err == nil {
					break
				}
				if ctx.Err() != nil {
					return nil, errors.Join(err, m.close())
				}
			}
		}
		n := uint64(0)
		return &meshSession{m, func(ctx context.Context) (time.Duration, error) {
			n++
			victim := fcp.Feed{Zone: fcp.ZonePrivate, Writer: fcp.WriterID{7, byte(n), byte(n >> 8), byte(n >> 16)}, Incarnation: 1, Plane: fcp.PlaneControl}
			body, err := authority.SignRevocation(time.Now(), m.owner, authority.Cut{Feed: victim}, "lost")
			if err != nil {
				return 0, err
			}
			at := time.Now()
			if _, err := m.members[0].engine.AppendSigned(ctx, fcp.ZonePrivate, fcp.KindRevocationIssued, body); err != nil {
				return 0, err
			}
			root, err := m.members[0].engine.ZoneRoot(fcp.ZonePrivate)
			for _, x := range m.members[1:] {
				for got := (fcp.Hash{}); err == nil && got != root; got, err = x.engine.ZoneRoot(fcp.ZonePrivate) {
					time.Sleep(100 * time.Microsecond)
				}
			}
			return time.Since(at), err
		}}, nil
	}}
}

// laneSubject reads over a path that is made bad once the nodes know each other.
func laneSubject(percent int) Subject {
	return Subject{Name: "node", Open: func(ctx context.Context, dirs Dirs) (Session, error) {
		var paths []*impair.Wrapped
		configure := func(o *node.Options) {
			w := impair.Wrap(node.UDP{}, impair.Path{})
			paths = append(paths, w)
			o.Network, o.Lane, o.Policy = w, true, symbols.Policy{Need: 1, Of: 1}
		}
		m, err := newMeshNodes(ctx, dirs.Round, configure)
		if err != nil {
			return nil, err
		}
		x, err := m.join(ctx, configure)
		if err == nil {
			err = m.members[0].putSealed(ctx, 1<<20-4096)
		}
		var list []*log.Remainder
		if err == nil {
			list, err = x.data(ctx, 1)
		}
		if err == nil { // so that who has it is known
			_, err = x.Fetch(ctx, list[0])
		}
		if err != nil {
			return nil, errors.Join(err, m.close())
		}
		for i, w := range paths {
			w.Set(impair.Path{Delay: 10 * time.Millisecond, Loss: percent * 100, Seed: uint64(i + 1), Link: &impair.Link{Rate: 20e6 / 8, Queue: 256 << 10}})
		}
		return &meshSession{m, func(ctx context.Context) (time.Duration, error) {
			at := time.Now()
			_, err := x.Fetch(ctx, list[0])
			return time.Since(at), err
		}}, nil
	}}
}

// pinSubject has a new node take in an object of the first.
func pinSubject(size int64, memory bool) Subject {
	return Subject{Name: "node", NoWarmUp: true, Open: func(ctx context.Context, dirs Dirs) (Session, error) {
		whole := func(o *node.Options) { o.Policy = symbols.Policy{Need: 1, Of: 1} }
		m, err := newMeshNodes(ctx, dirs.Round, whole)
		if err != nil {
			return nil, err
		}
		if err := m.members[0].putSealed(ctx, size); err != nil {
			return nil, errors.Join(err, m.close())
		}
		want, err := m.members[0].data(ctx, 1)
		if err != nil {
			return nil, errors.Join(err, m.close())
		}
		x, err := m.join(ctx, whole)
		if err == nil {
			_, err = x.data(ctx, len(want))
		}
		if err != nil {
			return nil, errors.Join(err, m.close())
		}
		return &pinSession{m, x, size, memory}, nil
	}}
}

type pinSession struct {
	mesh *meshNodes
	node *meshNode
	size int64

	memory bool // the value is the highest resident size
}

func (s *pinSession) Close() error { return s.mesh.close() }

func (s *pinSession) Run(ctx context.Context, _ time.Duration) (Sample, error) {
	at := time.Now()
	p, err := s.node.Pin(ctx, fcp.ZonePrivate)
	took := time.Since(at)
	if err == nil && (p.Bytes < s.size || p.Brought != p.Segments) {
		err = fmt.Errorf("%+v was pinned of %d bytes", p, s.size)
	}
	value := float64(s.size) / 1e6 / took.Seconds()
	if s.memory && err == nil {
		var used usage
		used, err = readUsage("")
		value = float64(used.peakRSS) / 1e6
	}
	return Sample{Value: value, Ops: 1, Bytes: s.size}, err
}

// randomReader gives bytes that do not compress.
func randomReader(size int64) io.Reader {
	return io.LimitReader(mrand.NewChaCha8([32]byte{1}), size)
}
