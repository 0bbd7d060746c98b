package engine

import (
	"errors"
	"io/fs"

	"fcp"
)

// fileHeads holds what other nodes signed about their feeds, for passing it on. It
// can be lost: the next peer tells it again.
const (
	fileHeads = "HEADS"
	maxHeads  = 4 << 20
	fileSeen  = "SEEN"
	maxSeen   = 1 << 20
)

// KeepHeads replaces the kept heads; LoadHeads returns them, nil when there are
// none. Their form is the node's.
func (e *Engine) KeepHeads(b []byte) error {
	if len(b) > maxHeads {
		return fcp.Errorf(fcp.CodeTooLarge, "heads of %d bytes", len(b))
	}
	return writeFile(e.env.FS, e.dir, fileHeads, b)
}

// LoadHeads is described at KeepHeads.
func (e *Engine) LoadHeads() ([]byte, error) { return e.loadNote(fileHeads, maxHeads) }

// KeepSeen replaces what the node notes of when members were there last; LoadSeen
// returns it, nil when there is none. It can be lost: then the grace of those that are
// away begins again.
func (e *Engine) KeepSeen(b []byte) error {
	if len(b) > maxSeen {
		return fcp.Errorf(fcp.CodeTooLarge, "a list of members of %d bytes", len(b))
	}
	return writeFile(e.env.FS, e.dir, fileSeen, b)
}

// LoadSeen is described at KeepSeen.
func (e *Engine) LoadSeen() ([]byte, error) { return e.loadNote(fileSeen, maxSeen) }

func (e *Engine) loadNote(name string, limit int) ([]byte, error) {
	b, err := readFile(e.env.FS, e.env.FS.PathJoin(e.dir, name), limit)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return b, fcp.Wrap(fcp.CodeDisk, err, "read %s", name)
}
