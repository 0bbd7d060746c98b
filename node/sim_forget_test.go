package node

import (
	"bytes"
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"fcp"
	"fcp/engine"
	"fcp/log"
)

// forget has the owner order a name to be forgotten, at a node.
func (a *aging) forget(i int, key string) fcp.Hash {
	a.t.Helper()
	r, err := a.nodes[i].e.Forget(context.Background(), engine.ForgetRequest{Key: key, Owner: a.owner})
	if err != nil || len(r.Orders) != 1 {
		a.t.Fatalf("forget %s: %+v, %v", key, r, err)
	}
	return r.Orders[0]
}

// waitsFor returns who, as a node knows, did not carry an order out.
func (a *aging) waitsFor(i int, ref fcp.Hash) (names []string) {
	a.t.Helper()
	orders, err := a.nodes[i].e.ForgetOrders(fcp.ZonePrivate)
	if err != nil {
		a.t.Fatal(err)
	}
	for _, o := range orders {
		for _, m := range o.Members {
			if o.Ref == ref && !m.Done {
				names = append(names, m.Name)
			}
		}
	}
	return names
}

// saltsAt returns the salts of the segment that holds an object, as a node has them on
// its disk.
func (a *aging) saltsAt(i int, object fcp.ObjectID) (salt []byte) {
	a.t.Helper()
	e := a.nodes[i].e
	r, err := e.SegmentOf(fcp.ZonePrivate, object)
	if err != nil || r == nil {
		a.t.Fatal(r, err)
	}
	salts, err := e.SegmentSalts(r)
	if errors.Is(err, fcp.CodeNotFound) {
		return nil
	}
	if err != nil {
		a.t.Fatal(err)
	}
	for j, off := range r.Seqs {
		if fcp.ObjectID(r.Objects[j*fcp.HashSize:][:fcp.HashSize]) == object {
			salt = salts[off*log.SaltSize:][:log.SaltSize]
		}
	}
	return salt
}

// TestForgettingInAMesh: the owner forgets an object at one node; the others destroy
// its keys and say so; one that was away for a month gives its keys to nobody, and
// destroys them when it is back; then its body is garbage and its shares go.
func TestForgettingInAMesh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAging(t, 4, 21)
		defer a.close()
		a.together()
		stays := randomBytes(60_000, 1)
		a.put(0, "stays", stays)
		a.put(0, "goes", randomBytes(90_000, 2))
		a.put(0, "small", []byte("inline"))
		a.sealAt(0)
		old := a.segmentsOf(0)
		a.together()
		v, err := a.nodes[0].e.Stat(context.Background(), fcp.ZonePrivate, "goes", engine.At{})
		if err != nil {
			t.Fatal(err)
		}
		object := v.Head().Object
		for i := range a.nodes {
			eventually(t, time.Minute, "the salts are everywhere", func() bool { return len(a.saltsAt(i, object)) > 0 })
			if bytes.Equal(a.saltsAt(i, object), log.ForgottenSalt[:]) {
				t.Fatal("nothing to forget")
			}
		}
		a.cutOff(3)
		small, goes := a.forget(1, "small"), a.forget(1, "goes") // not where it was written
		eventually(t, time.Minute, "all but the one who is away", func() bool {
			return len(a.waitsFor(1, goes)) == 1 && len(a.waitsFor(0, small)) == 1
		})
		if names := a.waitsFor(1, goes); names[0] != host(3) {
			t.Error("it waits for", names)
		}
		for i := range 3 {
			if !bytes.Equal(a.saltsAt(i, object), log.ForgottenSalt[:]) {
				t.Errorf("node %d has the key", i+1)
			}
			for _, key := range []string{"goes", "small"} {
				if _, err := a.get(i, key); !errors.Is(err, fcp.CodeKeyForgotten) {
					t.Errorf("node %d, %s: %v", i+1, key, err)
				}
			}
			if got, err := a.get(i, "stays"); err != nil || !bytes.Equal(got, stays) {
				t.Errorf("node %d: what stays: %v", i+1, err)
			}
		}
		a.pass(30 * 24 * time.Hour)
		if salt := a.saltsAt(3, object); bytes.Equal(salt, log.ForgottenSalt[:]) {
			t.Fatal("who is away has heard of it")
		}
		a.net.HealAll()
		a.together()
		eventually(t, time.Minute, "all", func() bool { return len(a.waitsFor(0, goes))+len(a.waitsFor(2, small)) == 0 })
		for i := range a.nodes {
			if !bytes.Equal(a.saltsAt(i, object), log.ForgottenSalt[:]) {
				t.Errorf("node %d has the key after a month", i+1)
			}
			for _, key := range []string{"goes", "small"} {
				if _, err := a.get(i, key); !errors.Is(err, fcp.CodeKeyForgotten) {
					t.Errorf("node %d after a month, %s: %v", i+1, key, err)
				}
			}
		}
		a.equalRoots(fcp.ZonePrivate)
		// The name still has the version, but nobody can read it: its body is garbage.
		a.retain(0, 90*24*time.Hour)
		a.pass(25 * time.Hour)
		eventually(t, time.Minute, "all acknowledged", func() bool { return a.ackedAt(0) == 3 })
		r, err := a.compact(0, false)
		if err != nil || r.Events != 1 {
			t.Fatalf("%d events dropped: %v", r.Events, err)
		}
		a.released(old, 1, 2, 3)
		a.sealed(0)
		for i := range a.nodes {
			if _, err := a.get(i, "goes"); !errors.Is(err, fcp.CodeKeyForgotten) {
				t.Errorf("node %d after the collection: %v", i+1, err)
			}
			if got, err := a.get(i, "stays"); err != nil || !bytes.Equal(got, stays) {
				t.Errorf("node %d: what stays after the collection: %v", i+1, err)
			}
			if sum := a.nodes[i].n.Summary(); sum.Lost != 0 {
				t.Errorf("node %d counts what was forgotten as lost: %+v", i+1, sum)
			}
		}
	})
}
