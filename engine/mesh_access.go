package engine

import "fcp"

// fileAccess is what a device remembers of which names it read, for itself alone: it is
// not in the log, not in a backup and told to nobody.
const (
	fileAccess = "ACCESS"
	maxAccess  = 8 << 20
)

// KeepAccesses replaces the node's record of accesses; LoadAccesses returns it, nil
// when there is none. Its form is the node's. It can be lost.
func (e *Engine) KeepAccesses(b []byte) error {
	if len(b) > maxAccess {
		return fcp.Errorf(fcp.CodeTooLarge, "a record of accesses of %d bytes", len(b))
	}
	return writeFile(e.env.FS, e.dir, fileAccess, b)
}

// LoadAccesses is described at KeepAccesses.
func (e *Engine) LoadAccesses() ([]byte, error) { return e.loadNote(fileAccess, maxAccess) }
