// Package blob keeps named, immutable byte strings: the files of a backup.
//
// # Purpose
//
// A Store has five methods. Put makes a blob that is never overwritten and is
// there whole or not at all, also after a crash; once it returned nil the blob is
// on disk. Two implementations: Files (a folder) and S3 (a bucket). Package blobtest
// is the contract that each of them passes.
//
// # Names
//
// A name is one to eight parts joined by '/'. A part has 1 to 100 bytes of
// [a-z0-9._-] and does not begin with a dot, so that a name is the same on every
// file system and never leads out of the folder. A name has at most 255 bytes.
package blob

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"strings"

	"fcp"
)

// Store keeps blobs. Implementations are safe for concurrent use.
type Store interface {
	// Put makes a blob of everything r gives and returns its size. When the name
	// is taken nothing is read and the error is fs.ErrExist. When it returns an
	// error no blob was made; when it returns nil the blob survives a power cut.
	Put(ctx context.Context, name string, r io.Reader) (size int64, err error)
	// Get opens a blob; fs.ErrNotExist when there is none. The caller closes it.
	Get(ctx context.Context, name string) (io.ReadCloser, error)
	// Stat returns size and name; fs.ErrNotExist when there is none.
	Stat(ctx context.Context, name string) (Info, error)
	// List calls fn for every blob whose name begins with prefix, in byte order of
	// names, and stops at its first error. What lies there under a name that Put
	// would refuse is listed too: it does not belong there, and somebody must say so.
	List(ctx context.Context, prefix string, fn func(Info) error) error
	// Delete removes a blob; fs.ErrNotExist when there is none.
	Delete(ctx context.Context, name string) error
}

// Locker is a Store that one process at a time can take for writing.
type Locker interface {
	// Lock takes the store until the lock is closed; CodeLocked when another has it.
	Lock(ctx context.Context) (io.Closer, error)
}

// Info describes a blob.
type Info struct {
	Name string
	Size int64
}

// Limits of names.
const (
	MaxName  = 255
	MaxPart  = 100
	MaxParts = 8
)

// CheckName refuses, with CodeInvalidArgument, what is no name.
func CheckName(name string) error {
	bad := func(why string) error { return fcp.Errorf(fcp.CodeInvalidArgument, "blob name %.64q %s", name, why) }
	if len(name) > MaxName {
		return bad("is too long")
	}
	parts := strings.Split(name, "/")
	if len(parts) > MaxParts {
		return bad("has too many parts")
	}
	for _, p := range parts {
		if p == "" || len(p) > MaxPart || p[0] == '.' {
			return bad("has an empty, long or hidden part")
		}
		for i := range len(p) {
			c := p[i]
			if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '.' && c != '_' && c != '-' {
				return bad("has a character outside of a-z 0-9 . _ -")
			}
		}
	}
	return nil
}

// ReadAll returns a whole blob of at most max bytes; a longer one is CodeTooLarge.
func ReadAll(ctx context.Context, s Store, name string, max int64) ([]byte, error) {
	r, err := s.Get(ctx, name)
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(io.LimitReader(r, max+1))
	if err = errors.Join(err, r.Close()); err != nil {
		return nil, fcp.Wrap(fcp.CodeDisk, err, "read %s", name)
	}
	if int64(len(b)) > max {
		return nil, fcp.Errorf(fcp.CodeTooLarge, "%s has more than %d bytes", name, max)
	}
	return b, nil
}

func notFound(name string) error {
	return fcp.Errorf(fcp.CodeNotFound, "%s: %w", name, fs.ErrNotExist)
}

func exists(name string) error {
	return fcp.Errorf(fcp.CodeConflict, "%s: %w", name, fs.ErrExist)
}

// wrapDisk gives an error of the file system its code.
func wrapDisk(err error, what, name string) error {
	if err == nil {
		return nil
	}
	if fcp.IsDiskFull(err) {
		return fcp.Wrap(fcp.CodeDiskFull, err, "%s %s", what, name)
	}
	return fcp.Wrap(fcp.CodeDisk, err, "%s %s", what, name)
}

// ctxError is the error of a context that ended.
func ctxError(ctx context.Context) error {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return fcp.Errorf(fcp.CodeTimeout, "reading or writing a backup")
	}
	return fcp.Errorf(fcp.CodeInterrupted, "reading or writing a backup")
}
