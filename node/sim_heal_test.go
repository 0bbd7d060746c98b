package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"fcp"
	"fcp/authority"
	"fcp/engine"
	"fcp/internal/crashfs"
	"fcp/log"
	"fcp/node/placement"
)

// A cluster that heals: objects of many symbols, placed by policy, while devices nap,
// are lost, lie, and objects are deleted.

// body is an object of many symbols that was acknowledged.
type body struct {
	by   *machine
	key  string
	seed uint64
	size int
	gone bool // removed
}

func (b *body) bytes() []byte { return randomBytes(b.size, b.seed) }

// healing are the faults that every simulated hour of a healing cluster has at least
// once, among some of the others.
var healing = []fault{
	{"nap", false, (*world).nap},
	{"away past its grace", false, (*world).awayForLong},
	{"device lost", false, (*world).deviceLost},
	{"deletion", false, (*world).deletion},
	{"false symbols", false, (*world).falseSymbols},
	{"false inventory", false, (*world).falseInventory},
	{"pin, then alone", false, (*world).pinned},
}

// otherFaults is how many of the other faults a healing hour has.
const otherFaults = 6

// TestSimHealing runs clusters of five servers through what placement, repair and
// deletion promise, as TestSim does (see there for the flags).
func TestSimHealing(t *testing.T) {
	simulate(t, &simulation{test: "TestSimHealing", live: (*world).heal, kinds: healing, short: 10 * time.Minute,
		machines: 5, tags: []string{"class:server"},
		// Shares that a liar had minted were not asked for; a new member named honest ones;
		// after a fork no retention mark was acknowledged.
		kept: []uint64{3, 5, 13}})
}

// heal puts a cluster through each of healing and some other faults, in the seed's order.
func (w *world) heal(length time.Duration) {
	w.settle()
	list := slices.Clone(healing)
	for range otherFaults {
		if f := faults[w.rnd.IntN(len(faults))]; !f.stops {
			list = append(list, f)
		}
	}
	w.rnd.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
	for i, f := range list {
		w.some(1, w.up())
		f.do(w)
		w.settle()
		w.readBodies(1)
		if rest := length - time.Since(w.began); rest > 0 {
			w.rest(2 * rest / time.Duration(len(list)-i))
		}
	}
	w.atRest()
	w.readBodies(len(w.nodes))
	w.checkDeep()
	if rest := length - time.Since(w.began); rest > 0 {
		time.Sleep(rest)
	}
}

// guest returns a machine that is not the first, where the owner is.
func (w *world) guest(but ...*machine) *machine {
	for {
		if m := w.pick(); m.i > 0 && !slices.Contains(but, m) {
			return m
		}
	}
}

// putBody writes an object of some tens of symbols.
func (w *world) putBody(m *machine, prefix string) *body {
	w.t.Helper()
	w.wrote++
	b := &body{by: m, key: fmt.Sprintf("%sbody %d of %s", prefix, w.wrote, m.host), seed: w.rnd.Uint64() & 0xff, size: 10_000 + w.rnd.IntN(100_000)}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if _, err := m.e.Put(ctx, engine.PutRequest{Key: b.key, Bytes: b.bytes()}); err != nil {
		w.fail("%s takes no put: %v", m.host, err)
	}
	w.bodies = append(w.bodies, b)
	return b
}

// spread has all machines seal what they wrote, and waits until it is where the policy
// wants it and everybody knows.
func (w *world) spread() {
	w.t.Helper()
	for _, m := range w.up() {
		if _, err := m.e.Log().Seal(context.Background(), log.SealOptions{All: true}); err != nil {
			w.fail("%s does not seal: %v", m.host, err)
		}
	}
	for _, m := range w.up() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		if err := m.n.WaitPlaced(ctx); err != nil {
			w.fail("what %s wrote: %v\n%s", m.host, err, w.describe())
		}
		cancel()
	}
	w.atRest()
}

// atRest waits until every machine finds every segment placed as the policy wants, and
// nothing moves any more.
func (w *world) atRest() {
	w.t.Helper()
	w.settle()
	for at := time.Now(); ; time.Sleep(repairEvery) {
		why := ""
		for _, m := range w.up() {
			if s := m.n.Summary(); s.BelowPolicy+s.Lost+s.Unreadable > 0 {
				why = m.host + ": " + strings.Join(s.Reasons, "; ")
				continue
			}
			// Shares follow the ranking when a device came: now, not within ten minutes.
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			steps, err := m.n.Move(ctx, RepairOptions{})
			if cancel(); err != nil || len(steps) > 0 {
				why = fmt.Sprintf("%s moves %d shares: %v", m.host, len(steps), err)
			}
		}
		moved := w.moved()
		if time.Sleep(2 * repairEvery); why == "" && moved == w.moved() {
			return
		}
		if time.Since(at) > 10*time.Minute {
			w.fail("10m0s after the last fault: %s\n%s", why, w.describe())
		}
	}
}

// moved counts the symbols that the machines which are up sent since they started.
func (w *world) moved() (n uint64) {
	for _, m := range w.up() {
		n += m.n.metrics.SymbolsSent.Load()
	}
	return n
}

// traffic says what each machine did with symbols since it started.
func (w *world) traffic() string {
	var b strings.Builder
	for _, m := range w.up() {
		x := &m.n.metrics
		fmt.Fprintf(&b, "%s sent %d and took %d symbols, rebuilt %d segments, keeps %d shares, repaired %d\n", m.host,
			x.SymbolsSent.Load(), x.SymbolsTaken.Load(), x.Rebuilt.Load(), x.SharesKept.Load(), x.Repaired.Load())
	}
	return b.String()
}

// lostWith is what a machine holds as the first one knows it, in bytes of symbols, and
// what its repair may move. That is 1.3 times as much where somebody holds a segment
// whole; where nobody does, who mints has to gather the others first.
func (w *world) lostWith(m *machine) (lost, may uint64) {
	x := w.nodes[0].n
	for _, s := range x.segments(x.devices()) {
		for _, h := range s.Holdings {
			if h.Device != m.n.self {
				continue
			}
			n := 13 * h.Count / 10
			if !slices.ContainsFunc(s.Holdings, func(o placement.Holding) bool { return o.Device != h.Device && o.Whole }) {
				n = max(n, 11*s.K/10+8)
			}
			lost, may = lost+uint64(h.Count*s.SymbolSize), may+uint64(n*s.SymbolSize)
		}
	}
	return lost, may
}

// pass puts all clocks forward: a day of grace costs no day of gossip.
func (w *world) pass(d time.Duration) {
	w.ahead.Add(int64(d))
	time.Sleep(time.Second)
}

// readBodies reads every object at some machines.
func (w *world) readBodies(at int) {
	w.t.Helper()
	up := w.up()
	for _, b := range w.bodies {
		for _, i := range w.rnd.Perm(len(up))[:min(at, len(up))] {
			w.readBody(up[i], b)
		}
	}
}

func (w *world) readBody(m *machine, b *body) {
	w.t.Helper()
	got, err := w.read(m, b.key)
	for at := time.Now(); errors.Is(err, fcp.CodeNotEnough) && time.Since(at) < converge; { // sessions come back after a heal
		time.Sleep(500 * time.Millisecond)
		got, err = w.read(m, b.key)
	}
	switch {
	case b.gone && !errors.Is(err, fcp.CodeNotFound):
		w.fail("%s shows %s, which was removed: %v", m.host, b.key, err)
	case !b.gone && (err != nil || !bytes.Equal([]byte(got), b.bytes())):
		w.fail("%s does not read %s of %s: %v\n%s", m.host, b.key, b.by.host, err, w.describe())
	}
}

// nap: a device is away for less than its grace, and no symbol moves.
func (w *world) nap() {
	w.putBody(w.pick(), "")
	w.spread()
	m := w.guest()
	w.count("nap", "%s", m.host)
	w.swap(m, m.fs.Crash(w.rnd, crashfs.Options{Keep: 1, KeepEntries: 1}))
	before, began := w.moved(), time.Now()
	time.Sleep(w.between(time.Minute, 9*time.Minute))
	w.boot(m)
	w.settle()
	time.Sleep(2 * repairEvery)
	if now := w.moved(); now != before {
		w.fail("a nap of %v moved %d symbols\n%s", time.Since(began), now-before, w.traffic())
	}
}

// awayForLong: a device is away past its grace: what it held is made again. Then it
// comes back with all it had.
func (w *world) awayForLong() {
	m := w.guest()
	w.putBody(m, "")
	w.putBody(w.pick(), "")
	w.spread()
	lost, may := w.lostWith(m)
	w.count("away past its grace", "%s with %d bytes", m.host, lost)
	w.swap(m, m.fs.Crash(w.rnd, crashfs.Options{Keep: 1, KeepEntries: 1}))
	time.Sleep(time.Minute) // all notice
	w.repaired(lost, may, func() { w.pass(11 * time.Minute) })
	w.readBodies(1)
	w.boot(m)
}

// deviceLost: a device is gone with its disk, and the owner says so. Another one takes
// its place.
func (w *world) deviceLost() {
	m := w.guest()
	w.putBody(m, "")
	w.putBody(w.pick(), "")
	w.spread()
	lost, may := w.lostWith(m)
	w.count("device lost", "%s with %d bytes", m.host, lost)
	w.lose(m, lost, may)
	w.readBodies(1)
	w.replace(m)
}

// lose takes a machine with its disk away, declares it lost and waits for the repair.
func (w *world) lose(m *machine, lost, may uint64) {
	w.t.Helper()
	writer := m.n.self
	w.kill(m)
	w.repaired(lost, may, func() {
		if _, err := w.nodes[0].e.DeviceLost(context.Background(), w.owner, writer, "lost"); err != nil {
			w.fail("%s is not declared lost: %v", m.host, err)
		}
	})
}

// repaired waits for the repair that a loss asks for, and checks what it moved.
func (w *world) repaired(lost, may uint64, loss func()) {
	w.t.Helper()
	before := w.moved()
	loss()
	w.atRest()
	moved := (w.moved() - before) * fcp.SymbolSize
	w.note("lost %d bytes, moved %d", lost, moved)
	if moved > may {
		w.fail("repair moved %d bytes for %d that were lost, not %d at most\n%s", moved, lost, may, w.traffic())
	}
}

// replace puts a new device in the place of one that was lost.
func (w *world) replace(m *machine) {
	w.t.Helper()
	m.fs.SetHook(nil)
	m.fs = crashfs.New()
	m.fs.SetHook(m.hook)
	w.enroll(m)
	w.boot(m)
	w.settle()
}

// falseSymbols: a member signs symbols of something else while another one is away:
// who reads finds out and reads all the same.
func (w *world) falseSymbols() {
	a, b := w.guest(), (*machine)(nil)
	x := w.putBody(a, "")
	w.spread()
	for _, id := range a.n.ownSegments() {
		if b != nil {
			break
		}
		rem, err := a.n.remainder(id)
		if err != nil || rem == nil {
			continue
		}
		for _, m := range w.up() {
			if m.i > 0 && m != a && len(m.n.sharesOf(id)) == 0 {
				ref, ok := placeOf(m.n.zonePolicy(rem.Zone), m.n.devices(), m.n.self, id, m.n.sizeOf(id))
				if !ok {
					w.fail("%s has no symbols of its own of segment %s", m.host, id)
				}
				b = m
				lie(w.t, &member{e: b.e, n: b.n}, rem, ref.First, ref.Count)
				break
			}
		}
	}
	if b == nil {
		w.count("false symbols", "none: everybody holds a share")
		return
	}
	w.count("false symbols", "%s of what %s wrote", b.host, a.host)
	time.Sleep(3 * time.Second) // inventories travel
	w.swap(a, a.fs.Crash(w.rnd, crashfs.Options{Keep: 1, KeepEntries: 1}))
	for _, m := range w.up() {
		if m != b {
			w.readBody(m, x)
		}
	}
	w.boot(a)
	w.settle()
	w.outcast(b)
}

// falseInventory: a member says that it holds what it has not; the others lose nothing.
func (w *world) falseInventory() {
	a := w.pick()
	x := w.putBody(a, "")
	w.spread()
	m := w.guest(a)
	w.count("false inventory", "%s", m.host)
	dir := "/store/shares"
	names, err := m.fs.List(dir)
	if err != nil {
		w.fail("%s has no shares: %v", m.host, err)
	}
	for _, name := range names {
		if err := m.fs.Remove(dir + "/" + name); err != nil {
			w.fail("%v", err)
		}
	}
	for _, y := range w.up() {
		w.readBody(y, x)
	}
	w.outcast(m)
}

// outcast ends a member that lied, and takes a new one in.
func (w *world) outcast(m *machine) {
	w.t.Helper()
	writer := m.n.self
	w.kill(m)
	if _, err := w.nodes[0].e.DeviceLost(context.Background(), w.owner, writer, "compromised"); err != nil {
		w.fail("%s is not declared lost: %v", m.host, err)
	}
	w.atRest()
	w.replace(m)
}

// pinned: what is pinned on a device is read there with nobody else to be seen.
func (w *world) pinned() {
	m := w.guest()
	prefix := fmt.Sprintf("pinned %d/", w.wrote)
	kept := []*body{w.putBody(w.pick(), prefix)}
	w.spread()
	kept = append(kept, w.putBody(w.pick(), prefix)) // in no segment yet
	w.settle()
	w.count("pin, then alone", "%s", m.host)
	if _, err := w.nodes[0].e.SetPin(context.Background(), engine.Pin{Key: prefix, Prefix: true, Device: m.n.self}); err != nil {
		w.fail("no pin: %v", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	w.settle()
	if err := w.nodes[0].n.WaitPinned(ctx, "", prefix, true); err != nil {
		w.fail("the pin on %s: %v", m.host, err)
	}
	w.cutBetween(func(x, y int) bool { return x == m.i || y == m.i })
	time.Sleep(20 * time.Second)
	for _, b := range kept {
		w.readBody(m, b)
	}
}

// deletion: what was removed goes once all members acknowledged the owner's mark, and
// does not come back.
func (w *world) deletion() {
	a := w.pick()
	w.putBody(a, "")
	goes := w.putBody(a, "")
	w.spread()
	w.count("deletion", "%s of %s", goes.key, a.host)
	var away *machine
	if w.rnd.IntN(2) == 0 {
		away = w.guest(a)
		w.note("%s is away", away.host)
		w.cutBetween(func(x, y int) bool { return x == away.i || y == away.i })
	}
	if _, err := a.e.Remove(context.Background(), engine.RemoveRequest{Key: goes.key}); err != nil {
		w.fail("%s does not remove %s: %v", a.host, goes.key, err)
	}
	if goes.gone = true; away == nil {
		w.settle()
	} else {
		time.Sleep(10 * time.Second)
	}
	w.pass(time.Minute)
	w.retain()
	w.pass(25 * time.Hour)
	time.Sleep(3 * repairEvery)
	collect := func() (engine.CompactResult, error) {
		return a.e.Compact(context.Background(), engine.CompactOptions{Zones: []fcp.ZoneID{fcp.ZonePrivate}, MinGarbage: 1})
	}
	if away != nil {
		if r, err := collect(); !errors.Is(err, fcp.CodeDependency) || r.Events > 0 {
			w.fail("%s dropped %d events without the word of %s: %v", a.host, r.Events, away.host, err)
		}
		w.settle()
		time.Sleep(3 * repairEvery)
	}
	r, err := collect()
	if err != nil || r.Events == 0 {
		w.fail("%s dropped nothing of %s, though all acknowledged: %+v %v", a.host, goes.key, r, err)
	}
	w.spread()
	w.readBodies(1)
}

// retain has the owner sign how much of the past is kept: none.
func (w *world) retain() {
	w.t.Helper()
	_, err := w.nodes[0].e.Checkpoint(context.Background(), engine.CheckpointOptions{Owner: w.owner, Zones: []fcp.ZoneID{fcp.ZonePrivate},
		Retention: &authority.Retention{History: 0}})
	if err != nil {
		w.fail("no mark: %v", err)
	}
}
