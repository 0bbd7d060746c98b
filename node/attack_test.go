package node

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"fcp"
	"fcp/node/simnet"
)

// TestANewSessionRefillsNoBudget uses up what a peer may cost and has it connect anew.
func TestANewSessionRefillsNoBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSimMesh(t, 2, 31, simnet.Link{Delay: time.Millisecond})
		defer s.close()
		s.together()
		n, peer := s.nodes[0].n, s.nodes[1].n.Writer()
		before := n.session(peer)
		before.budget.symbols(1<<40, 1)
		before.end(nil)
		time.Sleep(10 * time.Second)
		after := n.session(peer)
		if after == nil || after == before {
			t.Fatal("there is no new session")
		}
		if got := after.budget.symbols(1, 1); got != 0 {
			t.Error("a new session gives a peer a new budget")
		}
	})
}

// TestASessionMustSayWhatItCan opens a session and never sends the capabilities.
func TestASessionMustSayWhatItCan(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSimMesh(t, 2, 32, simnet.Link{Delay: time.Millisecond})
		defer s.close()
		s.together()
		victim, attacker := s.nodes[0].n, s.nodes[1].n
		open := func() int {
			victim.mu.Lock()
			defer victim.mu.Unlock()
			return len(victim.bySID)
		}
		time.Sleep(10 * time.Second) // of two sessions begun at once one stays
		usual := open()
		for range 3 {
			conn, err := attacker.transport.dial(context.Background(), victim.Addr())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.CloseWithError(0, "")
			if _, err := attacker.initiate(context.Background(), conn); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Second)
		if open() != usual+3 {
			t.Fatalf("%d sessions, %d before", open(), usual)
		}
		time.Sleep(helloWait + time.Second)
		if open() != usual {
			t.Errorf("%d sessions that said nothing are kept", open()-usual)
		}
	})
}

// TestOnlyMembersAreDialled has a peer tell addresses of nodes that nobody enrolled.
func TestOnlyMembersAreDialled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSimMesh(t, 2, 33, simnet.Link{Delay: time.Millisecond})
		defer s.close()
		s.together()
		n := s.nodes[0].n
		for round := range byte(4) {
			m := &addresses{}
			for i := range maxAddresses {
				m.Entries = append(m.Entries, addressEntry{fcp.WriterID{byte(i), round, 1}, fmt.Sprintf("h9:%d", i+1)})
			}
			n.takeAddresses(m)
		}
		n.mu.Lock()
		defer n.mu.Unlock()
		if len(n.kept) > 1 || len(n.addrs) > maxAddresses {
			t.Errorf("%d diallers and %d addresses for one member", len(n.kept), len(n.addrs))
		}
	})
}

func TestEarlySaltsAreBounded(t *testing.T) {
	var f fetchTable
	f.init()
	for i := range 100 {
		f.keepEarly(fcp.SegmentID{byte(i)}, make([]byte, maxMessage/2))
		f.keepEarly(fcp.SegmentID{byte(i)}, make([]byte, maxMessage))
	}
	total := 0
	for _, b := range f.early {
		total += len(b)
	}
	if total > maxEarlyBytes || total != f.bytes || len(f.order) != len(f.early) {
		t.Errorf("%d bytes in %d entries, counted %d in %d", total, len(f.early), f.bytes, len(f.order))
	}
	if len(f.takeEarly(fcp.SegmentID{99})) != maxMessage || f.takeEarly(fcp.SegmentID{99}) != nil {
		t.Error("the newest is not there once")
	}
	if f.takeEarly(fcp.SegmentID{0}) != nil {
		t.Error("the oldest did not give way")
	}
}

func TestManyConnectionsAtOnceMustProveTheirAddress(t *testing.T) {
	now := time.Unix(0, 0)
	l := sourceLoad{now: func() time.Time { return now }}
	for i := range 3 * sourcesChecked {
		if got := l.high(); got != (i >= sourcesChecked) {
			t.Fatalf("connection %d within a second: %v", i+1, got)
		}
	}
	now = now.Add(time.Second)
	if l.high() {
		t.Error("the load does not end")
	}
}
