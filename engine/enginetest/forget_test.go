package enginetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"fcp"
	"fcp/authority"
	"fcp/engine"
	"fcp/log"
)

func (n *Node) put(key, value string) engine.PutResult {
	n.m.T.Helper()
	r, err := n.Put(context.Background(), engine.PutRequest{Key: key, Body: strings.NewReader(value)})
	n.m.check(err)
	return r
}

func (n *Node) read(key string) (string, error) {
	r, err := n.Get(context.Background(), engine.GetRequest{Key: key})
	if err != nil {
		return "", err
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	return string(b), err
}

func (n *Node) forget(key string) engine.ForgetResult {
	n.m.T.Helper()
	r, err := n.Forget(context.Background(), engine.ForgetRequest{Key: key, Owner: n.m.Owner})
	n.m.check(err)
	return r
}

func (n *Node) carryOut(want int) {
	n.m.T.Helper()
	done, err := n.CarryOutForgettings(context.Background())
	n.m.check(err)
	if done != want {
		n.m.T.Fatalf("%s carried %d orders out, not %d", n.Name, done, want)
	}
}

// keys counts the data keys of an object that are in the node's key table.
func (n *Node) keys(id fcp.ObjectID) (count int) {
	n.m.T.Helper()
	for _, plane := range []fcp.Plane{fcp.PlaneControl, fcp.PlaneData} {
		for _, f := range n.Feeds(fcp.ZonePrivate, plane) {
			for i := range f.Events {
				if f.Events[i].Object == id && len(f.Events[i].Body) > 0 && f.Salts[i] != log.ForgottenSalt {
					count++
				}
			}
		}
	}
	return count
}

// pullControl takes another node's control feeds of the zone, and no bodies.
func (n *Node) pullControl(from *Node) {
	n.m.T.Helper()
	for _, f := range from.Feeds(fcp.ZonePrivate, fcp.PlaneControl) {
		have := uint64(0)
		if no, ok := n.Log().FeedNo(f.Events[0].Feed); ok {
			head, _ := n.Log().Head(no)
			have = head.Seq
		}
		if have < uint64(len(f.Events)) {
			_, err := n.ImportEvents(context.Background(), f.Events[have:], f.Salts[have:])
			n.m.check(err)
		}
	}
}

// gone fails unless none of some names can be read.
func (n *Node) gone(keys ...string) {
	n.m.T.Helper()
	for _, key := range keys {
		if got, err := n.read(key); !errors.Is(err, fcp.CodeKeyForgotten) {
			n.m.T.Errorf("%s reads %d bytes of %s: %v", n.Name, len(got), key, err)
		}
	}
}

// TestForgettingReachesEveryMember: from the moment that the order is here nothing is
// read, then the keys go, then the member says so; who was away, and who
// joins and hears of it before a stale member gives it the bodies, has no key either.
func TestForgettingReachesEveryMember(t *testing.T) {
	m := New(t, 31, 3)
	a, b, c := m.Nodes[0], m.Nodes[1], m.Nodes[2]
	large := strings.Repeat("large ", 500_000)
	var ids []fcp.ObjectID
	for key, value := range map[string]string{"small": "inline", "body": strings.Repeat("body", 1000), "large": large} {
		ids = append(ids, a.put(key, value).Object)
	}
	a.put("stays", large[:2_000_000])
	m.Sync()
	for _, key := range []string{"small", "body", "large"} {
		if r := a.forget(key); len(r.Orders) != 1 || r.Keys == 0 {
			t.Fatalf("%s: %+v", key, r)
		}
	}
	// b hears of it; c is away.
	for _, zone := range a.Zones() {
		b.Pull(a, zone)
	}
	b.gone("small", "body", "large")
	if b.keys(ids[0]) == 0 {
		t.Fatal("the keys are gone before anybody destroyed them: the test shows nothing")
	}
	b.carryOut(3)
	b.carryOut(0)
	a.Pull(b, fcp.ZonePrivate)
	for _, n := range []*Node{a, b} {
		n.gone("small", "body", "large")
		for _, id := range ids {
			if n.keys(id) > 0 {
				t.Errorf("%s still has a key of %s", n.Name, id)
			}
		}
		if got, err := n.read("stays"); err != nil || got != large[:2_000_000] {
			t.Errorf("%s lost what was not forgotten: %v", n.Name, err)
		}
	}
	orders, err := a.ForgetOrders(fcp.ZonePrivate)
	m.check(err)
	for _, o := range orders {
		if !o.Here || len(o.Members) != 2 || o.Members[0].Name != "node-1" || !o.Members[0].Done || o.Members[1].Done {
			t.Errorf("%+v", o)
		}
	}
	// d hears of it from a, and gets the rest from c, who does not know.
	d := m.Join(true)
	d.Pull(a, fcp.ZoneOwner)
	d.Pull(a, fcp.ZonePrivate)
	d.Pull(c, fcp.ZonePrivate)
	d.carryOut(3)
	if _, err := c.read("small"); err != nil {
		t.Fatal("who did not hear of it reads:", err)
	}
	m.Sync()
	c.carryOut(3)
	c.Reopen()
	m.Sync()
	for _, n := range m.Nodes {
		n.gone("small", "body", "large")
		for _, id := range ids {
			if n.keys(id) > 0 {
				t.Errorf("%s has a key of %s in the end", n.Name, id)
			}
		}
	}
	for _, n := range m.Nodes {
		if n.Root(fcp.ZonePrivate) != a.Root(fcp.ZonePrivate) {
			t.Errorf("%s has another zone root", n.Name)
		}
	}
	if orders, err = d.ForgetOrders(fcp.ZonePrivate); err != nil || len(orders) != 3 {
		t.Fatal(orders, err)
	}
	for _, o := range orders {
		for _, x := range o.Members {
			if !x.Done {
				t.Errorf("%s did not say so", x.Name)
			}
		}
	}
}

// TestAnOrderIsMaskedOnArrival: whoever knows of the order takes events of a stale
// member in without their keys.
func TestAnOrderIsMaskedOnArrival(t *testing.T) {
	m := New(t, 32, 3)
	a, b, c := m.Nodes[0], m.Nodes[1], m.Nodes[2]
	id := a.put("body", strings.Repeat("body", 1000)).Object
	c.Pull(a, fcp.ZonePrivate) // only c has it
	r := a.forget("body")
	if len(r.Orders) != 1 || !strings.Contains(r.Copies[0].What, "hears") {
		t.Fatalf("%+v", r)
	}
	b.pullControl(a)
	b.carryOut(1)
	b.Pull(c, fcp.ZonePrivate) // the body, with its key
	if c.keys(id) != 1 || b.keys(id) != 0 {
		t.Fatalf("c has %d keys, b %d", c.keys(id), b.keys(id))
	}
	b.gone("body")
}

// TestAnInterruptedForgettingIsCarriedOut: the order is on disk and nothing else was
// done; the next start does it.
func TestAnInterruptedForgettingIsCarriedOut(t *testing.T) {
	m := New(t, 33, 2)
	a := m.Nodes[0]
	id := a.put("body", strings.Repeat("body", 1000)).Object
	order, err := authority.SignForgetting(m.Clock.Now(), m.Owner, authority.ForgettingSpec{Zone: fcp.ZonePrivate, Objects: []fcp.ObjectID{id}})
	m.check(err)
	_, err = a.AppendSigned(context.Background(), fcp.ZonePrivate, fcp.KindObjectForgotten, order)
	m.check(err)
	a.Reopen()
	a.gone("body")
	a.carryOut(1)
	if a.keys(id) != 0 {
		t.Fatal("the key is still there")
	}
}

// TestForgettingSparesOtherCopies: a chunk that another device wrote itself keeps its
// key, and one that this device still goes by too.
func TestForgettingSparesOtherCopies(t *testing.T) {
	m := New(t, 34, 2)
	a, b := m.Nodes[0], m.Nodes[1]
	first := strings.Repeat("0123456789abcdef", fcp.ChunkSize/16)
	a.put("one", first+"one")
	b.put("two", first+"two") // the same chunk, written by b
	m.Sync()
	a.forget("one")
	m.Sync()
	b.carryOut(1)
	a.gone("one")
	b.gone("one")
	if got, err := b.read("two"); err != nil || got != first+"two" {
		t.Error("b lost its own copy of the chunk:", err)
	}
	// The same bytes again are another object, and can be read.
	a.put("one", first+"one")
	m.Sync()
	for _, n := range m.Nodes {
		if got, err := n.read("one"); err != nil || got != first+"one" {
			t.Errorf("%s does not read what was put again: %v", n.Name, err)
		}
	}
}

// TestPuttingWhatWasForgotten within the same second makes another object.
func TestPuttingWhatWasForgotten(t *testing.T) {
	m := New(t, 35, 2)
	m.Clock.Freeze()
	a := m.Nodes[0]
	before := a.put("x", "the same").Object
	a.forget("x")
	if again := a.put("x", "the same").Object; again == before {
		t.Fatal("the id of what was forgotten")
	}
	if got, err := a.read("x"); err != nil || got != "the same" {
		t.Fatal(err)
	}
}

// TestForgettingInSeveralZones: one zone where nothing is left to do keeps nobody from
// carrying out the orders of the next; and a tail that nobody can open, which a liar
// had this node keep, goes as a whole instead of keeping it from its word.
func TestForgettingInSeveralZones(t *testing.T) {
	m := New(t, 37, 2)
	a, b := m.Nodes[0], m.Nodes[1]
	ctx := context.Background()
	for _, zone := range []fcp.ZoneID{fcp.ZoneCommunity, fcp.ZonePrivate, fcp.ZoneWork} {
		put, err := a.Put(ctx, engine.PutRequest{Zone: zone, Key: "x", Body: strings.NewReader(strings.Repeat(zone.String(), 300))})
		m.check(err)
		no, _ := a.Log().FeedNo(a.OwnFeed(zone, fcp.PlaneData))
		honest, err := a.MakeTail(ctx, no, 1, 1)
		m.check(err)
		lie := &engine.Tail{Zone: zone, Writer: fcp.WriterID{1}, First: 1, Last: 1, Objects: put.Object[:],
			Key: make([]byte, authority.WrappedKeySize), ZoneKey: honest.ZoneKey, Sealed: []byte("sealed by nobody")}
		m.check(b.KeepTail(lie))
		_, err = a.Forget(ctx, engine.ForgetRequest{Zone: zone, Key: "x", Owner: m.Owner})
		m.check(err)
		b.Pull(a, zone)
		b.carryOut(1)
		m.check(b.Tails(func(t *engine.Tail) error { return fmt.Errorf("the tail %s is kept", t.Name()) }))
	}
}

// TestKeysOfSegmentsOfOthersAreForgotten: the salts that a member keeps for segments
// that are not in its log, and those in tails.
func TestKeysOfSegmentsOfOthersAreForgotten(t *testing.T) {
	m := New(t, 36, 3)
	a, b, stale := m.Nodes[0], m.Nodes[1], m.Nodes[2]
	ctx := context.Background()
	goes, stays := a.put("goes", strings.Repeat("goes", 1000)).Object, a.put("stays", strings.Repeat("stays", 1000)).Object
	var data log.FeedState
	for _, f := range a.Log().Feeds() {
		if f.Own && f.Feed.Zone == fcp.ZonePrivate && f.Feed.Plane == fcp.PlaneData {
			data = f
		}
	}
	tail, err := a.MakeTail(ctx, data.No, 1, data.Seq)
	m.check(err)
	m.check(b.KeepTail(tail))
	_, err = a.Log().Seal(ctx, log.SealOptions{All: true})
	m.check(err)
	b.pullControl(a)
	var rem *log.Remainder
	m.check(b.DataSegments(fcp.ZonePrivate, func(r *log.Remainder) error { rem = r; return nil }))
	salts, err := a.SegmentSalts(rem)
	m.check(err)
	before := slices.Clone(salts)
	m.check(b.KeepSalts(rem, salts))
	a.forget("goes")
	b.pullControl(a)
	b.carryOut(1)
	check := func(when string) {
		t.Helper()
		now, err := b.SegmentSalts(rem)
		m.check(err)
		changed := 0
		for i := 0; i < len(now); i += log.SaltSize {
			if !bytes.Equal(now[i:][:log.SaltSize], before[i:][:log.SaltSize]) {
				changed++
			}
		}
		if changed != 1 {
			t.Errorf("%s: %d of %d salts are others", when, changed, len(now)/log.SaltSize)
		}
		kept, err := b.ReadTail(tail.Name())
		m.check(err)
		if _, salt, err := b.OpenTail(kept, stays); err != nil || salt == log.ForgottenSalt {
			t.Errorf("%s: what stays in the tail: %v", when, err)
		}
		if _, salt, err := b.OpenTail(kept, goes); err != nil || salt != log.ForgottenSalt {
			t.Errorf("%s: what goes in the tail: %v", when, err)
		}
		// As somebody opens it who knows of no order.
		if _, salt, err := stale.OpenTail(kept, goes); err != nil || salt != log.ForgottenSalt {
			t.Errorf("%s: the key is still in the tail: %v", when, err)
		}
	}
	check("carried out")
	// A stale member sends both again.
	m.check(b.KeepSalts(rem, slices.Clone(before)))
	m.check(b.KeepTail(tail))
	check("sent again")
	b.Reopen()
	check("after a start")
}
