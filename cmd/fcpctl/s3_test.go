package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// scriptCondition knows [s3]: a real S3 server can be started. In CI it must be.
func scriptCondition(cond string) (bool, error) {
	if cond != "s3" {
		return false, fmt.Errorf("unknown condition %q", cond)
	}
	there := os.Getenv("FCP_S3_SERVER") != ""
	if !there && os.Getenv("CI") != "" {
		return false, fmt.Errorf("FCP_S3_SERVER must name the S3 server in CI")
	}
	return there, nil
}

// scriptS3Server starts the S3 server as engine/blob's tests do, over the folder
// bucket of the script's directory.
func scriptS3Server(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: s3server VAR")
	}
	root := ts.MkAbs("bucket")
	meta := ts.MkAbs("meta")
	ts.Check(os.MkdirAll(filepath.Join(root, "bucket"), 0o755))
	ts.Check(os.MkdirAll(meta, 0o755))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
	address := l.Addr().String()
	ts.Check(l.Close())
	cmd := exec.Command(os.Getenv("FCP_S3_SERVER"), "--port", address, "--quiet", "posix", "--sidecar", meta, root)
	cmd.Env = append(os.Environ(), "ROOT_ACCESS_KEY=fcp-test", "ROOT_SECRET_KEY=only-for-tests")
	ts.Check(cmd.Start())
	ts.Defer(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		c, err := net.Dial("tcp", address)
		if err == nil {
			c.Close()
			break
		}
		if time.Now().After(deadline) {
			ts.Fatalf("the S3 server does not answer: %v", err)
		}
	}
	ts.Setenv(args[0], address)
}
