package api

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"fcp"
)

// listenPrivate makes the socket inside a directory that nobody else can enter and
// moves it out, so that there is no moment at which others could connect.
func listenPrivate(socket string) (net.Listener, error) {
	dir, err := os.MkdirTemp(filepath.Dir(socket), ".fcpd-")
	if err != nil {
		return nil, fcp.Wrap(fcp.CodeDisk, err, "make the socket")
	}
	defer os.RemoveAll(dir)
	temp := filepath.Join(dir, "s")
	name, free, err := socketName(temp)
	if err != nil {
		return nil, err
	}
	defer free()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: name, Net: "unix"})
	if err != nil {
		return nil, fcp.Wrap(fcp.CodeDisk, err, "make the socket")
	}
	l.SetUnlinkOnClose(false)
	if err := errors.Join(os.Chmod(temp, 0o600), os.Rename(temp, socket)); err != nil {
		return nil, errors.Join(fcp.Wrap(fcp.CodeDisk, err, "make the socket"), l.Close())
	}
	return l, nil
}

// removeSocket removes the socket that a dead process left, and nothing that holds
// something.
func removeSocket(path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil
	case err == nil && info.Mode()&os.ModeSocket == 0 && (!info.Mode().IsRegular() || info.Size() > 0):
		return fcp.Errorf(fcp.CodeInvalidArgument, "%s is there and no socket", path).WithNext("name another place with --socket")
	case err == nil:
		err = os.Remove(path)
	}
	return fcp.Wrap(fcp.CodeDisk, err, "open the socket")
}

// maxSocketName is how long a socket's name can be (unix(7): 108 bytes with the
// zero at the end; 104 on some systems).
const maxSocketName = 100

// socketName returns a name for a socket that is short enough: one that is not is
// named through its directory's descriptor, where the system can. free ends that.
func socketName(path string) (name string, free func(), err error) {
	if len(path) <= maxSocketName {
		return path, func() {}, nil
	}
	if runtime.GOOS != "linux" {
		return "", nil, fcp.Errorf(fcp.CodeInvalidArgument, "%s is too long for a socket", path).WithNext("name a shorter one with --socket")
	}
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return "", nil, fcp.Wrap(fcp.CodeNotFound, err, "the socket's directory")
	}
	return fmt.Sprintf("/proc/self/fd/%d/%s", d.Fd(), filepath.Base(path)), func() { d.Close() }, nil
}

func dialSocket(ctx context.Context, socket string) (net.Conn, error) {
	name, free, err := socketName(socket)
	if err != nil {
		return nil, err
	}
	defer free()
	var d net.Dialer
	return d.DialContext(ctx, "unix", name)
}

// Notify tells a service manager how this process is: "READY=1", "STOPPING=1"
// (sd_notify(3)). address is the value of NOTIFY_SOCKET; "" is no manager.
func Notify(address, state string) error {
	if address == "" {
		return nil
	}
	if strings.HasPrefix(address, "@") { // the abstract namespace
		address = "\x00" + address[1:]
	}
	c, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: address, Net: "unixgram"})
	if err != nil {
		return fcp.Wrap(fcp.CodeInternal, err, "notify the service manager")
	}
	defer c.Close()
	_, err = c.Write([]byte(state))
	return fcp.Wrap(fcp.CodeInternal, err, "notify the service manager")
}
