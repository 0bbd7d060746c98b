package daemon

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"testing/fstest"
	"time"

	"fcp"
	"fcp/node"
	"fcp/node/placement"
)

func script(t *testing.T, text string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "hook")
	if err := os.WriteFile(name, []byte("#!/bin/sh\n"+text+"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	return name
}

// TestHooksRunAProgramAndNoShell: what devices are called is data, whatever it is; the
// program has nothing of the daemon's own environment.
func TestHooksRunAProgramAndNoShell(t *testing.T) {
	dir := t.TempDir()
	out := filepath.Join(dir, "out")
	t.Setenv("FCP_PASSPHRASE", "canary")
	name := "x; touch " + filepath.Join(dir, "owned") + " $(touch " + filepath.Join(dir, "owned") + ")"
	h := newHookRunner(Hooks{Arrival: script(t, `env > "`+out+`"`)}, slog.New(slog.DiscardHandler), os.LookupEnv)
	at := time.Unix(1e9, 0)
	c := node.Contact{Writer: fcp.WriterID{1}, Name: name, Class: placement.Class("phone"), Site: "home"}
	h.runOne(context.Background(), &node.Turn{Contact: c, Arrived: true, At: at})
	b, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(b), "\n")
	for _, want := range []string{"FCP_EVENT=arrival", "FCP_DEVICE=" + name, "FCP_DEVICE_ID=" + c.Writer.String(), "FCP_CLASS=phone", "FCP_SITE=home", "FCP_TIME=2001-09-09T01:46:40Z"} {
		if !slices.Contains(lines, want) {
			t.Errorf("%q is not in\n%s", want, b)
		}
	}
	if strings.Contains(string(b), "canary") {
		t.Error("the hook has the daemon's environment")
	}
	if _, err := os.Stat(filepath.Join(dir, "owned")); err == nil {
		t.Error("a name was run")
	}
}

// TestHooksAreBounded: none runs unasked, one that hangs is ended, and what is too much
// is left out.
func TestHooksAreBounded(t *testing.T) {
	var said strings.Builder
	child := filepath.Join(t.TempDir(), "child")
	h := newHookRunner(Hooks{Departure: script(t, "sleep 1000 & echo $! >"+child+"; wait")}, slog.New(slog.NewTextHandler(&said, nil)), os.LookupEnv)
	h.timeout = 500 * time.Millisecond
	turn := node.Turn{Contact: node.Contact{Name: "a"}}
	h.runOne(context.Background(), &turn)
	if !strings.Contains(said.String(), "took too long") {
		t.Error("a hook that hangs:", said.String())
	}
	if b, err := os.ReadFile(child); err == nil && len(b) > 0 { // else it did not come so far
		pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
		if err != nil {
			t.Fatal(err)
		}
		for end := time.Now().Add(time.Minute); alive(pid); time.Sleep(10 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatal("what the hook started still runs")
			}
		}
	}
	arrived := turn
	arrived.Arrived = true
	h.tell([]node.Turn{arrived})
	if len(h.queue) != 0 {
		t.Error("a hook runs that was not named")
	}
	for range hookQueue + 1 {
		h.tell([]node.Turn{turn})
	}
	if len(h.queue) != hookQueue || !strings.Contains(said.String(), "too many wait") {
		t.Error(len(h.queue), "hooks wait")
	}
	if (&Hooks{Arrival: "rm -rf /"}).check() == nil {
		t.Error("a command line is taken for a program")
	}
	data := filepath.Join(t.TempDir(), "data")
	if err := os.WriteFile(data, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{data, data + ".missing", filepath.Dir(data)} {
		if (&Hooks{Departure: p}).check() == nil {
			t.Errorf("%s is taken for a program", p)
		}
	}
	if err := (&Hooks{Arrival: script(t, "true")}).check(); err != nil {
		t.Error(err)
	}
	out := limited{most: 3}
	if n, err := out.Write([]byte("abcdef")); n != 6 || err != nil || out.String() != "abc" {
		t.Error(n, err, out.String())
	}
}

func TestProfilesAreRead(t *testing.T) {
	supply := func(files map[string]string) fstest.MapFS {
		m := fstest.MapFS{}
		for name, text := range files {
			m[name] = &fstest.MapFile{Data: []byte(text + "\n")}
		}
		return m
	}
	const at = powerSupplies + "/"
	laptop := map[string]string{at + "AC/type": "Mains", at + "AC/online": "0", at + "BAT0/type": "Battery", at + "BAT0/capacity": "73",
		at + "mouse/type": "Battery", at + "mouse/scope": "Device", at + "mouse/capacity": "5", memoryInfo: "MemTotal:       1024 kB"}
	if p := profileOf(supply(laptop), true); p.Power != node.PowerBattery || p.Charge != 73 || !p.Metered || p.Memory != 1<<20 || !p.Thrifty() {
		t.Errorf("a laptop on its battery: %+v", p)
	}
	laptop[at+"AC/online"] = "1"
	if p := profileOf(supply(laptop), false); p.Power != node.PowerMains || p.Charge != 73 || p.Thrifty() {
		t.Errorf("a laptop on mains: %+v", p)
	}
	if p := profileOf(supply(nil), false); p.Power != "" || p.Charge != 0 || p.Memory != 0 || p.Cores == 0 || p.Thrifty() {
		t.Errorf("a device that cannot tell: %+v", p)
	}
	for _, bad := range []string{"101", "-1", "x", strings.Repeat("1", 100)} {
		if p := profileOf(supply(map[string]string{at + "B/type": "Battery", at + "B/capacity": bad, memoryInfo: "MemTotal: " + bad + " kB x"}), false); p.Charge != 0 || p.Power != "" {
			t.Errorf("a charge of %s: %+v", bad, p)
		}
	}
}

// alive reports whether a process runs; one that waits to be reaped does not.
func alive(pid int) bool {
	if syscall.Kill(pid, 0) != nil {
		return false
	}
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err != nil || !strings.Contains(string(b), ") Z ")
}
