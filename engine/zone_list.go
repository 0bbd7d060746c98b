package engine

import (
	"errors"
	"io/fs"
	"slices"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"

	"fcp"
)

// zoneList is a small file of the store that has one entry a zone: a canonical array,
// ascending by zone. It is written whole, so a crash leaves the one before or this one.
// Whoever changes it keeps others from doing so meanwhile.
type zoneList[T any] struct {
	files vfs.FS
	dir   string
	name  string
	max   int // bytes
	zone  func(*T) fcp.ZoneID
}

// read returns the entries; none when there is no file. One that does not decode is
// CodeCorrupt: it must not be taken for none.
func (l *zoneList[T]) read() (list []T, err error) {
	b, err := readFile(l.files, l.files.PathJoin(l.dir, l.name), l.max)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fcp.Wrap(fcp.CodeDisk, err, "read the file %s", l.name)
	}
	return list, fcp.Wrap(fcp.CodeCorrupt, fcp.Unmarshal(b, &list), "the file %s", l.name)
}

// find returns where the entry of a zone is, or would be.
func (l *zoneList[T]) find(list []T, zone fcp.ZoneID) (i int, known bool) {
	return slices.BinarySearchFunc(list, zone, func(x T, z fcp.ZoneID) int { return strings.Compare(string(l.zone(&x)), string(z)) })
}

// put writes list with x in the place of the entry of its zone.
func (l *zoneList[T]) put(list []T, x T) error {
	i, known := l.find(list, l.zone(&x))
	if known {
		list[i] = x
	} else {
		list = slices.Insert(list, i, x)
	}
	b, err := fcp.Marshal(list)
	if err != nil {
		return err
	}
	return writeFile(l.files, l.dir, l.name, b)
}
