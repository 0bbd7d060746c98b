package keystore

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
)

// FS is the file access the keystore needs. OS is the real one; tests use
// memory.
type FS interface {
	// ReadFile returns a whole file of at most max bytes and its mode. A longer
	// file is an error. A missing file satisfies errors.Is(err, fs.ErrNotExist).
	ReadFile(path string, max int64) ([]byte, fs.FileMode, error)
	// WriteFileAtomic makes a new file with mode 0600, complete and on disk when
	// it returns, or not there at all. A file that exists is left alone and
	// satisfies errors.Is(err, fs.ErrExist).
	WriteFileAtomic(path string, data []byte) error
}

// OS is the operating system's files.
type OS struct{}

var errTooLong = errors.New("the file is too long")

// ReadFile implements FS. The mode is that of the file that was read, not of
// whatever the path names a moment later.
func (OS) ReadFile(path string, max int64) ([]byte, fs.FileMode, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, 0, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, 0, err
	}
	b, err := io.ReadAll(io.LimitReader(f, max+1))
	if err == nil && int64(len(b)) > max {
		err = errTooLong
	}
	return b, info.Mode(), err
}

// WriteFileAtomic implements FS: a temporary file in the same directory, fsync,
// a link to the final name, which fails when that exists, and fsync of the
// directory.
func (OS) WriteFileAtomic(path string, data []byte) (err error) {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, ".fcp-key-*") // made with mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	if _, err = f.Write(data); err == nil {
		err = f.Sync()
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err == nil {
		err = linkNew(f.Name(), path)
	}
	if err != nil {
		return err
	}
	return syncDir(dir)
}

// linkNew gives the file a second name that must be new. File systems without
// hard links (FAT on a USB stick) get a look and a rename, which is as good when
// nobody else writes there.
func linkNew(from, to string) error {
	err := os.Link(from, to)
	if err == nil || errors.Is(err, fs.ErrExist) {
		return err
	}
	if _, e := os.Lstat(to); e == nil {
		return &fs.PathError{Op: "create", Path: to, Err: fs.ErrExist}
	} else if !errors.Is(e, fs.ErrNotExist) {
		return e
	}
	return os.Rename(from, to)
}

func syncDir(dir string) error {
	if runtime.GOOS == "windows" { // directories cannot be opened for sync there
		return nil
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
