package daemon

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"

	"fcp"
)

func TestLogsAreRedacted(t *testing.T) {
	var b bytes.Buffer
	l := newLogger(&b, false)
	l.Info("x", "passphrase", "hunter2", "holder_token", []byte("abc"), "peer", "n1", "raw", []byte("payload"), "long", strings.Repeat("y", 10<<10))
	l.Debug("not shown")
	var line map[string]any
	if err := json.Unmarshal(b.Bytes(), &line); err != nil {
		t.Fatalf("%s: %v", b.Bytes(), err)
	}
	if line["passphrase"] != "(redacted)" || line["holder_token"] != "(redacted)" || line["peer"] != "n1" || line["raw_bytes"] != 7.0 || len(line["long"].(string)) > maxLogged+3 {
		t.Errorf("%v", line)
	}
}

func TestHintsComeBack(t *testing.T) {
	dir := t.TempDir()
	if h, err := LoadHints(dir); err != nil || !reflect.DeepEqual(h, &Hints{}) {
		t.Fatal(h, err)
	}
	want := &Hints{Listen: "127.0.0.1:1", Peers: []string{"a"}, Policy: "any-2-of-3", Enrollment: []byte{1}, Members: [][]byte{{2}}, Nodes: []LocalNode{{"n1", dir}}}
	if err := want.Save(dir); err != nil {
		t.Fatal(err)
	}
	if got, err := LoadHints(dir); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, %v", got, err)
	}
	for _, s := range []string{"", "{", `{"x":1}`, "[]", strings.Repeat(" ", maxHints+1)} {
		if err := os.WriteFile(filepath.Join(dir, hintsFile), []byte(s), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := LoadHints(dir); !errors.Is(err, fcp.CodeMalformed) {
			t.Errorf("%.10q: %v", s, err)
		}
	}
}

// TestOnlyALivingDaemonCounts: a number that was left behind is not a daemon, and
// one's own lock is not seen by oneself (fcntl(2)), so another process holds it.
func TestOnlyALivingDaemonCounts(t *testing.T) {
	dir := t.TempDir()
	if pid, err := Process(dir); pid != 0 || err != nil {
		t.Fatal(pid, err)
	}
	if err := os.WriteFile(filepath.Join(dir, pidFile), []byte("1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if pid, err := Process(dir); pid != 0 || err != nil {
		t.Error("a stale number counts:", pid, err)
	}
	f, err := lockPid(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	l := syscall.Flock_t{Type: syscall.F_UNLCK, Whence: io.SeekStart}
	if err := syscall.FcntlFlock(f.Fd(), syscall.F_SETLK, &l); err != nil {
		t.Fatal(err)
	}
	if _, err := lockPid(filepath.Join(dir, "none")); !errors.Is(err, fcp.CodeNoStore) {
		t.Error("no store:", err)
	}
}
