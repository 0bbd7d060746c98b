package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"fcp"
	"fcp/authority"
	"fcp/engine"
	"fcp/log"
	"fcp/node/api"
)

// Targets of an idle node.
const (
	idleCore = 0.01      // of one core
	idleRSS  = 150 << 20 // bytes
)

// TestIdle measures three processes with 100,000 events that have nothing to do, as
// the kernel accounts for them in /proc (proc(5)).
//
//	FCP_LONG=1 go test ./cmd/fcpd -run TestIdle -v
func TestIdle(t *testing.T) {
	if os.Getenv("FCP_LONG") == "" {
		t.Skip("did NOT run: FCP_LONG=1 measures three idle nodes with 100,000 events")
	}
	const events = 100_000
	root := t.TempDir()
	dir := func(i int) string { return filepath.Join(root, fmt.Sprint(i)) }
	owner, err := authority.NewOwnerKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	prepare(t, owner, dir)
	write(t, filepath.Join(dir(0), "store"), events)
	for i := 1; i < 3; i++ { // what they would fetch, without the time it takes
		copyEvents(t, filepath.Join(dir(0), "store"), filepath.Join(dir(i), "store"))
	}
	all := []*process{start(t, dir(0))}
	st := all[0].until(t, "the first is ready", func(api.Status) bool { return true })
	for i := 1; i < 3; i++ {
		all = append(all, start(t, dir(i), "--peer", st.Address, "--enrollment", filepath.Join(dir(i), "enrollment")))
	}
	began := time.Now()
	for _, d := range all {
		d.until(t, "all have met", func(st api.Status) bool { return st.Coverage.Members == 3 })
		d.until(t, "all events are here", func(st api.Status) bool { return st.Position > events })
	}
	t.Logf("all have %d events after %v", events, time.Since(began).Round(time.Millisecond))
	time.Sleep(8 * time.Second) // flushes and collections of the work before
	const span = 20 * time.Second
	before := make([]time.Duration, len(all))
	for i, d := range all {
		before[i] = cpuTime(t, d.cmd.Process.Pid)
	}
	time.Sleep(span)
	for i, d := range all {
		core := float64(cpuTime(t, d.cmd.Process.Pid)-before[i]) / float64(span)
		rss := residentBytes(t, d.cmd.Process.Pid)
		t.Logf("node %d: %.2f %% of a core, %.1f MiB resident", i+1, core*100, float64(rss)/(1<<20))
		if core > idleCore || rss > idleRSS {
			at := d.log.Len()
			if err := d.cmd.Process.Signal(syscall.SIGQUIT); err != nil { // it says what it does, and ends
				t.Error(err)
			}
			d.cmd.Wait()
			doing := d.log.Bytes()[at:]
			t.Errorf("node %d: above 1 %% of a core or 150 MiB; its goroutines:\n%s", i+1, doing[:min(len(doing), 16<<10)])
		}
	}
}

// write puts small objects into a store that nobody has open.
func write(t *testing.T, store string, n int) {
	t.Helper()
	e, err := engine.Open(context.Background(), store, engine.Options{})
	if err != nil {
		t.Fatal(err)
	}
	const writers = 256
	var wg sync.WaitGroup
	failed := make(chan error, writers)
	for w := range writers {
		wg.Go(func() {
			for i := w; i < n; i += writers {
				if _, err := e.Put(context.Background(), engine.PutRequest{Key: fmt.Sprintf("notes/%06d", i), Bytes: []byte("a note of some words")}); err != nil {
					failed <- err
					return
				}
			}
		})
	}
	wg.Wait()
	close(failed)
	for err := range failed {
		t.Fatal(err)
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
}

// copyEvents takes one store's control events into another, as a peer would.
func copyEvents(t *testing.T, from, to string) {
	t.Helper()
	ctx := context.Background()
	ok := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	a, err := engine.Open(ctx, from, engine.Options{})
	ok(err)
	defer func() { ok(a.Close()) }()
	b, err := engine.Open(ctx, to, engine.Options{})
	ok(err)
	defer func() { ok(b.Close()) }()
	for _, owners := range []bool{true, false} { // the owner's zone first: it says who the writers are
		for _, f := range a.Log().Feeds() {
			if f.Feed.Plane != fcp.PlaneControl || (f.Feed.Zone == fcp.ZoneOwner) != owners {
				continue
			}
			const batch = 1000
			for first := uint64(1); first <= f.Seq; first += batch {
				var events []fcp.Event
				var salts [][log.SaltSize]byte
				for seq := first; seq <= min(first+batch-1, f.Seq); seq++ {
					ev, _, err := a.Log().ReadFull(f.No, seq)
					ok(err)
					_, salt, err := a.Log().Read(f.No, seq)
					ok(err)
					events, salts = append(events, ev), append(salts, salt)
				}
				_, err := b.ImportEvents(ctx, events, salts)
				ok(err)
			}
		}
	}
}

// cpuTime returns what a process has used: utime and stime of /proc/PID/stat, in
// hundredths of a second.
func cpuTime(t *testing.T, pid int) time.Duration {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(b), ") ") // the name may have spaces
	fields := strings.Fields(rest)
	var sum time.Duration
	for _, f := range fields[11:13] {
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		sum += time.Duration(n) * 10 * time.Millisecond
	}
	return sum
}

func residentBytes(t *testing.T, pid int) int {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			n, err := strconv.Atoi(strings.Fields(v)[0])
			if err != nil {
				t.Fatal(err)
			}
			return n << 10
		}
	}
	t.Fatal("no VmRSS")
	return 0
}
