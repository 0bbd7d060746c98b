package api

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"path/filepath"
	"testing"
	"time"

	"fcp"
	"fcp/engine"
)

// TestADaemonThatDies: a call that sent all it had, and would wait for the daemon's turn
// before it sends more, ends when the daemon does; so does one that waits for a loan.
func TestADaemonThatDies(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() { // reads what comes first, and dies
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				c.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
				_, _ = io.Copy(io.Discard, c)
			}()
		}
	}()
	r := &Remote{client: NewClient(socket)}
	for name, call := range map[string]func() error{
		"put": func() error {
			_, err := r.Put(ctx, engine.PutRequest{Zone: fcp.ZonePrivate, Key: "k", Body: bytes.NewReader([]byte("all of it"))})
			return err
		},
		"borrow": func() error { _, err := r.client.Borrow(ctx, "a test"); return err },
		"status": func() error { _, err := r.client.Status(ctx); return err },
	} {
		ended := make(chan error, 1)
		go func() { ended <- call() }()
		select {
		case err := <-ended:
			if !errors.Is(err, fcp.CodeDependency) {
				t.Errorf("%s: %v", name, err)
			}
		case <-time.After(30 * time.Second):
			t.Errorf("%s waits for a daemon that is gone", name)
		}
	}
}
