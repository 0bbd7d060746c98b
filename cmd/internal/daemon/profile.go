package daemon

import (
	"bufio"
	"io/fs"
	"os"
	"path"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"

	"fcp/node"
)

// Where Linux says what a device is powered by (Documentation/ABI/testing/sysfs-class-power)
// and how much memory it has (proc_meminfo(5)).
const (
	powerSupplies = "sys/class/power_supply"
	memoryInfo    = "proc/meminfo"
	maxSupplies   = 16
)

// profileOf reads what a device is from a file system with /sys and /proc. What cannot
// be read is not said.
func profileOf(system fs.FS, metered bool) node.Profile {
	p := node.Profile{Cores: uint64(runtime.NumCPU()), Metered: metered}
	entries, err := fs.ReadDir(system, powerSupplies)
	if err != nil {
		entries = nil
	}
	mains, online, battery := false, false, false
	for _, e := range entries[:min(len(entries), maxSupplies)] {
		read := func(name string) string {
			b, err := fs.ReadFile(system, path.Join(powerSupplies, e.Name(), name))
			if err != nil || len(b) > 64 {
				return ""
			}
			return strings.TrimSpace(string(b))
		}
		switch kind := read("type"); {
		case kind == "Battery" && read("scope") != "Device": // not that of a mouse
			if n, err := strconv.ParseUint(read("capacity"), 10, 8); err == nil && n <= 100 {
				battery, p.Charge = true, n
			}
		case kind == "Mains" || kind == "USB":
			mains = true
			online = online || read("online") == "1"
		}
	}
	switch {
	case battery && !online:
		p.Power = node.PowerBattery
	case mains && online, battery:
		p.Power = node.PowerMains
	}
	if f, err := system.Open(memoryInfo); err == nil {
		defer f.Close()
		lines := bufio.NewScanner(f)
		for lines.Scan() {
			if words := strings.Fields(lines.Text()); len(words) == 3 && words[0] == "MemTotal:" && words[2] == "kB" {
				if kb, err := strconv.ParseUint(words[1], 10, 43); err == nil {
					p.Memory = kb << 10
				}
				break
			}
		}
	}
	return p
}

// profileEvery is how long what was read of the system counts.
const profileEvery = 10 * time.Second

// profiles reads the profile from time to time. Safe for concurrent use.
type profiles struct {
	now     func() time.Time
	metered bool

	mu   sync.Mutex
	last node.Profile // guarded by mu
	at   time.Time    // guarded by mu
}

func (p *profiles) get() node.Profile {
	p.mu.Lock()
	defer p.mu.Unlock()
	if now := p.now(); p.at.IsZero() || now.Sub(p.at) >= profileEvery || now.Before(p.at) {
		p.last, p.at = profileOf(os.DirFS("/"), p.metered), now
	}
	return p.last
}
