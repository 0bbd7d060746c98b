package node

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

var (
	flagSeed  = flag.Uint64("seed", 0, "run this seed of TestSim or TestSimHealing alone; with -hours the first of so many")
	flagHours = flag.Int("hours", 0, "simulated cluster-hours of TestSim or TestSimHealing, one for each seed; 0: a short form")
)

// simChild, in the environment, makes a process run one seed: what a store leaves
// behind that stopped after a disk error ends with its process, as in life.
const simChild = "FCP_SIM_CHILD"

// simResult is what the run of one seed has to say.
type simResult struct {
	Faults  map[string]int
	Virtual time.Duration
	Slowest time.Duration // from a heal until all was equal
	Heals   int
	Puts    int
}

// resultMark is in front of a result among a child's output.
const resultMark = "simulated: "

// simulation is a kind of cluster's life.
type simulation struct {
	test     string // name
	live     func(w *world, length time.Duration)
	kinds    []fault // what each life has at least once
	short    time.Duration
	machines int
	tags     []string // of the enrollments of all machines but the first
	kept     []uint64 // seeds that failed once
}

// TestSim runs whole clusters in virtual time through every kind of fault, one
// seed a cluster, and checks after each fault that all is as it must be.
//
//	go test ./node -run 'TestSim$'               a short form
//	go test ./node -run 'TestSim$' -seed 7       one seed, an hour of its cluster
//	go test ./node -run 'TestSim$' -hours 200    as in CI, each kind of fault at least as often
//
// The seed decides the faults, their order and all randomness; the order in which
// goroutines run is the runtime's. FCP_DEBUG=1 shows the nodes' logs.
func TestSim(t *testing.T) {
	simulate(t, &simulation{test: "TestSim", live: (*world).live, kinds: slices.Concat(faults, lasting), short: 10 * time.Minute, machines: 4})
}

func simulate(t *testing.T, s *simulation) {
	first, count, length := uint64(1), uint64(2), s.short
	switch {
	case *flagHours > 0:
		first, count, length = max(*flagSeed, 1), uint64(*flagHours), time.Hour
	case *flagSeed > 0:
		first, count, length = *flagSeed, 1, time.Hour
	case testing.Short():
		count = 1
	}
	if os.Getenv(simChild) != "" {
		runSeed(t, s, first)
		return
	}
	var seeds []uint64
	if *flagSeed == 0 && !testing.Short() {
		seeds = slices.Clone(s.kept)
	}
	for seed := first; seed < first+count; seed++ {
		if !slices.Contains(seeds, seed) {
			seeds = append(seeds, seed)
		}
	}
	began := time.Now()
	var mu sync.Mutex
	total := simResult{Faults: map[string]int{}}
	t.Run("seeds", func(t *testing.T) {
		turns := make(chan struct{}, max(1, runtime.GOMAXPROCS(0)))
		for _, seed := range seeds {
			t.Run(fmt.Sprint(seed), func(t *testing.T) {
				t.Parallel()
				turns <- struct{}{}
				defer func() { <-turns }()
				if t.Failed() {
					return
				}
				r := runChild(t, s, seed, length)
				mu.Lock()
				defer mu.Unlock()
				for k, n := range r.Faults {
					total.Faults[k] += n
				}
				total.Virtual += r.Virtual
				total.Slowest = max(total.Slowest, r.Slowest)
				total.Heals += r.Heals
				total.Puts += r.Puts
			})
		}
	})
	if t.Failed() {
		return
	}
	t.Logf("%.1f cluster-hours in %v; %d acknowledged puts, %d heals, all equal after at most %v",
		total.Virtual.Hours(), time.Since(began).Round(time.Second), total.Puts, total.Heals, total.Slowest)
	for _, k := range slices.Sorted(maps.Keys(total.Faults)) {
		t.Logf("%9d  %s", total.Faults[k], k)
	}
	if *flagSeed > 0 && count == 1 {
		return
	}
	for _, f := range s.kinds {
		if n := total.Faults[f.name]; n < int(count) {
			t.Errorf("%s: %d times in %d runs", f.name, n, count)
		}
	}
	if total.Virtual < time.Duration(count)*length {
		t.Errorf("%v of virtual time, not %v", total.Virtual, time.Duration(count)*length)
	}
}

// runChild runs one seed in a process of its own.
func runChild(t *testing.T, s *simulation, seed uint64, length time.Duration) (r simResult) {
	c := exec.Command(os.Args[0], "-test.run", "^"+s.test+"$", "-seed", fmt.Sprint(seed), "-simlength", length.String(), "-test.timeout", "10m")
	c.Env = append(os.Environ(), simChild+"=1", "GOMAXPROCS=1", "GOGC=400")
	out, err := c.CombinedOutput()
	_, text, ok := strings.Cut(string(out), resultMark)
	if ok {
		text, _, _ = strings.Cut(text, "\n")
		err = errors.Join(err, json.Unmarshal([]byte(text), &r))
	}
	if err != nil || !ok {
		t.Fatalf("seed %d: %v\n%s", seed, err, out)
	}
	return r
}

var flagLength = flag.Duration("simlength", time.Hour, "virtual time of the run of one seed")

// runSeed lives one cluster's life.
func runSeed(t *testing.T, s *simulation, seed uint64) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, seed, s.machines, s.tags...)
		s.live(w, *flagLength)
		w.close()
		c := w.net.Counts()
		for k, n := range map[string]int{"packets lost": c.Lost, "packets reordered": c.Reordered, "packets duplicated": c.Duplicated,
			"packets corrupted": c.Corrupted, "packets cut off": c.Cut} {
			w.counts[k] += n
		}
		b, err := json.Marshal(simResult{w.counts, time.Since(w.began), w.slowest, w.settled, len(w.puts)})
		if err != nil {
			t.Fatal(err)
		}
		fmt.Println(resultMark + string(b))
		if w.stopped {
			os.Exit(0) // what stopped stores left would keep the bubble open
		}
	})
}

// live puts the cluster through every fault, in the seed's order. Every other
// cluster has no disk that fails: it must leave no goroutine behind.
func (w *world) live(length time.Duration) {
	w.settle()
	var list []fault
	for _, f := range faults {
		switch {
		case !f.stops:
			list = append(list, f)
		case w.seed%2 == 1:
			list = append(list, f, f)
		}
	}
	w.rnd.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
	for i, f := range list {
		w.some(1, w.up())
		f.do(w)
		w.settle()
		if rest := length - time.Since(w.began); rest > 0 {
			w.rest(2 * rest / time.Duration(len(list)-i))
		}
	}
	w.checkDeep()
	for _, f := range lasting {
		if len(w.up()) > 2 || f.name != "far-future clock" {
			f.do(w)
		}
	}
	w.checkDeep()
	if rest := length - time.Since(w.began); rest > 0 {
		time.Sleep(rest)
	}
}
