//go:build !linux

package directio

import (
	"errors"
	"os"
)

// errUnaligned is never returned by ordinary writes.
var errUnaligned = errors.New("directio: unaligned")

func setDirect(*os.File, bool) error { return errors.ErrUnsupported }

var errNoSuchRead = errors.New("directio: no reads past the page cache")

func readPast(File, []byte, int64) (int, error) { return 0, errNoSuchRead }
