package blob_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"fcp"
	"fcp/engine/blob"
	"fcp/engine/blob/blobtest"
)

// Credentials of the server that the tests start.
const (
	testAccess = "fcp-test"
	testSecret = "only-for-tests"
)

// s3Server starts a real S3 server, versitygw over a temporary directory, as a
// process of its own and returns its address and the directory of its bucket.
// FCP_S3_SERVER is its executable; CI builds it (.ci/run), and there it must be.
func s3Server(t *testing.T) (endpoint, dir string) {
	t.Helper()
	path := os.Getenv("FCP_S3_SERVER")
	if path == "" {
		if os.Getenv("CI") != "" {
			t.Fatal("FCP_S3_SERVER must name the S3 server in CI")
		}
		t.Skip("did not run: FCP_S3_SERVER names no S3 server; .ci/run builds one")
	}
	root := t.TempDir()
	dir = filepath.Join(root, "bucket")
	meta := t.TempDir()
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	endpoint = l.Addr().String()
	l.Close()
	cmd := exec.Command(path, "--port", endpoint, "--quiet", "posix", "--sidecar", meta, root)
	cmd.Env = append(os.Environ(), "ROOT_ACCESS_KEY="+testAccess, "ROOT_SECRET_KEY="+testSecret)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		c, err := net.Dial("tcp", endpoint)
		if err == nil {
			c.Close()
			return endpoint, dir
		}
		if time.Now().After(deadline) {
			t.Fatalf("the S3 server does not answer: %v\n%s", err, &out)
		}
	}
}

func openS3(t *testing.T, endpoint, prefix string) *blob.S3 {
	t.Helper()
	s, err := blob.NewS3(blob.S3Config{Endpoint: endpoint, Insecure: true, Region: "us-east-1", Bucket: "bucket", Prefix: prefix,
		AccessKey: testAccess, SecretKey: testSecret, Owner: "the test", Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestS3KeepsTheContract(t *testing.T) {
	endpoint, _ := s3Server(t)
	n := 0
	blobtest.Run(t, func(t *testing.T) blob.Store {
		n++
		return openS3(t, endpoint, fmt.Sprintf("stores/%d/", n))
	})
}

func TestS3LongBlobs(t *testing.T) {
	endpoint, _ := s3Server(t)
	s := openS3(t, endpoint, "")
	for _, size := range []int{8 << 20, 8<<20 + 1, 33<<20 + 5} {
		data := bytes.Repeat([]byte("0123456789abcde"), size/15+1)[:size]
		name := fmt.Sprintf("long/%d", size)
		if n, err := s.Put(t.Context(), name, bytes.NewReader(data)); err != nil || n != int64(size) {
			t.Fatalf("%d bytes: %d %v", size, n, err)
		}
		if got, err := blob.ReadAll(t.Context(), s, name, 1<<30); err != nil || !bytes.Equal(got, data) {
			t.Errorf("%d bytes come back different: %v", size, err)
		}
	}
}

func TestS3LockIsHeldByOne(t *testing.T) {
	endpoint, _ := s3Server(t)
	var got, refused int
	var mu sync.Mutex
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			_, err := openS3(t, endpoint, "x/").Lock(t.Context())
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil:
				got++
			case errors.Is(err, fcp.CodeLocked):
				refused++
			default:
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if got != 1 || refused != 7 {
		t.Errorf("%d got the lock, %d were refused", got, refused)
	}
	s := openS3(t, endpoint, "x/")
	_, err := s.Lock(t.Context())
	if !errors.Is(err, fcp.CodeLocked) || !strings.Contains(err.Error(), "the test since 2") {
		t.Errorf("the holder is not named: %v", err)
	}
	if err := s.List(t.Context(), "", func(i blob.Info) error { return fmt.Errorf("%s is listed", i.Name) }); err != nil {
		t.Error(err)
	}
	if err := s.BreakLock(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	l, err := s.Lock(ctx)
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := l.Close(); err != nil {
		t.Error("an interrupted writer does not give the lock back:", err)
	}
	if l, err = s.Lock(t.Context()); err != nil {
		t.Fatal(err)
	}
	l.Close()
}

func TestS3FailuresHaveTheirCodes(t *testing.T) {
	endpoint, _ := s3Server(t)
	c := blob.S3Config{Endpoint: endpoint, Insecure: true, Region: "us-east-1", Bucket: "bucket", AccessKey: testAccess, SecretKey: testSecret}
	for what, x := range map[string]struct {
		change func(*blob.S3Config)
		code   fcp.Code
	}{
		"wrong secret": {func(c *blob.S3Config) { c.SecretKey = "another" }, fcp.CodeUnauthorized},
		"no keys":      {func(c *blob.S3Config) { c.AccessKey, c.SecretKey = "", "" }, fcp.CodeUnauthorized},
		"no bucket":    {func(c *blob.S3Config) { c.Bucket = "nothing" }, fcp.CodeNotFound},
		"nobody":       {func(c *blob.S3Config) { c.Endpoint = "127.0.0.1:1" }, fcp.CodeTimeout},
	} {
		d := c
		x.change(&d)
		s, err := blob.NewS3(d)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		_, err = s.Put(ctx, "a", strings.NewReader("x"))
		if what != "no bucket" && fcp.CodeOf(err) != x.code || err == nil {
			t.Errorf("%s: put: %v", what, err)
		}
		if err := s.List(ctx, "", func(blob.Info) error { return nil }); fcp.CodeOf(err) != x.code {
			t.Errorf("%s: list: %v", what, err)
		}
		cancel()
	}
	s, err := blob.NewS3(c)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Stat(t.Context(), "a"); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}

func TestS3Addresses(t *testing.T) {
	for in, want := range map[string]string{
		"s3://bkt":     "https s3.amazonaws.com bkt  ",
		"s3://bkt/":    "https s3.amazonaws.com bkt  ",
		"s3://bkt/x/y": "https s3.amazonaws.com bkt x/y/ ",
		"s3://bkt/x?endpoint=http://127.0.0.1:9000": "http 127.0.0.1:9000 bkt x/ ",
		"s3://bkt?region=eu-1&endpoint=https://h/":  "https h bkt  eu-1",
	} {
		c, err := blob.ParseS3URL(in, "")
		got := fmt.Sprintf("https %s %s %s %s", c.Endpoint, c.Bucket, c.Prefix, c.Region)
		if c.Insecure {
			got = "http" + got[5:]
		}
		if err != nil || got != want {
			t.Errorf("%s: %q, %v; want %q", in, got, err, want)
		}
	}
	if c, err := blob.ParseS3URL("s3://bkt", "http://h:1"); err != nil || c.Endpoint != "h:1" || !c.Insecure {
		t.Errorf("%+v %v", c, err)
	}
	for _, in := range []string{"", "s3:", "s3://", "s3:///x", "http://b/x", "s3://u:p@bkt/x", "s3://bkt/../x", "s3://bkt/A", "s3://bkt?endpoint=ftp://h",
		"s3://bkt?endpoint=http://h/path", "s3://bkt?endpoint=http://a&endpoint=http://b", "s3://bkt?acl=public", "s3://bkt#x", "s3://bkt:80", "s3://b", "s3://bb/x", "s3://" + strings.Repeat("b", 64)} {
		if _, err := blob.ParseS3URL(in, ""); !errors.Is(err, fcp.CodeInvalidArgument) {
			t.Errorf("%s: %v", in, err)
		}
	}
}

func FuzzS3URL(f *testing.F) {
	f.Add("s3://bucket/prefix?endpoint=http://127.0.0.1:9000&region=x", "https://h")
	f.Fuzz(func(t *testing.T, text, endpoint string) {
		c, err := blob.ParseS3URL(text, endpoint)
		if err == nil && (c.Bucket == "" || c.Endpoint == "" || c.Prefix != "" && blob.CheckName(strings.TrimSuffix(c.Prefix, "/")) != nil) {
			t.Errorf("%q gives %+v", text, c)
		}
	})
}
