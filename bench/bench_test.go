package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"regexp"
	"sync"
	"testing"
	"time"
)

func TestRowNamesAreUniqueAndWellFormed(t *testing.T) {
	rows, err := selectRows(regexp.MustCompile("."))
	if err != nil {
		t.Fatal(err)
	}
	form := regexp.MustCompile(`^[a-z0-9-]+(/[A-Za-z0-9=-]+)+$`)
	for _, r := range rows {
		if !form.MatchString(r.Name) {
			t.Errorf("row name %q is not of the form a/b/c", r.Name)
		}
		if r.Unit == "" || len(r.Subjects) == 0 {
			t.Errorf("%s has no unit or no subject", r.Name)
		}
	}
	for _, name := range []string{
		"append/raw/256B/w=256", "append/peer-etcd-wal/1KiB/w=16",
		"append/peer-raft-wal/256B/w=1", "append/peer-pebble/256B/w=256",
	} {
		found, err := selectRows(regexp.MustCompile("^" + name + "$"))
		if err != nil || len(found) != 1 {
			t.Errorf("%s: %d rows, %v", name, len(found), err)
		}
	}
}

// required are the fields each JSON line must have, whatever the row.
var required = []string{
	"name", "value", "unit", "better", "limit", "ratio", "peers", "min", "max", "count", "ops",
	"write_bytes", "device_write_bytes", "cpu_s", "allocs_per_op", "peak_rss_bytes", "machine", "time",
}

func TestATinyRunPrintsOneCompleteObjectPerRowAndCleansUp(t *testing.T) {
	dir := t.TempDir()
	o, err := parse([]string{"-run", `256B/w=16$|^limit/memory`, "-o", "json", "-count", "2", "-time", "10ms", "-dir", dir}, os.Stderr)
	if err != nil {
		t.Fatal(err)
	}
	o.anyFS = true
	var out bytes.Buffer
	if err := o.run(t.Context(), &out); err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for line := range bytes.Lines(out.Bytes()) {
		var fields map[string]any
		if err := json.Unmarshal(line, &fields); err != nil {
			t.Fatalf("%v in line %s", err, line)
		}
		for _, f := range required {
			if _, ok := fields[f]; !ok {
				t.Errorf("%v has no field %s", fields["name"], f)
			}
		}
		if v, _ := fields["value"].(float64); v <= 0 {
			t.Errorf("%v has value %v", fields["name"], fields["value"])
		}
		seen[fmt.Sprint(fields["name"])] = true
	}
	for _, name := range []string{
		"limit/memory-scan", "append/raw/256B/w=16", "append/peer-etcd-wal/256B/w=16",
		"append/peer-raft-wal/256B/w=16", "append/peer-pebble/256B/w=16",
	} {
		if !seen[name] {
			t.Errorf("no line for %s", name)
		}
	}
	mustBeEmpty(t, dir)
}

func mustBeEmpty(t *testing.T, dir string) {
	t.Helper()
	left, err := os.ReadDir(dir)
	if err != nil || len(left) > 0 {
		t.Errorf("left behind in the directory: %v, %v", left, err)
	}
}

// memory is a target that keeps nothing, for testing the harness.
func memory(failAfter int) Target {
	return Target{
		Name:       "memory",
		EventBytes: func(payload int) (int, error) { return payload + 44, nil },
		Open: func(context.Context, string, Workload) (Appender, error) {
			return newGrouped(&counter{failAfter: failAfter}), nil
		},
	}
}

var errCounter = errors.New("enough")

type counter struct{ groups, failAfter int }

func (c *counter) commit(*batch) error {
	c.groups++
	if c.failAfter > 0 && c.groups > c.failAfter {
		return errCounter
	}
	return nil
}

func (c *counter) close() error { return nil }

func TestATargetIsMeasuredBesideLimitAndPeersAtItsEncodedSize(t *testing.T) {
	rows, err := appendRows(memory(0))
	if err != nil {
		t.Fatal(err)
	}
	row := rows[1]
	rec, err := measureRow(t.Context(), row, settings{dir: t.TempDir(), count: 1, time: 5 * time.Millisecond, peers: true})
	if err != nil {
		t.Fatal(err)
	}
	if rec.Name != "append/memory/256B/w=16" || rec.Limit == nil || rec.Ratio == nil || *rec.Ratio <= 0 {
		t.Errorf("record %+v", rec)
	}
	for _, p := range []string{"etcd-wal", "raft-wal", "pebble"} {
		if rec.Peers[p] <= 0 {
			t.Errorf("peer %s has %v", p, rec.Peers[p])
		}
	}
	if rec.EventBytes != 300 {
		t.Errorf("event_bytes %d, want 300", rec.EventBytes)
	}
}

func TestAnAppendErrorEndsTheRunAndCleansUp(t *testing.T) {
	rows, err := appendRows(memory(3))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	_, err = measureRow(t.Context(), rows[1], settings{dir: dir, count: 1, time: time.Second})
	if !errors.Is(err, errCounter) {
		t.Errorf("got error %v", err)
	}
	mustBeEmpty(t, dir)
}

func TestCommitterCommitsEachRecordOnceAndInOrderPerWriter(t *testing.T) {
	const writers, each = 20, 200
	last := map[byte]int{}
	total := 0
	c := newCommitter(func(b *batch) error {
		for i := range b.ends {
			var w, n int
			if _, err := fmt.Sscanf(string(b.record(i)), "%d %d", &w, &n); err != nil {
				return err
			}
			if n != last[byte(w)]+1 {
				return fmt.Errorf("writer %d: record %d after %d", w, n, last[byte(w)])
			}
			last[byte(w)] = n
			total++
		}
		return nil
	})
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for n := range each {
				if err := c.submit(fmt.Appendf(nil, "%d %d", w, n+1)); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	c.close()
	if total != writers*each {
		t.Errorf("committed %d records, want %d", total, writers*each)
	}
	if err := c.submit([]byte("late")); !errors.Is(err, errClosed) {
		t.Errorf("submit after close: %v", err)
	}
}

func TestRawFileHoldsWhatWasAppended(t *testing.T) {
	dir := t.TempDir()
	if err := makeRecycled(dir); err != nil {
		t.Fatal(err)
	}
	r, err := openRecycled(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer r.f.Close()
	r.off = recycledBytes - 3
	for _, s := range []string{"abc", "defg"} { // the second wraps round
		if err := r.write([]byte(s)); err != nil {
			t.Fatal(err)
		}
	}
	got := make([]byte, 4)
	if _, err := r.f.ReadAt(got, 0); err != nil || string(got) != "defg" {
		t.Errorf("at the beginning: %q, %v", got, err)
	}
	info, err := r.f.Stat()
	if err != nil || info.Size() != recycledBytes {
		t.Errorf("size %v, %v", info.Size(), err)
	}
}

func TestStatistics(t *testing.T) {
	for _, c := range []struct {
		name      string
		got, want float64
	}{
		{"median of none", median(nil), 0},
		{"odd median", median([]float64{3, 1, 2}), 2},
		{"even median", median([]float64{4, 1, 2, 3}), 2.5},
		{"ratio of throughputs", pairwiseRatio([]float64{5, 8, 9}, []float64{10, 10, 10}, false), 0.8},
		{"ratio of times", pairwiseRatio([]float64{20, 20}, []float64{10, 10}, true), 0.5},
		{"four digits", rounded(123456), 123500},
		{"four digits of a fraction", rounded(0.123456), 0.1235},
	} {
		if c.got != c.want {
			t.Errorf("%s: %v, want %v", c.name, c.got, c.want)
		}
	}
}

func TestMemoryFileSystemsAreRefused(t *testing.T) {
	if m, err := fileSystem("/dev/shm"); err != nil || m.fsType != "tmpfs" {
		t.Skip("no tmpfs at /dev/shm")
	}
	err := run(t.Context(), []string{"-dir", "/dev/shm", "-run", "memory-scan", "-time", "1ms", "-count", "1"}, &bytes.Buffer{}, os.Stderr)
	if err == nil {
		t.Error("a run in memory was accepted")
	}
}

func TestBadFlagsAreRefused(t *testing.T) {
	for _, args := range [][]string{{"-o", "xml"}, {"-count", "0"}, {"-time", "0s"}, {"extra"}, {"-run", "["}, {"-run", "no-such-row"}} {
		if err := run(t.Context(), args, &bytes.Buffer{}, &bytes.Buffer{}); err == nil {
			t.Errorf("%v was accepted", args)
		}
	}
}
