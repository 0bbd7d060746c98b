package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"fcp/node/tailnet/tailnettest"
)

// TestTourOverTailnet takes the tour of the mesh over a Tailscale network on loopback:
// the same steps as `fcpctl demo mesh`, with real processes that nobody tells where the
// others are.
func TestTourOverTailnet(t *testing.T) {
	c := tailnettest.Oneself(tailnettest.Control(t))
	for _, name := range tailnettest.Environment {
		t.Setenv(name, "true")
	}
	key := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(key, []byte("tskey-auth-test\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	temp := t.TempDir()
	t.Setenv("TMPDIR", temp) // where the demonstration works, so that no daemon is left whatever fails
	t.Cleanup(func() { endDaemons(t, temp) })
	var out, errs bytes.Buffer
	a := &app{stdin: strings.NewReader(""), stdout: &out, stderr: &errs, now: time.Now, lookupEnv: os.LookupEnv,
		again: func(ctx context.Context, args ...string) (*exec.Cmd, error) {
			path, err := exec.LookPath(process)
			return exec.CommandContext(ctx, path, args...), err
		}}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute) // what the tour promises
	defer cancel()
	began := time.Now()
	exit := a.run(ctx, []string{"demo", "mesh", "-o", "ndjson", "--tailnet", "n1", "--tailnet-key", key, "--tailnet-control", tailnettest.URL(c)})
	if exit != exitOK {
		t.Fatalf("exit code %d after %v\n%s\n%s", exit, time.Since(began), &out, &errs)
	}
	steps, addresses := 0, 0
	for line := range strings.Lines(out.String()) {
		var s stepView
		if err := json.Unmarshal([]byte(line), &s); err != nil {
			t.Fatal(err)
		}
		steps++
		for _, f := range s.Facts {
			if strings.Contains(f, " on 100.64.") { // the addresses of a tailnet
				addresses++
			}
		}
	}
	if steps != 14 || addresses != 3 {
		t.Errorf("%d steps, %d nodes with an address in the tailnet\n%s", steps, addresses, &out)
	}
	t.Logf("%d steps in %v", steps, time.Since(began))
}
