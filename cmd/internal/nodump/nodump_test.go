//go:build linux

package nodump

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const child = "FCP_NODUMP_TEST_CHILD"

// TestMain makes the test binary a process with a secret when it is told to be one.
func TestMain(m *testing.M) {
	if os.Getenv(child) == "" {
		os.Exit(m.Run())
	}
	secret := []byte(strings.Repeat("canary in memory ", 4))
	if err := Protect(); err != nil {
		os.Exit(3)
	}
	dumpable, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0)
	if err != nil || dumpable != 0 {
		os.Exit(4)
	}
	b, err := os.ReadFile("/proc/self/limits")
	if err != nil {
		os.Exit(5)
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); strings.HasPrefix(line, "Max core file size") && (f[4] != "0" || f[5] != "0") {
			os.Exit(6)
		}
	}
	os.Stdout.WriteString("ready\n")
	time.Sleep(time.Minute)
	runtime.KeepAlive(secret)
}

// TestACrashLeavesNoMemoryBehind ends a protected process with the signal that asks
// for a core file and for the stacks: no file is there, and the stacks hold addresses
// and no contents.
func TestACrashLeavesNoMemoryBehind(t *testing.T) {
	dir := t.TempDir()
	cmd := exec.Command(os.Args[0])
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), child+"=1", "GOTRACEBACK=crash")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line := make([]byte, 6)
	if _, err := out.Read(line); err != nil || string(line) != "ready\n" {
		cmd.Wait()
		t.Fatalf("%q: %v, %v", line, err, cmd.ProcessState)
	}
	if err := cmd.Process.Signal(unix.SIGQUIT); err != nil {
		t.Fatal(err)
	}
	cmd.Wait()
	if cmd.ProcessState.Success() {
		t.Fatal("it did not crash")
	}
	if status, ok := cmd.ProcessState.Sys().(interface{ CoreDump() bool }); ok && status.CoreDump() {
		t.Error("the system wrote a core")
	}
	if files, err := filepath.Glob(filepath.Join(dir, "*")); err != nil || len(files) > 0 {
		t.Errorf("left behind: %v %v", files, err)
	}
	if !bytes.Contains(stderr.Bytes(), []byte("goroutine ")) || bytes.Contains(stderr.Bytes(), []byte("canary in memory")) {
		t.Errorf("the stacks:\n%s", stderr.Bytes())
	}
}
