package node

import (
	"context"
	"errors"
	"syscall"
	"time"

	"fcp"
	"fcp/engine"
	"fcp/internal/crashfs"
	"fcp/node/simnet"
)

// fault disturbs a world and mends it again, all but the network, which settle
// heals.
type fault struct {
	name  string
	stops bool // a store stops for good, as a process would
	do    func(w *world)
}

// faults are the kinds that every simulated hour has at least once.
var faults = []fault{
	{"loss", false, func(w *world) {
		w.badNetwork("loss", simnet.Link{Delay: 5 * time.Millisecond, Loss: 500 + w.rnd.IntN(5500)})
	}},
	{"reorder", false, func(w *world) {
		w.badNetwork("reorder", simnet.Link{Delay: time.Millisecond, Jitter: 100 * time.Millisecond})
	}},
	{"duplicate", false, func(w *world) {
		w.badNetwork("duplicate", simnet.Link{Delay: 5 * time.Millisecond, Jitter: 10 * time.Millisecond, Duplicate: 5000})
	}},
	{"corrupt", false, func(w *world) {
		w.badNetwork("corrupt", simnet.Link{Delay: 5 * time.Millisecond, Corrupt: 1000})
	}},
	{"slow link", false, func(w *world) {
		w.badNetwork("slow link", simnet.Link{Delay: 300 * time.Millisecond, Jitter: 50 * time.Millisecond, Rate: 50_000})
	}},
	{"partition: pair", false, func(w *world) {
		a, b := w.two()
		w.partition("partition: pair", func() { w.net.Cut(a.host, b.host) })
	}},
	{"partition: one way", false, func(w *world) {
		a, b := w.two()
		w.partition("partition: one way", func() { w.net.CutOneWay(a.host, b.host) })
	}},
	{"partition: alone", false, func(w *world) {
		a := w.pick()
		w.partition("partition: alone", func() { w.cutBetween(func(x, y int) bool { return x == a.i || y == a.i }) })
	}},
	{"partition: halves", false, func(w *world) {
		side := 1 + w.rnd.IntN(len(w.nodes)-1)
		w.partition("partition: halves", func() { w.cutBetween(func(x, y int) bool { return (x < side) != (y < side) }) })
	}},
	{"partition: ring", false, func(w *world) {
		n := len(w.nodes)
		w.partition("partition: ring", func() {
			w.cutBetween(func(x, y int) bool { return (x+1)%n != y && (y+1)%n != x || n == 3 && x == 0 && y == 2 })
		})
	}},
	{"partition: bridge", false, func(w *world) {
		a := w.pick()
		w.partition("partition: bridge", func() { w.cutBetween(func(x, y int) bool { return x != a.i && y != a.i }) })
	}},
	{"partition: flapping", false, func(w *world) {
		w.count("partition: flapping", "")
		for range 10 {
			a, b := w.two()
			w.net.Cut(a.host, b.host)
			w.mustPut(w.pick())
			w.rest(3 * time.Second)
			w.net.Heal(a.host, b.host)
		}
	}},
	{"power cut", false, func(w *world) {
		m := w.pick()
		w.crash("power cut", m, func() *crashfs.FS { return m.fs.Crash(w.rnd, crashfs.Harsh()) })
	}},
	{"power cut while writing", true, func(w *world) {
		m := w.pick()
		w.some(2, w.up())
		m.fs.StopAt(m.fs.Mutations() + 1 + w.rnd.Int64N(20)) // the process dies at some write
		w.noPut(m)
		w.crash("power cut while writing", m, func() *crashfs.FS { return m.fs.Crash(w.rnd, crashfs.Harsh()) })
	}},
	{"process killed", false, func(w *world) {
		m := w.pick()
		w.crash("process killed", m, func() *crashfs.FS { return m.fs.Crash(w.rnd, crashfs.Options{Keep: 1, KeepEntries: 1}) })
	}},
	{"old image", false, func(w *world) {
		m := w.pick()
		w.count("old image", "%s", m.host)
		image := m.fs.Crash(w.rnd, crashfs.Options{Keep: 1, KeepEntries: 1})
		before := len(w.puts)
		for range 3 {
			w.mustPut(m)
		}
		w.settle() // the others have what the image has not
		w.swap(m, image)
		w.rest(time.Minute)
		w.open(m)
		w.start(m)
		time.Sleep(2 * time.Second)
		w.voided(m, before, false)
		w.mustPut(m)
	}},
	{"fork", false, func(w *world) {
		m := w.pick()
		w.count("fork", "%s", m.host)
		image := m.fs.Crash(w.rnd, crashfs.Options{Keep: 1, KeepEntries: 1})
		before := len(w.puts)
		for range 1 + w.rnd.IntN(3) {
			w.mustPut(m)
		}
		w.settle()
		w.cutBetween(func(x, y int) bool { return x == m.i || y == m.i })
		w.swap(m, image)
		w.boot(m)
		for range 1 + w.rnd.IntN(5) { // it contradicts what it forgot
			w.mustPut(m)
		}
		w.voided(m, before, true)
		w.rest(30 * time.Second)
		w.settle()
		w.voidedAlike(m, w.puts[before].feed, w.puts[before].seq)
	}},
	{"restart", false, func(w *world) {
		m := w.pick()
		w.count("restart", "%s", m.host)
		if err := errors.Join(m.n.Close(), m.e.Close()); err != nil {
			w.fail("%s does not close: %v", m.host, err)
		}
		m.n, m.e = nil, nil
		w.rest(20 * time.Second)
		w.boot(m)
		w.checkOwn(m)
	}},
	{"disk error", true, func(w *world) {
		m := w.pick()
		m.fs.SetHook(func(op crashfs.Op) error {
			if op.Kind == crashfs.Sync {
				return syscall.EIO
			}
			return nil
		})
		w.noPut(m)
		if m.e.Log().Crashed() == nil {
			w.fail("%s goes on after its disk failed to sync", m.host)
		}
		w.crash("disk error", m, func() *crashfs.FS { return m.fs.Crash(w.rnd, crashfs.Harsh()) })
	}},
	{"disk full", true, func(w *world) {
		m := w.pick()
		w.count("disk full", "%s", m.host)
		m.fs.SetSpace(m.fs.Used() + int64(w.rnd.IntN(1<<20)))
		time.Sleep(2 * time.Second)
		at := time.Now()
		if _, err := w.put(m); err == nil || time.Since(at) > 2*time.Second {
			w.fail("%s took a put on a full disk: %v after %v", m.host, err, time.Since(at))
		}
		w.rest(20 * time.Second)
		m.fs.SetSpace(-1)
		time.Sleep(5 * time.Second)
		if err := m.e.Log().Crashed(); err != nil { // the disk filled under a commit
			w.stopped = true
			w.swap(m, m.fs.Crash(w.rnd, crashfs.Harsh()))
			w.boot(m)
		}
		w.mustPut(m)
	}},
	{"slow disk", false, func(w *world) {
		m := w.pick()
		w.count("slow disk", "%s", m.host)
		m.slow.Store(int64(w.between(50*time.Millisecond, time.Second)))
		for range 3 {
			w.mustPut(w.pick())
		}
		w.rest(20 * time.Second)
		m.slow.Store(0)
	}},
	{"clock skew", false, func(w *world) {
		m := w.pick()
		by := w.between(-100*time.Second, 100*time.Second)
		w.count("clock skew", "%s %v", m.host, by)
		m.skew.Store(int64(by))
		w.mustPut(m)
		w.some(2, w.up())
		w.rest(20 * time.Second)
		m.skew.Store(0)
		w.mustPut(m)
	}},
	{"clock set back", false, func(w *world) {
		m := w.pick()
		by := w.between(time.Hour, 10*365*24*time.Hour)
		w.count("clock set back", "%s %v", m.host, by)
		m.skew.Store(int64(-by))
		w.mustPut(m)
		w.rest(20 * time.Second)
		m.skew.Store(0)
		w.mustPut(m)
	}},
}

// voided notes which puts of m, from one on, may be void: those of a feed that forked.
func (w *world) voided(m *machine, from int, all bool) {
	for _, p := range w.puts[from:] {
		if p.by != m {
			continue
		}
		p.maybe = p.maybe || all
		for _, x := range w.up() {
			if at := x.e.ForkedFrom(p.feed); at != 0 && p.seq >= at {
				p.maybe = true
			}
		}
	}
}

// voidedAlike: after a heal all know of a fork, at the same event, and its writer
// goes on as a new incarnation.
func (w *world) voidedAlike(m *machine, feed fcp.Feed, first uint64) {
	w.t.Helper()
	for _, x := range w.up() {
		if at := x.e.ForkedFrom(feed); at == 0 || at > first {
			w.fail("%s voids the forked feed of %s from event %d, not from %d or before", x.host, m.host, at, first)
		}
	}
	if m.e.Log().Incarnation() == feed.Incarnation {
		w.fail("%s writes on under the incarnation that forked", m.host)
	}
	for _, x := range w.up() {
		for _, p := range w.puts {
			if _, err := x.e.Stat(context.Background(), "", p.name, engine.At{}); p.feed == feed && p.seq >= first && err == nil {
				w.fail("%s shows %s, which is void", x.host, p.name)
			}
		}
	}
}

// farFuture sets a machine's clock ten years ahead, for good: nobody takes what it
// writes then, and nobody's clock follows. The machine does not count afterwards.
func (w *world) farFuture() {
	m := w.nodes[1+w.rnd.IntN(len(w.nodes)-1)]
	w.count("far-future clock", "%s", m.host)
	m.skew.Store(int64(10 * 365 * 24 * time.Hour))
	p := w.mustPut(m)
	p.maybe, m.out = true, true
	time.Sleep(15 * time.Second)
	for _, x := range w.up() {
		if _, err := x.e.Stat(context.Background(), "", p.name, engine.At{}); err == nil {
			w.fail("%s shows %s, which was written ten years from now", x.host, p.name)
		}
		q := w.mustPut(x)
		no, _ := x.e.Log().FeedNo(q.feed)
		if ev, _, err := x.e.Log().ReadFull(no, q.seq); err != nil || ev.Time.Wall().Sub(x.now()) > fcp.MaxClockLead {
			w.fail("the clock of %s was dragged to %v: %v", x.host, ev.Time.Wall(), err)
		}
	}
	w.settle()
}

// revocation declares a machine lost while it is cut off and writes on: afterwards
// what it wrote before the cut stands, what it wrote later does not, and nobody
// talks to it.
func (w *world) revocation() {
	up := w.up()
	m := up[1+w.rnd.IntN(len(up)-1)]
	w.count("revocation", "%s", m.host)
	w.mustPut(m)
	w.settle()
	w.cutBetween(func(x, y int) bool { return x == m.i || y == m.i })
	late := []*written{w.mustPut(m), w.mustPut(m)}
	lost := m.e.Log().Writer()
	by := w.nodes[0]
	if _, err := by.e.DeviceLost(context.Background(), w.owner, lost, "lost"); err != nil {
		w.fail("%s is not revoked: %v", m.host, err)
	}
	for _, p := range late {
		p.maybe = true
	}
	w.rest(30 * time.Second)
	late = append(late, w.mustPut(m))
	late[2].maybe, m.out = true, true
	w.settle()
	time.Sleep(converge)
	for _, x := range w.up() {
		for _, p := range x.n.Peers() {
			if p.Writer == lost {
				w.fail("%s talks to %s, which was revoked", x.host, m.host)
			}
		}
		for _, p := range late {
			if _, err := x.e.Stat(context.Background(), "", p.name, engine.At{}); err == nil {
				w.fail("%s shows %s, which was written after the cut", x.host, p.name)
			}
		}
	}
	w.some(2, w.up())
	w.settle()
}

// lasting are the faults that a cluster ends with: a machine is out for good.
var lasting = []fault{
	{"revocation", false, (*world).revocation},
	{"far-future clock", false, (*world).farFuture},
}

// two returns two machines.
func (w *world) two() (a, b *machine) {
	up := w.up()
	w.rnd.Shuffle(len(up), func(i, j int) { up[i], up[j] = up[j], up[i] })
	return up[0], up[1]
}

func (w *world) cutBetween(cut func(x, y int) bool) {
	for x := range w.nodes {
		for y := x + 1; y < len(w.nodes); y++ {
			if cut(x, y) {
				w.net.Cut(host(x), host(y))
			}
		}
	}
}

// badNetwork makes every link bad for a while.
func (w *world) badNetwork(kind string, l simnet.Link) {
	w.count(kind, "%+v", l)
	w.net.SetAll(l)
	w.some(2+w.rnd.IntN(5), w.up())
	w.rest(20 * time.Second)
}

// partition cuts for a time that sessions survive, or that they do not.
func (w *world) partition(kind string, cut func()) {
	w.count(kind, "")
	cut()
	w.some(2+w.rnd.IntN(5), w.up())
	w.rest(time.Duration(1+w.rnd.IntN(40)) * time.Second)
	w.some(1, w.up())
}

// noPut: a put on a disk that fails is not acknowledged.
func (w *world) noPut(m *machine) {
	w.t.Helper()
	w.stopped = true
	for range 30 {
		if _, err := w.put(m); err != nil {
			return
		}
	}
	w.fail("%s acknowledges puts that its disk does not take", m.host)
}

// crash ends a machine, with the disk that image makes, and starts it again.
func (w *world) crash(kind string, m *machine, image func() *crashfs.FS) {
	w.t.Helper()
	w.count(kind, "%s", m.host)
	w.swap(m, image())
	if others := w.up(); len(others) > 0 {
		w.some(1, others)
	}
	w.rest(20 * time.Second)
	w.open(m)
	w.checkOwn(m)
	w.start(m)
}

// checkOwn: what a machine acknowledged is on its own disk.
func (w *world) checkOwn(m *machine) {
	w.t.Helper()
	for _, p := range w.puts {
		if p.by != m || p.maybe {
			continue
		}
		no, ok := m.e.Log().FeedNo(p.feed)
		h, _ := m.e.Log().Head(no)
		if !ok || h.Seq < p.seq {
			w.fail("%s lost %s, event %d, which it acknowledged: it has %d", m.host, p.name, p.seq, h.Seq)
		}
	}
}
