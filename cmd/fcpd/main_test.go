package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"io"
	mrand "math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"fcp/authority"
	"fcp/cmd/internal/exitcode"
	"fcp/engine"
	"fcp/node/api"
	"fcp/node/tailnet/tailnettest"
)

// TestMain makes the test binary a daemon when it is told to be one.
func TestMain(m *testing.M) {
	if os.Getenv("FCPD_TEST_PROCESS") != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

// daemon is a real process.
type process struct {
	cmd    *exec.Cmd
	socket string
	client *api.Client
	log    bytes.Buffer
}

func start(t *testing.T, dir string, args ...string) *process {
	t.Helper()
	socket := filepath.Join(dir, "sock")
	d := &process{socket: socket, client: api.NewClient(socket)}
	d.cmd = exec.Command(os.Args[0], append([]string{"--dir", filepath.Join(dir, "store"), "--socket", socket}, args...)...)
	d.cmd.Env = append(os.Environ(), "FCPD_TEST_PROCESS=1")
	d.cmd.Stderr = &d.log
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if d.cmd.ProcessState == nil {
			d.cmd.Process.Kill()
			d.cmd.Wait()
		}
	})
	return d
}

func (d *process) store(t *testing.T) *api.Remote {
	t.Helper()
	r, err := api.Dial(context.Background(), d.socket)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func (d *process) until(t *testing.T, what string, ok func(api.Status) bool) api.Status {
	t.Helper()
	for end := time.Now().Add(2 * time.Minute); ; time.Sleep(5 * time.Millisecond) {
		st, err := d.client.Status(context.Background())
		if err == nil && ok(st) {
			return st
		}
		if time.Now().After(end) {
			t.Fatalf("it did not come to pass that %s: %+v, %v\n%s", what, st, err, d.log.Bytes())
		}
	}
}

// TestThreeProcessesAreOneStore is the mesh with real processes: what the first
// wrote the third reads after the first was killed.
func TestThreeProcessesAreOneStore(t *testing.T) {
	t.Run("loopback", func(t *testing.T) {
		var first api.Status
		threeProcesses(t, func(i int) []string {
			if i == 0 {
				return nil
			}
			return []string{"--peer", first.Address}
		}, func(st api.Status) { first = st })
	})
	t.Run("tailnet", func(t *testing.T) {
		c := tailnettest.Oneself(tailnettest.Control(t))
		for _, name := range tailnettest.Environment {
			t.Setenv(name, "true")
		}
		key := filepath.Join(t.TempDir(), "key")
		if err := os.WriteFile(key, []byte("tskey-auth-test\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		// Nobody is told where the others are.
		threeProcesses(t, func(i int) []string {
			return []string{"--tailnet", fmt.Sprint("n", i+1), "--tailnet-key", key, "--tailnet-control", tailnettest.URL(c)}
		}, func(api.Status) {})
	})
}

func threeProcesses(t *testing.T, flags func(i int) []string, began func(first api.Status)) {
	ctx := context.Background()
	root := t.TempDir()
	dir := func(i int) string { return filepath.Join(root, fmt.Sprint(i)) }
	owner, err := authority.NewOwnerKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	prepare(t, owner, dir)
	first := start(t, dir(0), flags(0)...)
	began(first.until(t, "the first is ready", func(api.Status) bool { return true }))
	var others []*process
	for i := 1; i < 3; i++ {
		others = append(others, start(t, dir(i), append(flags(i), "--enrollment", filepath.Join(dir(i), "enrollment"))...))
	}
	all := func(st api.Status) bool { return st.Coverage.Members == 3 }
	first.until(t, "all have met", all)
	for _, d := range others {
		d.until(t, "all have met", all)
	}
	body := make([]byte, 3<<20)
	mrand.NewChaCha8([32]byte{1}).Read(body)
	if _, err := first.store(t).Put(ctx, engine.PutRequest{Key: "film", Body: bytes.NewReader(body)}); err != nil {
		t.Fatal(err)
	}
	first.until(t, "its segments are spread", func(st api.Status) bool { return st.Segments >= 3 && st.Missing == 0 })
	if err := first.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	first.cmd.Wait()
	for i, d := range others {
		r, err := d.store(t).Get(ctx, engine.GetRequest{Key: "film"})
		if err != nil {
			t.Fatalf("process %d: %v\n%s", i+2, err, d.log.Bytes())
		}
		got, err := io.ReadAll(r)
		r.Close()
		if err != nil || !bytes.Equal(got, body) {
			t.Fatalf("process %d reads %d bytes: %v\n%s", i+2, len(got), err, d.log.Bytes())
		}
	}
	for i, d := range others {
		if err := d.cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		if err := d.cmd.Wait(); err != nil {
			t.Errorf("process %d ends with %v\n%s", i+2, err, d.log.Bytes())
		}
	}
}

// prepare makes a store and enrolls two more devices into it.
func prepare(t *testing.T, owner *authority.OwnerKey, dir func(int) string) {
	t.Helper()
	ctx := context.Background()
	ok := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for i := range 3 {
		ok(os.MkdirAll(dir(i), 0o700))
	}
	store := filepath.Join(dir(0), "store")
	_, err := engine.Init(ctx, store, engine.InitOptions{Owner: owner})
	ok(err)
	e, err := engine.Open(ctx, store, engine.Options{})
	ok(err)
	defer func() { ok(e.Close()) }()
	genesis, err := e.GenesisBytes()
	ok(err)
	for i := 1; i < 3; i++ {
		keys, err := authority.NewNodeKeys(rand.Reader)
		ok(err)
		manifests, err := e.Enroll(ctx, engine.EnrollOptions{Owner: owner, Node: keys.Public(), Name: fmt.Sprint("device ", i+1)})
		ok(err)
		ok(engine.Join(ctx, filepath.Join(dir(i), "store"), engine.JoinOptions{Node: keys, Genesis: genesis, Manifests: manifests}))
		members, err := e.Members()
		ok(err)
		for _, m := range members {
			if m.Writer == keys.Writer() {
				ok(os.WriteFile(filepath.Join(dir(i), "enrollment"), m.Proof, 0o600))
			}
		}
	}
}

// TestExitCodesAreThoseOfFcpctl: who starts it tells by them why it ended.
func TestExitCodesAreThoseOfFcpctl(t *testing.T) {
	for name, c := range map[string]struct {
		args []string
		want int
	}{
		"no store":     {nil, exitcode.NotHere},
		"usage":        {[]string{"--nope"}, exitcode.Usage},
		"an argument":  {[]string{"argument"}, exitcode.Usage},
		"bad hook":     {[]string{"--on-arrival", "relative"}, exitcode.Invalid},
		"no directory": {[]string{"--dir", ""}, exitcode.Invalid},
	} {
		t.Run(name, func(t *testing.T) {
			d := start(t, t.TempDir(), c.args...)
			if err := d.cmd.Wait(); d.cmd.ProcessState.ExitCode() != c.want {
				t.Errorf("%v, want exit code %d; it said %s", err, c.want, d.log.String())
			}
		})
	}
}
