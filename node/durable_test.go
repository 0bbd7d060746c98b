package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"fcp"
	"fcp/log"
	"fcp/node/simnet"
)

// TestWhatSurvivesIsWhatWasPromised kills the writer one second after each put was
// acknowledged: what was promised to be on peers can be read there, and what was
// promised on this disk alone comes back with the disk.
func TestWhatSurvivesIsWhatWasPromised(t *testing.T) {
	for _, level := range []Durability{DurableLocal, DurablePeers, DurablePlaced} {
		t.Run(string(level), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSimMesh(t, 3, 7, simnet.Link{Delay: 5 * time.Millisecond, Jitter: 2 * time.Millisecond, Loss: 100})
				defer s.close()
				s.together()
				bodies := map[string][]byte{"inline": []byte("small"), "body": randomBytes(90_000, 1), "large": randomBytes(900_000, 2)}
				if level == DurableLocal { // nobody hears of it
					s.net.Cut(host(0), host(1))
					s.net.Cut(host(0), host(2))
				}
				for name, b := range bodies {
					s.put(0, name, b)
				}
				ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
				defer cancel()
				got, err := s.nodes[0].n.Durable(ctx, level)
				if err != nil || got != level {
					t.Fatalf("%s is not reached but %s: %v", level, got, err)
				}
				time.Sleep(time.Second)
				s.kill(0)
				s.net.HealAll()
				time.Sleep(10 * time.Second)
				for i := 1; i < 3; i++ {
					for name, want := range bodies {
						b, err := s.get(i, name)
						if level == DurableLocal {
							if err == nil {
								t.Errorf("node %d reads %s, which was only on a disk that is gone", i+1, name)
							}
							continue
						}
						if err != nil || !bytes.Equal(b, want) {
							t.Errorf("node %d does not read %s: %v", i+1, name, err)
						}
					}
				}
			})
		})
	}
}

// TestDurabilityIsSaidHonestly: where there are too few devices, or they do not
// answer, the answer is what was reached and what is missing.
func TestDurabilityIsSaidHonestly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		alone := newSimMesh(t, 1, 3, simnet.Link{})
		alone.put(0, "a", randomBytes(5000, 1))
		for _, level := range []Durability{DurablePeers, DurablePlaced} {
			if got, err := alone.nodes[0].n.Durable(context.Background(), level); got != DurableLocal || !errors.Is(err, fcp.CodeNotEnough) {
				t.Errorf("alone, %s: %s, %v", level, got, err)
			}
		}
		alone.close()

		s := newSimMesh(t, 3, 4, simnet.Link{Delay: time.Millisecond})
		defer s.close()
		s.together()
		s.net.Cut(host(0), host(1))
		s.net.Cut(host(0), host(2))
		s.put(0, "a", randomBytes(5000, 1))
		ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
		defer cancel()
		got, err := s.nodes[0].n.Durable(ctx, DurablePeers)
		if got != DurableLocal || !errors.Is(err, fcp.CodeTimeout) || !strings.Contains(fmt.Sprint(err), "bodies") {
			t.Errorf("cut off: %s, %v", got, err)
		}
		s.net.HealAll()
		ctx, cancel = context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if got, err := s.nodes[0].n.Durable(ctx, DurablePeers); got != DurablePeers || err != nil {
			t.Errorf("healed: %s, %v", got, err)
		}
		if _, err := s.nodes[0].n.Durable(ctx, "for ever"); !errors.Is(err, fcp.CodeInvalidArgument) {
			t.Error(err)
		}
	})
}

// TestTailsGoWhenSegmentsAreSpread: what a peer keeps outlives its restart, and is
// dropped once the symbols of others suffice.
func TestTailsGoWhenSegmentsAreSpread(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSimMesh(t, 4, 9, simnet.Link{Delay: time.Millisecond})
		defer s.close()
		s.together()
		s.put(0, "a", randomBytes(70_000, 1))
		if _, err := s.nodes[0].n.Durable(within(t, 10*time.Second), DurablePeers); err != nil {
			t.Fatal(err)
		}
		kept := func() (n int) {
			for _, x := range s.nodes[1:] {
				x.n.tails.mu.Lock()
				n += len(x.n.tails.kept)
				x.n.tails.mu.Unlock()
			}
			return n
		}
		if kept() == 0 {
			t.Fatal("nobody keeps the tail")
		}
		if _, err := s.nodes[0].e.Log().Seal(context.Background(), log.SealOptions{All: true}); err != nil {
			t.Fatal(err)
		}
		eventually(t, 3*time.Minute, "the tails are dropped", func() bool { time.Sleep(time.Second); return kept() == 0 })
		s.kill(0)
		time.Sleep(20 * time.Second)
		if got, err := s.get(2, "a"); err != nil || len(got) != 70_000 {
			t.Error("read:", err)
		}
	})
}
