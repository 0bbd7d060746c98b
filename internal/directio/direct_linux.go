package directio

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// errUnaligned is what a direct write gives when the alignment does not do.
var errUnaligned error = unix.EINVAL

const createFlags = os.O_RDWR | os.O_CREATE | os.O_TRUNC

// create opens a new file for direct writes if its file system has them.
func create(path string) (f *os.File, direct bool, err error) {
	f, err = os.OpenFile(path, createFlags|unix.O_DIRECT, 0o666)
	if err == nil {
		return f, true, nil
	}
	if !errors.Is(err, unix.EINVAL) {
		return nil, false, err
	}
	f, err = os.OpenFile(path, createFlags, 0o666)
	return f, false, err
}

// buffered makes the writes of a file ordinary ones.
func buffered(f *os.File) error {
	c, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var set error
	err = c.Control(func(fd uintptr) {
		flags, err := unix.FcntlInt(fd, unix.F_GETFL, 0)
		if err == nil {
			_, err = unix.FcntlInt(fd, unix.F_SETFL, flags&^unix.O_DIRECT)
		}
		set = err
	})
	return errors.Join(err, set)
}
