package node

import (
	"bytes"
	"context"
	"errors"
	mrand "math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"fcp"
	"fcp/authority"
	"fcp/engine"
	"fcp/node/simnet"
)

// agreed is a simulated mesh whose nodes are all together and members of the zone's
// electorate.
func agreed(t *testing.T, n int, seed uint64) *simMesh {
	t.Helper()
	s := newSimMesh(t, n, seed, simnet.Link{Delay: time.Millisecond})
	s.together()
	if _, err := s.nodes[0].e.SettleCheckpoint(context.Background(), s.owner, fcp.ZonePrivate); err != nil {
		t.Fatal(err)
	}
	s.equalRoots(fcp.ZonePrivate, fcp.ZoneOwner)
	return s
}

func (s *simMesh) acquire(i int, x authority.Thing) (*engine.LeaseState, error) {
	return s.nodes[i].e.AcquireLease(within(s.t, time.Minute), x, time.Minute, s.nodes[i].n)
}

func leased(b byte) authority.Thing {
	return authority.Thing{Zone: fcp.ZonePrivate, Subject: fcp.ObjectID{b}, Purpose: authority.LeaseResource}
}

func (s *simMesh) id(i int) fcp.WriterID { return fcp.WriterOf(s.nodes[i].e.Signer().Public()) }

// TestALeaseIsSignedOverTheMesh: of three members two sign, whoever of them is asked to
// coordinate, also while the third is away. Then one alone gets nothing, and says who did
// not sign.
func TestALeaseIsSignedOverTheMesh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := agreed(t, 3, 71)
		defer s.close()
		holder := func(i int, x authority.Thing) *engine.LeaseState {
			t.Helper()
			l, err := s.acquire(i, x)
			if err != nil {
				t.Fatalf("node %d: %v", i+1, err)
			}
			if got := l.Signers(); len(got) < 2 || l.Spec().Holder != s.id(i) {
				t.Fatalf("node %d: signed by %v for %v", i+1, got, l.Spec().Holder)
			}
			return l
		}
		coordinators := map[fcp.WriterID]bool{}
		for b := range byte(12) {
			coordinators[holder(int(b)%3, leased(b+1)).Spec().Coordinator] = true
		}
		if len(coordinators) != 3 {
			t.Errorf("%d of 3 coordinated twelve leases", len(coordinators))
		}
		first := holder(0, leased(1)).Spec().Fence
		if _, err := s.acquire(1, leased(1)); !errors.Is(err, fcp.CodeLeaseHeld) {
			t.Error("a second holder:", err)
		}
		gone := []fcp.WriterID{s.id(2)}
		s.kill(2)
		one := holder(0, leased(1))
		if one.Spec().Fence <= first {
			t.Error("a renewal has no higher fence")
		}
		for b := range byte(6) {
			holder(int(b)%2, leased(b+100))
		}
		if err := s.nodes[0].e.ReleaseLease(context.Background(), leased(1), one.Spec().Fence); err != nil {
			t.Fatal(err)
		}
		eventually(t, 10*time.Second, "the release is there", func() bool {
			l, err := s.nodes[1].e.CurrentLease(leased(1))
			return err == nil && l.Released
		})
		holder(1, leased(1))
		gone = append(gone, s.id(1))
		s.kill(1)
		_, err := s.acquire(0, leased(50))
		if !errors.Is(err, fcp.CodeNoQuorum) {
			t.Fatal("alone:", err)
		}
		for _, w := range gone {
			if !strings.Contains(err.Error(), "("+w.String()[:16]+"): FCP-7002") {
				t.Errorf("%v does not name %.16s", err, w)
			}
		}
	})
}

// TestLeasesOverABadNetwork has four nodes take, renew and give back one thing while the
// network loses packets and is cut again and again: fences are never given twice, and no
// two nodes believe at one time that they have it.
func TestLeasesOverABadNetwork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := agreed(t, 4, 75)
		defer s.close()
		s.net.SetAll(simnet.Link{Delay: 5 * time.Millisecond, Jitter: 5 * time.Millisecond, Loss: 300, Duplicate: 100, Corrupt: 20})
		type held struct {
			holder     int
			fence      authority.Fence
			ref        fcp.Hash
			from, till time.Time
		}
		var mu sync.Mutex
		var all []held
		var work sync.WaitGroup
		rest := make(chan struct{})
		for i, x := range s.nodes {
			work.Go(func() {
				r := mrand.New(mrand.NewPCG(75, uint64(i)))
				for {
					select {
					case <-rest:
						return
					case <-time.After(time.Duration(r.IntN(3000)) * time.Millisecond):
					}
					ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
					l, err := x.e.AcquireLease(ctx, leased(9), 20*time.Second, x.n)
					cancel()
					if err != nil {
						continue
					}
					h := held{i, l.Spec().Fence, l.Ref(), time.Now(), l.Spec().Until}
					mu.Lock()
					all = append(all, h)
					mu.Unlock()
					time.Sleep(time.Duration(r.IntN(2000)) * time.Millisecond)
					if r.IntN(8) > 0 { // and with it every earlier one
						mu.Lock()
						for j := range all {
							if now := time.Now(); all[j].holder == i && all[j].till.After(now) {
								all[j].till = now
							}
						}
						mu.Unlock()
						if err := x.e.ReleaseLease(context.Background(), leased(9), h.fence); err != nil {
							t.Error(err)
						}
					}
				}
			})
		}
		r := mrand.New(mrand.NewPCG(75, 99))
		rounds := 30
		if testing.Short() {
			rounds = 6
		}
		for range rounds {
			alone := r.IntN(4)
			for i := range 4 {
				if i != alone {
					s.net.Cut(host(alone), host(i))
				}
			}
			time.Sleep(time.Duration(2000+r.IntN(4000)) * time.Millisecond)
			s.net.HealAll()
			time.Sleep(time.Duration(2000+r.IntN(8000)) * time.Millisecond)
		}
		close(rest)
		work.Wait()
		holders := map[int]int{}
		for i, a := range all {
			holders[a.holder]++
			for _, b := range all[:i] {
				if a.fence == b.fence && a.ref != b.ref {
					t.Errorf("fence %d was given to %d and %d", a.fence, a.holder, b.holder)
				}
				if a.holder != b.holder && a.from.Before(b.till) && b.from.Before(a.till) {
					t.Errorf("%d and %d had it at one time: %+v %+v", a.holder, b.holder, a, b)
				}
			}
		}
		t.Log("leases by holder", holders)
		if !testing.Short() && (len(all) < 5 || len(holders) < 2) {
			t.Errorf("hardly anybody got a lease: %v", holders)
		}
	})
}

// TestASharedSecretIsUsedOverTheMesh has a device without a share use a secret of which
// any two of five have one: one of them is cut off, one refuses and one lies.
func TestASharedSecretIsUsedOverTheMesh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := agreed(t, 6, 72)
		defer s.close()
		ctx := within(t, time.Minute)
		const value = "canary of a secret that crosses the mesh"
		asker := s.nodes[0]
		if _, err := asker.e.PutSecret(ctx, s.owner, engine.PutSecretRequest{Name: "api/token", Value: []byte(value), Threshold: 2, Without: []fcp.WriterID{s.id(0)}}); err != nil {
			t.Fatal(err)
		}
		s.equalRoots(fcp.ZonePrivate, fcp.ZoneOwner)
		state, err := asker.e.Secrets(fcp.ZonePrivate)
		if err != nil || len(state) != 1 || len(state[0].Holders) != 5 {
			t.Fatal(state, err)
		}
		at := map[fcp.WriterID]*member{}
		for i, x := range s.nodes {
			at[s.id(i)] = x
		}
		// In the order in which they are asked: two at first, another for each that fails.
		h := state[0].Holders
		away, refuses, lies, good, better := h[0], h[1], h[2], h[3], h[4]
		at[refuses].n.decide = func(context.Context, fcp.WriterID, *ask) ([]byte, error) {
			return nil, fcp.Errorf(fcp.CodeDenied, "no: %w", authority.ReasonRevocationStale)
		}
		at[lies].n.decide = func(_ context.Context, _ fcp.WriterID, m *ask) ([]byte, error) { // what another gave
			return at[good].n.engine.AnswerShareAsk(ctx, s.id(0), m.Body)
		}
		for i := range s.nodes {
			if s.id(i) == away {
				s.net.Cut(host(0), host(i)) // its session stands for a while
			}
		}
		var got []byte
		used, err := asker.e.UseSecret(ctx, engine.SecretUse{Name: "api/token", By: s.owner, Sources: asker.n}, func(b []byte) error {
			got = bytes.Clone(b)
			return nil
		})
		if err != nil || string(got) != value {
			t.Fatalf("%q, %v", got, err)
		}
		if len(used.Devices) != 2 || !slices.Contains(used.Devices, good) || !slices.Contains(used.Devices, better) {
			t.Errorf("shares of %v", used.Devices)
		}
		why := map[fcp.WriterID]error{}
		for _, r := range used.Refused {
			why[r.Device] = r.Err
		}
		if !errors.Is(why[away], fcp.CodeTimeout) || authority.ReasonOf(why[refuses]) != authority.ReasonRevocationStale || !errors.Is(why[lies], fcp.CodeInvalidArgument) {
			t.Errorf("refused: %v", why)
		}
		if at[refuses].n.metrics.AsksRefused.Load() != 1 || at[good].n.metrics.AsksAnswered.Load() != 1 {
			t.Error("the asks are not counted")
		}
	})
}

// TestAnswersThatNobodyWaitsFor: late ones, second ones and ones out of nowhere are
// counted and do nothing, and garbage is an error of who asked.
func TestAnswersThatNobodyWaitsFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := agreed(t, 2, 73)
		defer s.close()
		n, peer := s.nodes[0].n, s.nodes[1].n
		back := peer.session(n.self)
		strays := func(want uint64) {
			t.Helper()
			eventually(t, 10*time.Second, "the answer is counted", func() bool { return n.metrics.AnswersUnasked.Load() == want })
		}
		if err := back.send(urgent, &answer{ID: 1, Body: []byte{1}}); err != nil {
			t.Fatal(err)
		}
		strays(1)

		release := make(chan struct{})
		peer.decide = func(context.Context, fcp.WriterID, *ask) ([]byte, error) {
			<-release
			return []byte("late"), nil
		}
		began := time.Now()
		if _, err := n.AskShare(context.Background(), peer.self, []byte{1}); !errors.Is(err, fcp.CodeTimeout) || time.Since(began) != askWait {
			t.Fatal(err, time.Since(began))
		}
		close(release)
		strays(2)

		peer.decide = func(context.Context, fcp.WriterID, *ask) ([]byte, error) { return []byte{0xff, 0}, nil }
		if b, err := n.AskShare(context.Background(), peer.self, []byte{1}); err != nil || !bytes.Equal(b, []byte{0xff, 0}) {
			t.Fatal(b, err) // bytes to this relay; the engine refuses them
		}
		if _, err := n.Vote(context.Background(), peer.self, []byte{1}, []byte{2}); !errors.Is(err, fcp.CodeMalformed) {
			t.Error("garbage for a vote:", err)
		}
		if err := back.send(urgent, &answer{ID: 2, Body: []byte{1}}); err != nil { // answered already
			t.Fatal(err)
		}
		strays(3)

		// A session ends while the peer decides, as when its store is lent: it is asked again
		// in the next one.
		asked := 0
		peer.decide = func(context.Context, fcp.WriterID, *ask) ([]byte, error) {
			if asked++; asked == 1 {
				back.end(nil)
			}
			return []byte{1}, nil
		}
		if _, err := n.AskShare(context.Background(), peer.self, []byte{1}); err != nil || asked != 2 {
			t.Errorf("asked %d times: %v", asked, err)
		}
		stopped, cancel := context.WithCancel(context.Background())
		cancel()
		if _, err := n.AskShare(stopped, peer.self, []byte{1}); !errors.Is(err, fcp.CodeInterrupted) {
			t.Error("cancelled:", err)
		}
		if len(n.session(peer.self).asks.open) != 0 || len(n.session(peer.self).asks.slots) != 0 {
			t.Error("asks are left over")
		}
	})
}

// TestAFloodOfAsksIsRefused: of what one peer asks within a minute only so much is
// decided, at most so many at once, and the others' asks are not in its way.
func TestAFloodOfAsksIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const limit = 60
		s := newSimMeshOf(t, 3, 74, simnet.Link{Delay: time.Millisecond}, func(_ int, o *Options) { o.Budget.Asks = limit })
		defer s.close()
		s.together()
		n, hostile := s.nodes[0].n, s.nodes[1].n
		sent := uint64(0)
		flood := func(count int) {
			t.Helper()
			for range count {
				sent++
				if err := hostile.session(n.self).send(normal, &ask{ID: sent, What: askShare, Body: []byte{1}}); err != nil {
					t.Fatal(err)
				}
			}
		}
		block := make(chan struct{})
		var decided atomic.Int64
		n.decide = func(context.Context, fcp.WriterID, *ask) ([]byte, error) {
			<-block
			return nil, fcp.Errorf(fcp.CodeNotFound, "no")
		}
		for range maxServing { // symbols that are made for it are no asks
			done, err := n.budgetOf(hostile.self).serve()
			if err != nil {
				t.Fatal(err)
			}
			defer done()
		}
		flood(100)
		eventually(t, 10*time.Second, "the flood is refused", func() bool { return n.metrics.AsksRefused.Load() == 100-maxServing })
		b := n.budgetOf(hostile.self)
		b.mu.Lock()
		if b.asking != maxServing {
			t.Errorf("%d are decided at once", b.asking)
		}
		b.mu.Unlock()
		close(block)
		eventually(t, 10*time.Second, "the rest is answered", func() bool { return n.metrics.AsksRefused.Load() == 100 })
		n.decide = func(context.Context, fcp.WriterID, *ask) ([]byte, error) {
			decided.Add(1)
			return nil, fcp.Errorf(fcp.CodeNotFound, "no")
		}
		for range 2 * limit {
			flood(1)
			time.Sleep(10 * time.Millisecond)
		}
		if got := decided.Load() + maxServing; got != limit {
			t.Errorf("%d asks were decided, %d may be", got, limit)
		}
		if _, err := s.nodes[2].n.AskShare(context.Background(), n.self, []byte{1}); !errors.Is(err, fcp.CodeNotFound) {
			t.Error("another peer's ask:", err)
		}
	})
}

// TestARefusalTravels: what the coordinator and the user have to know of it is there at
// the other end, and nothing else is.
func TestARefusalTravels(t *testing.T) {
	held := &authority.HeldError{Reason: authority.ReasonLeaseHeld, Fence: 9, Holder: fcp.WriterID{4}, Until: time.Unix(1e9, 0).UTC()}
	for _, err := range []error{
		&fcp.Error{Code: fcp.CodeLeaseHeld, Cause: held}, &fcp.Error{Code: fcp.CodeFenced, Cause: &authority.HeldError{Reason: authority.ReasonLeaseStale, Fence: 3}},
		fcp.Errorf(fcp.CodeDenied, "x: %w", authority.ReasonLeaseTime), fcp.Errorf(fcp.CodeNotFound, "a name"), context.DeadlineExceeded, errors.New("text"),
		&fcp.Error{Code: fcp.CodeDenied, Cause: fcp.Reason("\x1b[2J")}, &fcp.Error{Code: fcp.CodeDenied, Cause: fcp.Reason(strings.Repeat("a", 65))},
	} {
		m := &answer{ID: 1, Refused: refusedBy(err)}
		if !m.ok() {
			t.Errorf("%v makes the answer %+v", err, m.Refused)
		}
		got := m.Refused.err()
		var h, want *authority.HeldError
		if errors.As(err, &want) != errors.As(got, &h) || want != nil && *want != *h {
			t.Errorf("%v arrives as %v", want, h)
		}
		if want := fcp.CodeOf(err); want.Class() != 0 && fcp.CodeOf(got) != want && !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v arrives as %v", err, got)
		}
		if strings.ContainsAny(got.Error(), "\x1b") || strings.Contains(got.Error(), "a name") {
			t.Errorf("%q says what the peer wrote", got)
		}
	}
}
