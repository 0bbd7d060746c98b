package engine

import (
	"errors"
	"fmt"

	"fcp"
	"fcp/log"
)

// notListed are the files that the clean list of a store leaves out: locks, which
// hold nothing, and what a daemon keeps beside the store, which is not the store.
var notListed = append([]string{fileLock, dirLog + "/LOCK", dirState + "/LOCK"}, DaemonFiles...)

// DaemonFiles are the files in a store's directory that belong to a daemon
// (docs/format.md "Store directory").
var DaemonFiles = []string{"fcpd.sock", "fcpd.pid", "fcpd.log", "fcpd.log.1", "mesh.json", "mesh.json.new"}

// FileReport is what CheckFiles found.
type FileReport struct {
	Recorded bool // the store was closed cleanly and has a list of its files
	Files    int  // compared
	Bytes    int64
	Findings []Finding
}

// CheckFiles compares every file of a store that nobody has open with the list
// that its clean close left behind (docs/format.md "Clean list"). It finds a
// flipped bit in any byte, needs no key and changes nothing. A store that was not
// closed cleanly has no list; then nothing is compared. It holds the store's lock
// meanwhile, because whoever opens the store changes its files: fcp.CodeLocked when
// another process has it.
func CheckFiles(dir string, env Environment) (r FileReport, err error) {
	env.setDefaults()
	if err := CheckFormat(env.FS, dir); err != nil {
		return FileReport{}, err
	}
	lock, err := env.FS.Lock(env.FS.PathJoin(dir, fileLock))
	if err != nil {
		return FileReport{}, lockError(dir, err)
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	c, err := log.CheckClean(env.FS, dir, notListed...)
	if err != nil {
		return FileReport{}, err
	}
	r = FileReport{Recorded: c.Recorded, Files: c.Files, Bytes: c.Bytes}
	for _, f := range c.Findings {
		r.Findings = append(r.Findings, Finding{Code: fcp.CodeChecksum, What: fmt.Sprintf("file %s: %s", f.Where, f.What)})
	}
	return r, nil
}

// forgetClean takes the list away before anything is changed.
func (e *Engine) forgetClean() error {
	_, err := log.ForgetClean(e.env.FS, e.dir)
	if err != nil && e.opts.ReadOnly {
		return nil // a medium that cannot be written keeps its list
	}
	return err
}

// recordClean lists the files of a store that was closed without any doubt.
func (e *Engine) recordClean() error {
	if !e.opened || e.opts.ReadOnly && !e.listed() {
		return nil
	}
	known := map[string]log.FileSum{}
	for name, sum := range e.log.TableSums() {
		known[dirLog+"/"+name] = sum
	}
	return log.RecordClean(e.env.FS, e.dir, known, notListed...)
}

// listed reports whether the list was taken away at open, and so is due again.
func (e *Engine) listed() bool {
	_, err := e.env.FS.Stat(e.env.FS.PathJoin(e.dir, "CLEAN"))
	return err != nil
}
