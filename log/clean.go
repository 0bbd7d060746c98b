package log

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/zeebo/xxh3"

	"fcp"
)

// A store that was closed cleanly carries a list of all its files with their
// sizes and hashes, so that a flipped bit anywhere is found, in places too that
// no format checks (docs/format.md "Clean list"):
//
//	"FCP-CLEAN 1\n"
//	one line per file, sorted by path: size, XXH3-64 as 16 hex digits, quoted path
//	"end " and the XXH3-64 of everything before the line
//
// The list is there only while the store is closed: ForgetClean renames it
// before the first write. The renamed list lets the next RecordClean take over
// the hashes of tables that are still there, because a table is never changed.

const (
	cleanName     = "CLEAN"
	cleanPrevious = "CLEAN.prev"
	cleanTemp     = "CLEAN.tmp"
	cleanHeader   = "FCP-CLEAN 1\n"
	tableSuffix   = ".sst"

	maxCleanList  = 64 << 20 // bytes
	maxCleanDepth = 16       // directories inside each other
)

// cleanFile is one line of the list.
type cleanFile struct {
	path string // slash-separated, below the root
	size int64
	hash uint64
}

// RecordClean lists every file below root but the excluded ones in root/CLEAN,
// and makes the list durable. It is the last step of a clean close: nothing may
// change a file afterwards without ForgetClean. An excluded path is relative to
// root and stands for everything below it. Files in known, by path, are not read.
func RecordClean(fs vfs.FS, root string, known map[string]FileSum, exclude ...string) error {
	// What was removed must stay removed after a power cut, or it would not be in
	// the list.
	if err := syncTree(fs, root, 0); err != nil {
		return err
	}
	files, err := listFiles(fs, root, exclude)
	if err != nil {
		return err
	}
	before := map[string]FileSum{}
	if previous, err := readClean(fs, fs.PathJoin(root, cleanPrevious)); err == nil {
		for _, f := range previous {
			if strings.HasSuffix(f.path, tableSuffix) {
				before[f.path] = FileSum{f.size, f.hash}
			}
		}
	}
	for i := range files {
		f := &files[i]
		k, ok := known[f.path]
		if !ok {
			k, ok = before[f.path]
		}
		if ok && k.Size == f.size {
			f.hash = k.Hash
			continue
		}
		if f.hash, f.size, err = hashFile(fs, fs.PathJoin(root, f.path)); err != nil {
			return wrapDisk(err, "listing a closed store")
		}
	}
	if err := writeClean(fs, root, files); err != nil {
		return wrapDisk(err, "listing a closed store")
	}
	err = fs.Remove(fs.PathJoin(root, cleanPrevious))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return wrapDisk(err, "listing a closed store")
	}
	return syncDir(fs, root)
}

// ForgetClean takes the list away, durably, before the store is opened for
// writing. It reports whether the store had been closed cleanly.
func ForgetClean(fs vfs.FS, root string) (was bool, err error) {
	err = fs.Rename(fs.PathJoin(root, cleanName), fs.PathJoin(root, cleanPrevious))
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, wrapDisk(err, "opening a closed store")
	}
	return true, syncDir(fs, root)
}

// CleanReport is what CheckClean found.
type CleanReport struct {
	Recorded bool // there is a list: the store was closed cleanly
	Files    int  // compared
	Bytes    int64
	Findings []Finding
}

// CheckClean compares every file below root with root/CLEAN. Without a list it
// finds nothing: the store is open or crashed. exclude is as for RecordClean.
func CheckClean(fs vfs.FS, root string, exclude ...string) (CleanReport, error) {
	var r CleanReport
	find := func(path, format string, args ...any) {
		r.Findings = append(r.Findings, Finding{Code: FindFile, Where: path, What: fmt.Sprintf(format, args...)})
	}
	listed, err := readClean(fs, fs.PathJoin(root, cleanName))
	switch {
	case errors.Is(err, os.ErrNotExist):
		return r, nil
	case errors.Is(err, fcp.CodeCorrupt):
		r.Recorded = true
		find(cleanName, "%v", err)
		return r, nil
	case err != nil:
		return r, err
	}
	r.Recorded = true
	there, err := listFiles(fs, root, exclude)
	if err != nil {
		return r, err
	}
	byPath := map[string]cleanFile{}
	for _, f := range there {
		byPath[f.path] = f
	}
	for _, want := range listed {
		f, ok := byPath[want.path]
		delete(byPath, want.path)
		switch {
		case !ok:
			find(want.path, "the file is missing")
			continue
		case f.size != want.size:
			find(want.path, "the file has %d bytes, it had %d", f.size, want.size)
			continue
		}
		hash, size, err := hashFile(fs, fs.PathJoin(root, want.path))
		if err != nil {
			find(want.path, "reading it fails: %v", err)
			continue
		}
		r.Files, r.Bytes = r.Files+1, r.Bytes+size
		if hash != want.hash || size != want.size {
			find(want.path, "the file is not as it was")
		}
	}
	for _, f := range there {
		if _, extra := byPath[f.path]; extra {
			find(f.path, "the file was not there")
		}
	}
	return r, nil
}

// syncTree makes the entries of all directories durable.
func syncTree(fs vfs.FS, dir string, depth int) error {
	names, err := fs.List(dir)
	if err != nil {
		return wrapDisk(err, "listing a closed store")
	}
	for _, name := range names {
		path := fs.PathJoin(dir, name)
		st, err := fs.Stat(path)
		if err != nil {
			return wrapDisk(err, "listing a closed store")
		}
		if st.IsDir() && depth < maxCleanDepth {
			if err := syncTree(fs, path, depth+1); err != nil {
				return err
			}
		}
	}
	return syncDir(fs, dir)
}

// listFiles lists the files below root, sorted, without the lists themselves.
func listFiles(fs vfs.FS, root string, exclude []string) ([]cleanFile, error) {
	skip := map[string]bool{cleanName: true, cleanPrevious: true, cleanTemp: true}
	for _, e := range exclude {
		skip[e] = true
	}
	var out []cleanFile
	var walk func(dir string, depth int) error
	walk = func(dir string, depth int) error {
		names, err := fs.List(fs.PathJoin(root, dir))
		if err != nil {
			return err
		}
		slices.Sort(names)
		for _, name := range names {
			path := name
			if dir != "" {
				path = dir + "/" + name
			}
			if skip[path] {
				continue
			}
			st, err := fs.Stat(fs.PathJoin(root, path))
			switch {
			case err != nil:
				return err
			case st.IsDir() && depth == maxCleanDepth:
				return fcp.Errorf(fcp.CodeTooLarge, "directories more than %d deep", maxCleanDepth)
			case st.IsDir():
				if err := walk(path, depth+1); err != nil {
					return err
				}
			default:
				out = append(out, cleanFile{path: path, size: st.Size()})
			}
		}
		return nil
	}
	if err := walk("", 0); err != nil {
		return nil, wrapDisk(err, "listing a closed store")
	}
	slices.SortFunc(out, func(a, b cleanFile) int { return strings.Compare(a.path, b.path) })
	return out, nil
}

func hashFile(fs vfs.FS, path string) (hash uint64, size int64, err error) {
	f, err := fs.Open(path, vfs.SequentialReadsOption)
	if err != nil {
		return 0, 0, err
	}
	h := xxh3.New()
	size, err = io.CopyBuffer(h, struct{ io.Reader }{f}, make([]byte, 64<<10))
	return h.Sum64(), size, errors.Join(err, f.Close())
}

func encodeClean(files []cleanFile) []byte {
	b := []byte(cleanHeader)
	for _, f := range files {
		b = fmt.Appendf(b, "%d %016x %s\n", f.size, f.hash, strconv.Quote(f.path))
	}
	return fmt.Appendf(b, "end %016x\n", xxh3.Hash(b))
}

func writeClean(fs vfs.FS, root string, files []cleanFile) error {
	temp := fs.PathJoin(root, cleanTemp)
	f, err := fs.Create(temp, "fcp-clean")
	if err != nil {
		return err
	}
	_, err = f.Write(encodeClean(files))
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := fs.Rename(temp, fs.PathJoin(root, cleanName)); err != nil {
		return err
	}
	return syncDir(fs, root)
}

func readClean(fs vfs.FS, path string) ([]cleanFile, error) {
	f, err := fs.Open(path)
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(io.LimitReader(f, maxCleanList+1))
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, wrapDisk(err, "reading the list of a closed store")
	}
	return decodeClean(b)
}

// decodeClean accepts exactly what encodeClean makes.
func decodeClean(b []byte) ([]cleanFile, error) {
	bad := fcp.Errorf(fcp.CodeCorrupt, "the list of files does not decode")
	const endSize = len("end \n") + 16
	if len(b) > maxCleanList || len(b) < len(cleanHeader)+endSize {
		return nil, bad
	}
	body := string(b[:len(b)-endSize])
	if string(b[len(b)-endSize:]) != fmt.Sprintf("end %016x\n", xxh3.HashString(body)) {
		return nil, bad
	}
	lines, ok := strings.CutPrefix(body, cleanHeader)
	if !ok {
		return nil, bad
	}
	var files []cleanFile
	for lines != "" {
		line, rest, ok := strings.Cut(lines, "\n")
		parts := strings.SplitN(line, " ", 3)
		if !ok || len(parts) != 3 {
			return nil, bad
		}
		var f cleanFile
		var errs [3]error
		f.size, errs[0] = strconv.ParseInt(parts[0], 10, 64)
		f.hash, errs[1] = strconv.ParseUint(parts[1], 16, 64)
		f.path, errs[2] = strconv.Unquote(parts[2])
		if errors.Join(errs[:]...) != nil || f.size < 0 || f.path == "" ||
			len(files) > 0 && files[len(files)-1].path >= f.path {
			return nil, bad
		}
		files = append(files, f)
		lines = rest
	}
	if string(encodeClean(files)) != string(b) {
		return nil, bad
	}
	return files, nil
}
