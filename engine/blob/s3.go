package blob

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"fcp"
)

// S3Config names a place in an S3-compatible object store and how to get in.
type S3Config struct {
	Endpoint string // host or host:port
	Insecure bool   // HTTP instead of HTTPS
	Region   string // "": asked of the server
	Bucket   string // must exist
	Prefix   string // in front of every name; "" or ends with '/'

	// AccessKey and SecretKey, or a credentials file in the form of AWS tools. With
	// none of them requests are anonymous.
	AccessKey, SecretKey, SessionToken string
	CredentialsFile, Profile           string

	// Transport is used instead of the default one; may be nil.
	Transport http.RoundTripper
	// Owner says who writes, for whom finds the lock.
	Owner string
	// Now is used for the lock's note.
	Now func() time.Time
}

// defaultS3 is where a bucket is when nothing else is said.
const defaultS3 = "https://s3.amazonaws.com"

// ParseS3URL reads s3://BUCKET[/PREFIX][?endpoint=URL&region=NAME]. The endpoint
// is an http or https URL without a path; endpoint is taken when the text has
// none, and then Amazon's. Errors: CodeInvalidArgument.
func ParseS3URL(text, endpoint string) (c S3Config, err error) {
	bad := func(why string) (S3Config, error) {
		return S3Config{}, fcp.Errorf(fcp.CodeInvalidArgument, "%.200q %s", text, why).
			WithNext("write s3://BUCKET/PREFIX, and ?endpoint=https://HOST behind it for another server than Amazon's")
	}
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "s3" || u.Host == "" || u.User != nil || u.Port() != "" || u.Fragment != "" {
		return bad("is no address of a bucket")
	}
	if len(u.Host) < 3 || len(u.Host) > 63 {
		return bad("names a bucket that has not 3 to 63 characters, as all have")
	}
	q := u.Query()
	for k, v := range q {
		if k != "endpoint" && k != "region" || len(v) != 1 {
			return bad("has a parameter other than one endpoint and one region")
		}
	}
	c = S3Config{Bucket: u.Host, Prefix: strings.Trim(u.Path, "/"), Region: q.Get("region")}
	if c.Prefix != "" {
		if CheckName(c.Prefix) != nil {
			return bad("has a prefix with other characters than a-z 0-9 . _ - in its parts")
		}
		c.Prefix += "/"
	}
	for _, e := range []string{q.Get("endpoint"), endpoint, defaultS3} {
		if e == "" {
			continue
		}
		at, err := url.Parse(e)
		if err != nil || at.Scheme != "https" && at.Scheme != "http" || at.Host == "" || at.User != nil || strings.Trim(at.Path, "/") != "" || at.RawQuery != "" {
			return bad("has an endpoint that is no http or https URL of a host")
		}
		c.Endpoint, c.Insecure = at.Host, at.Scheme == "http"
		return c, nil
	}
	return c, nil
}

// S3 is a Store in a bucket. A blob is one object and becomes visible whole when
// the server acknowledges it, which is also when it is durable. A name that is
// taken is found by asking, and on servers with conditional writes also by the
// write itself (If-None-Match).
type S3 struct {
	core   minio.Core
	config S3Config

	mu   sync.Mutex
	busy map[string]bool // names being put; guarded by mu
}

// One request uploads a blob up to s3Whole bytes; longer ones are sent in parts
// of s3Part bytes, of which one is in memory, and 10,000 at most.
const (
	s3Whole = 8 << 20
	s3Part  = 16 << 20
	s3Lock  = ".lock" // no name, because it begins with a dot
)

// NewS3 returns the store. Nothing is sent before the first call.
func NewS3(c S3Config) (*S3, error) {
	creds := credentials.NewStaticV4(c.AccessKey, c.SecretKey, c.SessionToken)
	switch {
	case c.AccessKey == "" && c.CredentialsFile != "":
		creds = credentials.NewFileAWSCredentials(c.CredentialsFile, c.Profile)
	case c.AccessKey == "":
		creds = credentials.NewStatic("", "", "", credentials.SignatureAnonymous)
	}
	client, err := minio.New(c.Endpoint, &minio.Options{Creds: creds, Secure: !c.Insecure, Region: c.Region, Transport: c.Transport})
	if err != nil {
		return nil, fcp.Wrap(fcp.CodeInvalidArgument, err, "the object store %s", c.Endpoint)
	}
	return &S3{core: minio.Core{Client: client}, config: c, busy: map[string]bool{}}, nil
}

func (s *S3) key(name string) string { return s.config.Prefix + name }

// String names the place without credentials.
func (s *S3) String() string { return "s3://" + s.config.Bucket + "/" + s.config.Prefix }

// Put implements Store.
func (s *S3) Put(ctx context.Context, name string, r io.Reader) (size int64, err error) {
	if err := CheckName(name); err != nil {
		return 0, err
	}
	if !s.begin(name) {
		return 0, exists(name)
	}
	defer s.end(name)
	switch _, err := s.Stat(ctx, name); {
	case err == nil:
		return 0, exists(name)
	case !errors.Is(err, fs.ErrNotExist):
		return 0, err
	}
	head := new(bytes.Buffer)
	n, err := io.CopyN(head, &sourceReader{ctx, r}, s3Whole+1)
	switch {
	case err == io.EOF:
		return s.send(ctx, name, bytes.NewReader(head.Bytes()), n)
	case ctx.Err() != nil:
		return 0, ctxError(ctx)
	case err != nil:
		return 0, fcp.Wrap(fcp.CodeDisk, err, "read what is to be stored")
	}
	return s.send(ctx, name, io.MultiReader(head, &sourceReader{ctx, r}), -1)
}

// send uploads one object; size -1 is a long one.
func (s *S3) send(ctx context.Context, name string, r io.Reader, size int64) (int64, error) {
	o := minio.PutObjectOptions{ContentType: "application/octet-stream", SendContentMd5: true, PartSize: s3Part}
	if size >= 0 {
		o.SetMatchETagExcept("*")
	}
	info, err := s.core.Client.PutObject(ctx, s.config.Bucket, s.key(name), r, size, o)
	if err != nil {
		return 0, s.wrap(ctx, err, "write", name)
	}
	return info.Size, nil
}

func (s *S3) begin(name string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.busy[name] {
		return false
	}
	s.busy[name] = true
	return true
}

func (s *S3) end(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.busy, name)
}

// sourceReader ends with its context, which minio-go only looks at between parts.
type sourceReader struct {
	ctx context.Context
	r   io.Reader
}

func (r *sourceReader) Read(p []byte) (int, error) {
	if r.ctx.Err() != nil {
		return 0, ctxError(r.ctx)
	}
	return r.r.Read(p)
}

// Get implements Store.
func (s *S3) Get(ctx context.Context, name string) (io.ReadCloser, error) {
	if err := CheckName(name); err != nil {
		return nil, err
	}
	body, _, _, err := s.core.GetObject(ctx, s.config.Bucket, s.key(name), minio.GetObjectOptions{})
	if err != nil {
		return nil, s.wrap(ctx, err, "read", name)
	}
	return &s3Reader{s, ctx, body, name}, nil
}

// s3Reader gives failures of a download their code.
type s3Reader struct {
	s    *S3
	ctx  context.Context
	body io.ReadCloser
	name string
}

func (r *s3Reader) Read(p []byte) (int, error) {
	if r.ctx.Err() != nil {
		return 0, ctxError(r.ctx)
	}
	n, err := r.body.Read(p)
	if err != nil && err != io.EOF {
		err = r.s.wrap(r.ctx, err, "read", r.name)
	}
	return n, err
}

func (r *s3Reader) Close() error { return r.body.Close() }

// Stat implements Store.
func (s *S3) Stat(ctx context.Context, name string) (Info, error) {
	if err := CheckName(name); err != nil {
		return Info{}, err
	}
	i, err := s.core.Client.StatObject(ctx, s.config.Bucket, s.key(name), minio.StatObjectOptions{})
	if err != nil {
		return Info{}, s.wrap(ctx, err, "look for", name)
	}
	return Info{name, i.Size}, nil
}

// List implements Store.
func (s *S3) List(ctx context.Context, prefix string, fn func(Info) error) error {
	if ctx.Err() != nil {
		return ctxError(ctx)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // ends the listing when fn does not want more
	for o := range s.core.Client.ListObjectsIter(ctx, s.config.Bucket, minio.ListObjectsOptions{Prefix: s.key(prefix), Recursive: true}) {
		if o.Err != nil {
			return s.wrap(ctx, o.Err, "list", prefix)
		}
		name := strings.TrimPrefix(o.Key, s.config.Prefix)
		if name == s3Lock {
			continue
		}
		if err := fn(Info{name, o.Size}); err != nil {
			return err
		}
	}
	if ctx.Err() != nil {
		return ctxError(ctx)
	}
	return nil
}

// Delete implements Store.
func (s *S3) Delete(ctx context.Context, name string) error {
	if _, err := s.Stat(ctx, name); err != nil { // the server says nothing about what was not there
		return err
	}
	err := s.core.Client.RemoveObject(ctx, s.config.Bucket, s.key(name), minio.RemoveObjectOptions{})
	return s.wrap(ctx, err, "remove", name)
}

// unlockTime bounds how long Close of a lock waits for the server.
const unlockTime = 10 * time.Second

// Lock implements Locker with an object that only one writer can make, on servers
// with conditional writes; on others two that begin in the same moment both get
// it. A process that dies leaves it: see BreakLock.
func (s *S3) Lock(ctx context.Context) (io.Closer, error) {
	o := minio.PutObjectOptions{ContentType: "text/plain", SendContentMd5: true}
	o.SetMatchETagExcept("*")
	note := []byte(s.config.Owner)
	if s.config.Now != nil {
		note = fmt.Appendf(note, " since %s", s.config.Now().UTC().Format(time.RFC3339))
	}
	switch held, err := s.lockNote(ctx); {
	case err == nil:
		return nil, s.locked(held)
	case !errors.Is(err, fs.ErrNotExist):
		return nil, err
	}
	_, err := s.core.Client.PutObject(ctx, s.config.Bucket, s.key(s3Lock), bytes.NewReader(note), int64(len(note)), o)
	if err = s.wrap(ctx, err, "lock", s.String()); errors.Is(err, fs.ErrExist) {
		return nil, s.locked("another process")
	}
	if err != nil {
		return nil, err
	}
	return &s3Held{s, context.WithoutCancel(ctx)}, nil
}

func (s *S3) locked(by string) error {
	return fcp.Errorf(fcp.CodeLocked, "%s is being written by %s", s, by).
		WithNext("wait until that backup has ended; if that process is no more, repeat with --break-lock")
}

func (s *S3) lockNote(ctx context.Context) (string, error) {
	body, _, _, err := s.core.GetObject(ctx, s.config.Bucket, s.key(s3Lock), minio.GetObjectOptions{})
	if err != nil {
		return "", s.wrap(ctx, err, "look for the lock of", s.String())
	}
	b, err := io.ReadAll(io.LimitReader(body, 200))
	return string(b), s.wrap(ctx, errors.Join(err, body.Close()), "read the lock of", s.String())
}

// BreakLock removes the lock of a process that is no more.
func (s *S3) BreakLock(ctx context.Context) error {
	err := s.core.Client.RemoveObject(ctx, s.config.Bucket, s.key(s3Lock), minio.RemoveObjectOptions{})
	return s.wrap(ctx, err, "remove the lock of", s.String())
}

type s3Held struct {
	s   *S3
	ctx context.Context
}

func (h *s3Held) Close() error {
	ctx, cancel := context.WithTimeout(h.ctx, unlockTime)
	defer cancel()
	return h.s.BreakLock(ctx)
}

// wrap gives an error of the server or the network its code.
func (s *S3) wrap(ctx context.Context, err error, what, name string) error {
	switch {
	case err == nil:
		return nil
	case fcp.CodeOf(err) != 0 && errors.As(err, new(*fcp.Error)):
		return err
	case ctx.Err() != nil:
		return ctxError(ctx)
	}
	r := minio.ToErrorResponse(err)
	switch r.Code {
	case minio.NoSuchKey, "NotFound":
		return notFound(name)
	case minio.PreconditionFailed, "ConditionalRequestConflict":
		return exists(name)
	case minio.NoSuchBucket:
		return fcp.Errorf(fcp.CodeNotFound, "there is no bucket %s at %s", s.config.Bucket, s.config.Endpoint).WithNext("make the bucket, or name another")
	case minio.AccessDenied, "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken":
		return fcp.Errorf(fcp.CodeUnauthorized, "%s refuses: %s", s.config.Endpoint, r.Code).
			WithNext("set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, to keys that may read and write the bucket")
	case "SlowDown", "ServiceUnavailable":
		return fcp.Errorf(fcp.CodeExhausted, "%s: %s", s.config.Endpoint, r.Code)
	}
	if n := net.Error(nil); errors.As(err, &n) {
		return fcp.Errorf(fcp.CodeTimeout, "%s %s at %s: %w", what, name, s.config.Endpoint, err)
	}
	return fcp.Wrap(fcp.CodeExternal, err, "%s %s at %s", what, name, s.config.Endpoint)
}

var (
	_ Store  = (*S3)(nil)
	_ Locker = (*S3)(nil)
)
