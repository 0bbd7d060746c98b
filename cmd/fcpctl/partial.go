package main

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"path"
	"regexp"
	"syscall"

	"fcp"
)

// A file is written under another name, in the same directory, and gets its own when it
// is whole. Who writes it holds a lock on it, so that what a process left that was killed
// is told from what another one writes just now.

var partialName = regexp.MustCompile(`^\.fcp-[0-9a-f]{16}\.part$`)

// partialOf is the name of a file while it is written. It is as short for every name, and
// no other file is called so.
func partialOf(name string) string {
	dir, base := path.Split(name)
	sum := sha256.Sum256([]byte(base))
	return dir + ".fcp-" + hex.EncodeToString(sum[:8]) + ".part"
}

// isPartial reports whether a name is one that partialOf makes.
func isPartial(name string) bool { return partialName.MatchString(path.Base(name)) }

// makePartial creates a file of that name for this process alone; release lets others have
// the name. One that nobody writes any more is removed first.
func makePartial(root *os.Root, temp string) (f *os.File, release func(), err error) {
	const tries = 100 // each is another process that came in between
	for range tries {
		f, err := root.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
		switch {
		case errors.Is(err, fs.ErrExist):
			err = dropPartial(root, temp)
		case err == nil:
			if release, err = keepPartial(root, temp, f); release != nil {
				return f, release, nil
			}
			f.Close()
		}
		if err != nil {
			return nil, nil, inputError(err, "the target "+temp)
		}
	}
	return nil, nil, beingWritten(temp)
}

func beingWritten(temp string) error {
	return fcp.Errorf(fcp.CodeNotEmpty, "%s: another process is writing it", temp).WithNext("wait for it to finish, then run the same command again")
}

// keepPartial locks a file that was just made, for longer than f is open. No release is one
// that another process removed before, which took it for one that was left.
func keepPartial(root *os.Root, temp string, f *os.File) (release func(), err error) {
	mine, err := lockNamed(root, temp, f)
	if errors.Is(err, errLocked) {
		return nil, beingWritten(temp)
	}
	if errors.Is(err, errors.ErrUnsupported) {
		return func() {}, nil
	}
	if err != nil || !mine {
		return nil, err
	}
	fd, err := syscall.Dup(int(f.Fd()))
	if err != nil {
		return nil, err
	}
	return func() { syscall.Close(fd) }, nil
}

// dropPartial removes a file that a process left which is no more.
func dropPartial(root *os.Root, temp string) error {
	inTheWay := fcp.Errorf(fcp.CodeNotEmpty, "%s is in the way", temp).WithNext("remove it and run the same command again")
	st, err := root.Lstat(temp)
	if err == nil && !st.Mode().IsRegular() {
		return inTheWay
	}
	var f *os.File
	if err == nil {
		f, err = root.Open(temp)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	mine, err := lockNamed(root, temp, f)
	switch {
	case errors.Is(err, errLocked):
		return beingWritten(temp)
	case errors.Is(err, errors.ErrUnsupported):
		return inTheWay
	case err != nil || !mine:
		return err
	}
	return root.Remove(temp)
}

var errLocked = errors.New("locked by another process")

// lockNamed locks f and reports whether it still has the name. The lock ends when the
// last descriptor of this opening is closed.
func lockNamed(root *os.Root, temp string, f *os.File) (bool, error) {
	err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return false, errLocked
	}
	if err != nil {
		return false, err
	}
	mine, err := f.Stat()
	if err != nil {
		return false, err
	}
	named, err := root.Lstat(temp)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil && os.SameFile(mine, named), err
}
