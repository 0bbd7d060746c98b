package directio

import (
	"errors"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// errUnaligned is what a direct write gives when the alignment does not do.
var errUnaligned error = unix.EINVAL

// setDirect makes the writes of a file direct or ordinary ones. It fails where the file
// system has no direct ones.
func setDirect(f *os.File, direct bool) error {
	c, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var set error
	err = c.Control(func(fd uintptr) {
		flags, err := unix.FcntlInt(fd, unix.F_GETFL, 0)
		if err == nil {
			flags &^= unix.O_DIRECT
			if direct {
				flags |= unix.O_DIRECT
			}
			_, err = unix.FcntlInt(fd, unix.F_SETFL, flags)
		}
		set = err
	})
	return errors.Join(err, set)
}

// errNoSuchRead says that the system does not know reads past the page cache.
var errNoSuchRead = errors.New("directio: no reads past the page cache")

// readPast reads with RWF_DONTCACHE.
func readPast(f File, p []byte, at int64) (n int, err error) {
	c, err := f.SyscallConn()
	if err != nil {
		return 0, err
	}
	var failed error
	err = c.Read(func(fd uintptr) bool {
		for {
			n, failed = unix.Preadv2(int(fd), [][]byte{p}, at, unix.RWF_DONTCACHE)
			if failed != unix.EINTR {
				return true
			}
		}
	})
	switch {
	case err != nil:
		return 0, err
	case failed == unix.EOPNOTSUPP, failed == unix.EINVAL, failed == unix.ENOSYS:
		return 0, errNoSuchRead
	case failed != nil:
		return 0, &os.PathError{Op: "read", Path: f.Name(), Err: failed}
	case n == 0:
		return 0, io.EOF
	}
	return n, nil
}
