package node

import (
	"os"
	"runtime"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"
)

// pinHalf leaves this process one half of the processors, if there are two or more.
func pinHalf(t testing.TB, half int) bool {
	var all, mine unix.CPUSet
	if unix.SchedGetaffinity(0, &all) != nil || all.Count() < 2 {
		return false
	}
	for cpu, n := 0, 0; n < all.Count(); cpu++ {
		if all.IsSet(cpu) {
			if n < all.Count()/2 == (half == 0) {
				mine.Set(cpu)
			}
			n++
		}
	}
	apply := func(set *unix.CPUSet) {
		threads, err := os.ReadDir("/proc/self/task")
		if err != nil {
			t.Fatal(err)
		}
		for _, thread := range threads {
			if id, err := strconv.Atoi(thread.Name()); err == nil {
				_ = unix.SchedSetaffinity(id, set) // it may be gone; those it began have what it had
			}
		}
	}
	procs := runtime.GOMAXPROCS(mine.Count())
	for range 2 { // threads that began meanwhile
		apply(&mine)
	}
	t.Cleanup(func() {
		apply(&all)
		runtime.GOMAXPROCS(procs)
	})
	return true
}
