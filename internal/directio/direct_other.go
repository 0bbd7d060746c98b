//go:build !linux

package directio

import (
	"errors"
	"os"
)

// errUnaligned is never returned by ordinary writes.
var errUnaligned = errors.New("directio: unaligned")

func create(path string) (f *os.File, direct bool, err error) {
	f, err = os.Create(path)
	return f, false, err
}

func buffered(*os.File) error { return nil }
