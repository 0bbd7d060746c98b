package crashfs

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path"
	"path/filepath"
	"syscall"
)

// FileSize is one file of a listing.
type FileSize struct {
	Path string // slash-separated, from the root, without a leading slash
	Size int64  // bytes
}

// Files lists all files, sorted by directory and name. Directories are not
// listed; a file with two names is listed twice.
func (f *FS) Files() []FileSize {
	f.mu.RLock()
	defer f.mu.RUnlock()
	var out []FileSize
	f.root.walk("", func(name string, n *node) {
		if !n.dir {
			out = append(out, FileSize{name, n.current.size})
		}
	})
	return out
}

// walk visits what is below the directory, in sorted order, a directory before
// what it holds.
func (n *node) walk(prefix string, visit func(name string, n *node)) {
	for _, base := range sortedNames(n.entries) {
		child := n.entries[base]
		visit(path.Join(prefix, base), child)
		if child.dir {
			child.walk(path.Join(prefix, base), visit)
		}
	}
}

// Digest returns a hash over the names and bytes of everything reads can see:
// equal digests, equal trees.
func (f *FS) Digest() [32]byte {
	f.mu.RLock()
	defer f.mu.RUnlock()
	h := sha256.New()
	buf := make([]byte, 16*pageSize)
	f.root.walk("", func(name string, n *node) {
		kind := byte('f')
		if n.dir {
			kind = 'd'
		}
		head := binary.BigEndian.AppendUint64([]byte{kind}, uint64(len(name)))
		head = binary.BigEndian.AppendUint64(append(head, name...), uint64(n.current.size))
		h.Write(head)
		for off := int64(0); off < n.current.size; {
			k := n.current.readAt(buf, off)
			h.Write(buf[:k])
			off += int64(k)
		}
	})
	return [32]byte(h.Sum(nil))
}

// Flip inverts one bit of a file on the medium, as rot does: reads see it and
// so does every later image. Writes not yet synced keep their own bytes.
// Offsets outside of the file and bits above 7 give EINVAL.
func (f *FS) Flip(name string, offset int64, bit uint) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	n, err := f.find(name)
	switch {
	case err != nil:
	case n.dir:
		err = syscall.EISDIR
	case offset < 0 || offset >= n.current.size || bit > 7:
		err = syscall.EINVAL
	}
	if err != nil {
		return pathError("flip", name, err)
	}
	n.flip(offset, bit)
	return nil
}

func (n *node) flip(offset int64, bit uint) {
	n.current.flip(offset, bit)
	if offset < n.durable.size {
		n.durable.flip(offset, bit)
	}
}

// rot flips bits at the given rate per byte; mu is not needed: the image is
// still private.
func (f *FS) rot(rng *rand.Rand, rate float64) {
	if rate <= 0 {
		return
	}
	f.root.walk("", func(_ string, n *node) {
		want := float64(n.current.size) * rate
		flips := int(want)
		if rng.Float64() < want-float64(flips) {
			flips++
		}
		for range flips {
			n.flip(rng.Int64N(n.current.size), uint(rng.IntN(8)))
		}
	})
}

// Save writes all files that reads can see below the real directory dir, which
// is made when it is missing; files there with the same names are overwritten.
// It is for keeping an image that failed.
func (f *FS) Save(dir string) error {
	f.mu.RLock()
	defer f.mu.RUnlock()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("save image: %w", err)
	}
	var err error
	f.root.walk("", func(name string, n *node) {
		if err != nil {
			return
		}
		real := filepath.Join(dir, filepath.FromSlash(name))
		if n.dir {
			err = os.MkdirAll(real, 0o755)
			return
		}
		b := make([]byte, n.current.size)
		n.current.readAt(b, 0)
		err = os.WriteFile(real, b, 0o644)
	})
	if err != nil {
		return fmt.Errorf("save image: %w", err)
	}
	return nil
}

// Load returns a file system with the files below the real directory dir, all
// of them durable. Anything that is neither file nor directory is an error.
func Load(dir string) (*FS, error) {
	f := New()
	err := filepath.WalkDir(dir, func(real string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, real)
		if err != nil || rel == "." {
			return err
		}
		name := filepath.ToSlash(rel)
		switch {
		case d.IsDir():
			return f.MkdirAll(name, 0o755)
		case !d.Type().IsRegular():
			return fmt.Errorf("%s is not a regular file", real)
		}
		b, err := os.ReadFile(real)
		if err != nil {
			return err
		}
		h, err := f.Create(name, "")
		if err != nil {
			return err
		}
		if _, err := h.Write(b); err != nil {
			return err
		}
		return h.Close()
	})
	if err != nil {
		return nil, fmt.Errorf("load image: %w", err)
	}
	return f.Crash(nil, Options{Keep: 1, KeepEntries: 1}), nil
}
