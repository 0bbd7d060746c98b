package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/metrics"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Machine says where a record was measured.
type Machine struct {
	CPU        string `json:"cpu"`
	Cores      int    `json:"cores"`
	GoMaxProcs int    `json:"gomaxprocs"`
	MemoryMiB  uint64 `json:"memory_mib"`
	Go         string `json:"go"`
	OS         string `json:"os"`
	Kernel     string `json:"kernel"`
	FS         string `json:"fs"`     // type of the file system worked on
	Device     string `json:"device"` // and what it is mounted from

	number string // major:minor of the device, as in /sys/dev/block
}

func (m Machine) String() string {
	return fmt.Sprintf("%s, %d cores, %d MiB, %s, %s %s, %s on %s",
		m.CPU, m.Cores, m.MemoryMiB, m.Go, m.OS, m.Kernel, m.FS, m.Device)
}

// describe the machine, and the file system that holds dir.
func describe(dir string) (Machine, error) {
	m := Machine{
		CPU: cpuModel(), Cores: runtime.NumCPU(), GoMaxProcs: runtime.GOMAXPROCS(0),
		Go: runtime.Version(), OS: runtime.GOOS + "/" + runtime.GOARCH,
	}
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return m, fmt.Errorf("ask for the memory size: %w", err)
	}
	m.MemoryMiB = info.Totalram * uint64(info.Unit) >> 20
	var uts unix.Utsname
	if err := unix.Uname(&uts); err != nil {
		return m, fmt.Errorf("ask for the kernel: %w", err)
	}
	m.Kernel = string(bytes.TrimRight(uts.Release[:], "\x00"))
	mounted, err := fileSystem(dir)
	m.FS, m.Device, m.number = mounted.fsType, mounted.source, mounted.number
	return m, err
}

func cpuModel() string {
	text, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return "unknown"
	}
	for line := range strings.Lines(string(text)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return "unknown"
}

// mount is one line of /proc/self/mountinfo.
type mount struct{ number, point, fsType, source string }

// fileSystem finds the mount that holds dir: of those whose mount point is
// above it the longest, and of equals the last, which hides the others.
func fileSystem(dir string) (mount, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return mount{}, err
	}
	if dir, err = filepath.EvalSymlinks(dir); err != nil {
		return mount{}, err
	}
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return mount{}, err
	}
	var best mount
	for line := range strings.Lines(string(text)) {
		m, ok := parseMount(line)
		if ok && under(dir, m.point) && len(m.point) >= len(best.point) {
			best = m
		}
	}
	if best.point == "" {
		return mount{}, fmt.Errorf("no mount holds %s", dir)
	}
	return best, nil
}

// parseMount reads a line as proc(5) lays it out: the third field is the device
// number, the fifth the mount point; after " - " come type and source.
func parseMount(line string) (mount, bool) {
	left, right, _ := strings.Cut(line, " - ")
	before, after := strings.Fields(left), strings.Fields(right)
	if len(before) < 5 || len(after) < 2 {
		return mount{}, false
	}
	return mount{number: before[2], point: before[4], fsType: after[0], source: after[1]}, true
}

func under(dir, point string) bool {
	return point == "/" || dir == point || strings.HasPrefix(dir, point+"/")
}

// load1 is the one-minute load average, a hint at how noisy a record is.
func load1() float64 {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return 0
	}
	first, _, _ := strings.Cut(string(text), " ")
	x, err := strconv.ParseFloat(first, 64)
	if err != nil {
		return 0
	}
	return x
}

// revision of the checkout, with a + if it has changes, empty if there is no
// git: a hint for kept results, not needed for measuring.
func revision(ctx context.Context) string {
	out, err := exec.CommandContext(ctx, "git", "describe", "--always", "--abbrev=12", "--exclude=*", "--dirty=+").Output()
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(out))
}

// usage is what the process consumed, either so far or between two moments.
type usage struct {
	cpu     time.Duration // user and system
	written int64         // by this process towards the disk, as the kernel counts it
	device  int64         // written to the disk by everybody; 0 where there is no such counter
	peakRSS int64         // highest since the measurement began
	allocs  int64         // objects allocated by this process
}

// startUsage resets the peak of the resident size and reads the counters.
func startUsage(device string) (usage, error) {
	// "5" resets the peak (proc(5), clear_refs). Where it is not allowed the
	// peak is that of the whole run.
	_ = os.WriteFile("/proc/self/clear_refs", []byte("5"), 0)
	return readUsage(device)
}

// since returns what was consumed since u was read.
func (u usage) since(device string) (usage, error) {
	now, err := readUsage(device)
	now.cpu -= u.cpu
	now.written -= u.written
	now.device -= u.device
	now.allocs -= u.allocs
	return now, err
}

func readUsage(device string) (usage, error) {
	var ru unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &ru); err != nil {
		return usage{}, fmt.Errorf("getrusage: %w", err)
	}
	u := usage{cpu: time.Duration(ru.Utime.Nano() + ru.Stime.Nano()), device: deviceWritten(device), allocs: allocated()}
	var err error
	if u.written, err = procField("/proc/self/io", "write_bytes:"); err != nil {
		return u, err
	}
	kib, err := procField("/proc/self/status", "VmHWM:")
	u.peakRSS = kib << 10
	return u, err
}

// allocated is the number of objects allocated so far on the heap.
func allocated() int64 {
	sample := []metrics.Sample{{Name: "/gc/heap/allocs:objects"}}
	metrics.Read(sample)
	return int64(sample[0].Value.Uint64())
}

// deviceWritten reads how much a block device has written: the seventh field of
// its stat file, in sectors of 512 bytes. Not every file system has a device.
func deviceWritten(number string) int64 {
	text, err := os.ReadFile("/sys/dev/block/" + number + "/stat")
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(text))
	if len(fields) < 7 {
		return 0
	}
	sectors, err := strconv.ParseInt(fields[6], 10, 64)
	if err != nil {
		return 0
	}
	return sectors * 512
}

// procField reads the number after name at the beginning of a line.
func procField(path, name string) (int64, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, name); ok {
			fields := strings.Fields(rest)
			if len(fields) == 0 {
				break
			}
			return strconv.ParseInt(fields[0], 10, 64)
		}
	}
	return 0, fmt.Errorf("%s has no %s", path, name)
}
