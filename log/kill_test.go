package log

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"fcp"
)

// childEnv makes the test binary append to that directory until it is killed.
const childEnv = "FCP_LOG_TEST_CHILD"

func TestMain(m *testing.M) {
	if dir := os.Getenv(childEnv); dir != "" {
		appendUntilKilled(dir)
	}
	os.Exit(m.Run())
}

func killOptions() Options {
	o := sealing(small(), 16<<10)
	o.Create, o.Writer = true, testWriter()
	o.MarkInterval = 5 * time.Millisecond
	return o
}

// ackSize is an acknowledgement on the pipe: position, feed, seq, hash.
const ackSize = 8 + 4 + 8 + fcp.HashSize

func appendUntilKilled(dir string) {
	l, err := Open(dir, killOptions())
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(3)
	}
	var mu sync.Mutex
	for w := range 4 {
		go func() {
			rng := rand.New(rand.NewPCG(uint64(os.Getpid()), uint64(w)))
			for {
				ds := make([]Draft, 1+rng.IntN(3))
				for i := range ds {
					ds[i] = Draft{Zone: testZones[w%2], Plane: fcp.Plane(1 + rng.IntN(2)), Content: opaque(20+rng.IntN(500), byte(w))}
				}
				r, err := l.Append(context.Background(), ds)
				if err != nil {
					fmt.Fprintln(os.Stderr, err)
					os.Exit(4)
				}
				var b []byte
				for _, p := range r.Events {
					b = binary.BigEndian.AppendUint64(b, p.Position)
					b = binary.BigEndian.AppendUint32(b, uint32(p.Feed))
					b = binary.BigEndian.AppendUint64(b, p.Seq)
					b = append(b, p.Hash[:]...)
				}
				mu.Lock()
				_, err = os.Stdout.Write(b)
				mu.Unlock()
				if err != nil {
					os.Exit(5)
				}
			}
		}()
	}
	select {}
}

// TestKill: a real process on a real directory, killed at random times, again
// and again on the same store.
func TestKill(t *testing.T) {
	rounds := torture(25)
	dir := filepath.Join(t.TempDir(), "store")
	rng := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 1))
	var acked []Placed
	lived := 0 // rounds in which something was acknowledged
	start := time.Now()
	for round := range rounds {
		if round%20 == 19 {
			if err := os.RemoveAll(dir); err != nil {
				t.Fatal(err)
			}
			acked = nil
		}
		// Now and then the child is killed while it opens the store.
		early := round%4 == 3
		more, err := killRound(dir, time.Duration(rng.IntN(60_000))*time.Microsecond, early)
		if err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		acked = append(acked, more...)
		if len(more) > 0 {
			lived++
		} else if !early {
			t.Fatalf("round %d: killed before anything was acknowledged", round)
		}
		if len(acked) == 0 {
			continue
		}
		r, err := Verify(t.Context(), dir, VerifyOptions{Sealer: newTestSeal()})
		if err != nil || !r.Clean {
			t.Fatalf("round %d: verify: %v, %v", round, r.Findings, err)
		}
		l, err := Open(dir, killOptions())
		if err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		if err := errors.Join(checkRecovered(l, &cutImage{acked: acked}), l.Close()); err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
	}
	t.Logf("%d rounds, %d with acknowledged events, %.1f/s", rounds, lived, float64(rounds)/time.Since(start).Seconds())
}

// killRound runs a child for a while after its first acknowledgement, or after its
// start when early is set.
func killRound(dir string, life time.Duration, early bool) (acked []Placed, err error) {
	cmd := exec.Command(os.Args[0], "-test.run=^$")
	cmd.Env = append(os.Environ(), childEnv+"="+dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	started := make(chan struct{})
	var once sync.Once
	go func() {
		if !early {
			<-started
		}
		time.Sleep(life)
		_ = cmd.Process.Kill()
	}()
	defer once.Do(func() { close(started) })
	r := bufio.NewReader(out)
	for {
		var b [ackSize]byte
		if _, err := io.ReadFull(r, b[:]); err != nil {
			break // killed, maybe in the middle of an acknowledgement
		}
		once.Do(func() { close(started) })
		acked = append(acked, Placed{Position: binary.BigEndian.Uint64(b[:]), Feed: FeedNo(binary.BigEndian.Uint32(b[8:])),
			Seq: binary.BigEndian.Uint64(b[12:]), Hash: fcp.Hash(b[20:])})
	}
	err = cmd.Wait()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.Exited() {
		return acked, fmt.Errorf("the child ended by itself: %w", err)
	}
	return acked, nil
}
