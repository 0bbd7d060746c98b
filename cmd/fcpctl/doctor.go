package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/spf13/cobra"

	"fcp"
	"fcp/authority/keystore"
	"fcp/cmd/internal/daemon"
	"fcp/engine"
	"fcp/log"
)

// What the doctor minds.
const (
	drillAge      = 30 * 24 * time.Hour // since the last drill
	lowSpace      = 512 << 20           // bytes free on the store's disk
	appendReserve = 32 << 20            // below it the log refuses appends, see log.Options
	clockSlack    = 2 * time.Minute     // a clock behind the log's last event
)

// checkView is one check as JSON.
type checkView struct {
	Check  string `json:"check"`
	Result string `json:"result"` // ok, warning, wrong, fixed
	What   string `json:"what"`
	Fix    string `json:"fix,omitempty"` // the command that mends it
}

// check is what a check found. mend, unless nil, is what --fix does.
type check struct {
	checkView
	err  error // of what is wrong
	code fcp.Code
	mend func() error
}

func ok(name, format string, args ...any) check {
	return check{checkView: checkView{Check: name, Result: "ok", What: fmt.Sprintf(format, args...)}}
}

func warning(name, fix, format string, args ...any) check {
	return check{checkView: checkView{Check: name, Result: "warning", What: fmt.Sprintf(format, args...), Fix: fix}}
}

func wrong(name, fix string, err error) check {
	return check{checkView: checkView{Check: name, Result: "wrong", What: err.Error(), Fix: fix}, err: err, code: fcp.CodeOf(err)}
}

func (a *app) doctorCommand() *cobra.Command {
	var fix, dryRun bool
	cmd := &cobra.Command{
		Use: "doctor", Short: "Check store, settings and surroundings; say what mends each fault", Args: args(0, 0),
		Long: `doctor runs named checks, from the settings file to the last restore drill, and says
for each fault which command mends it. With --fix it does what is safe: file modes,
and sealing what is open. Bytes are compared quickly; "fcpctl verify" reads all.
The exit code is 11 when something needs a look and 9 when bytes are damaged.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			found := a.examine(cmd.Context())
			if fix && !dryRun {
				var err error
				if found, err = a.mend(cmd.Context(), found); err != nil {
					return err
				}
			}
			return a.printChecks(found)
		},
	}
	cmd.Flags().BoolVar(&fix, "fix", false, "mend what can be mended safely")
	dryRunFlag(cmd, &dryRun)
	return cmd
}

// mend does what the checks can mend by themselves and, when that was something,
// looks again: a store that could not be opened may open now.
func (a *app) mend(ctx context.Context, found []check) ([]check, error) {
	mended := map[string]checkView{}
	for _, c := range found {
		if c.mend == nil {
			continue
		}
		if err := c.mend(); err != nil {
			return nil, err
		}
		c.Result = "fixed"
		mended[c.Check] = c.checkView
	}
	if len(mended) == 0 {
		return found, nil
	}
	found = a.examine(ctx)
	for i := range found {
		if m, ok := mended[found[i].Check]; ok && found[i].Result == "ok" {
			found[i].checkView = m
		}
	}
	return found, nil
}

func (a *app) printChecks(found []check) error {
	l := a.list("Check", 0, "CHECK", "RESULT", "WHAT", "FIX")
	var codes []fcp.Code
	warnings := 0
	for i := range found {
		c := &found[i]
		if err := l.add(c.checkView, c.Check, c.Check, c.Result, c.What, c.Fix); err != nil {
			return err
		}
		switch {
		case c.code != 0:
			codes = append(codes, c.code)
		case c.Result == "warning":
			warnings++
		}
	}
	if err := l.close(); err != nil {
		return err
	}
	if len(codes) == 0 && warnings > 0 {
		a.note("%s; run the commands under FIX, then `%s` again", resultText(warnings), a.command("doctor"))
		return &exitError{errWarnings, exitFindings}
	}
	return findings(codes, "run the commands under FIX, then `"+a.command("doctor")+"` again")
}

// errWarnings is the outcome of a check that has said everything already.
var errWarnings = errors.New("warnings")

// examine runs all checks. Those of a store that cannot be opened are left out. A
// daemon that runs on the store steps aside meanwhile.
func (a *app) examine(ctx context.Context) (found []check) {
	found = []check{a.checkSettings(), a.checkIdentity()}
	switch err := engine.CheckFormat(vfs.Default, a.flags.dir); {
	case errors.Is(err, fcp.CodeNoStore):
		return append(found, wrong("store", a.command("init"), err))
	case err != nil:
		return append(found, wrong("store", viewError(err).Next, err))
	}
	found = append(found, a.checkModes(), a.checkSpace(false))
	release, err := a.borrow(ctx, a.flags.dir)
	if err != nil {
		return append(found, wrong("fcpd", "look at "+quote(daemon.LogIn(a.flags.dir)), err))
	}
	defer func() {
		if err := release(); err != nil {
			found = append(found, wrong("fcpd", "look at "+quote(daemon.LogIn(a.flags.dir)), err))
		}
	}()
	files, err := a.checkFiles()
	if err == nil && len(files.Findings) > 0 {
		err = fcp.Errorf(files.Findings[0].Code, "%d files differ from when they were closed, the first: %s", len(files.Findings), files.Findings[0].What)
		return append(found, wrong("files", restoreCommand, err))
	}
	if err != nil {
		return append(found, wrong("store", viewError(err).Next, err))
	}
	if files.Recorded {
		found = append(found, ok("files", "%d files are as they were closed", files.Files))
	} else {
		found = append(found, ok("files", "not closed in good order the last time, so there is nothing to compare with"))
	}
	e, err := a.openStore(ctx, a.flags.dir, reading)
	if err != nil {
		return append(found, wrong("store", viewError(err).Next, err))
	}
	found = append(found, ok("store", "format %d, opens", engine.Format))
	found = append(found, a.checkTail(e), a.checkClock(e), a.checkState(e), a.checkOpenRuns(ctx, e), a.checkDrill(ctx, e))
	if err := e.Close(); err != nil {
		found = append(found, wrong("close", a.command("verify"), err))
	}
	return found
}

func (a *app) checkSettings() check {
	path := a.configPath()
	_, err := os.Stat(path) // it was read before this command began
	if absent(err) {
		return ok("settings", "none, which is fine")
	}
	if err != nil {
		return wrong("settings", "look at "+quote(path), fcp.Wrap(fcp.CodeInvalidArgument, err, "the settings file"))
	}
	if a.flags.context != "" {
		return ok("settings", "%s, context %s", path, a.flags.context)
	}
	return ok("settings", "%s", path)
}

func (a *app) checkIdentity() check {
	path := a.defaultPath("XDG_CONFIG_HOME", ".config", "fcp", "identity")
	info, err := os.Stat(path)
	if absent(err) {
		return ok("identity", "not on this machine; keep it where you find it")
	}
	if err == nil && info.Mode().Perm()&0o077 != 0 { // it would not be used
		c := warning("identity", "chmod 600 "+quote(path), "others on this machine may read %s", path)
		c.mend = func() error { return chmod(path, 0o600) }
		return c
	}
	if err == nil {
		_, err = keystore.ReadIdentityInfo(keystore.OS{}, path)
	}
	if err != nil {
		return wrong("identity", "look at "+quote(path), err)
	}
	return ok("identity", "%s; is there a copy of it elsewhere?", path)
}

func chmod(path string, mode fs.FileMode) error {
	if err := os.Chmod(path, mode); err != nil {
		return inputError(err, path)
	}
	return nil
}

// checkModes looks at who may read the store.
func (a *app) checkModes() check {
	keys := filepath.Join(a.flags.dir, "keys")
	wanted := map[string]fs.FileMode{a.flags.dir: 0o700, keys: 0o700, filepath.Join(keys, "node"): 0o600}
	var what, fix []string
	for _, path := range slices.Sorted(maps.Keys(wanted)) {
		info, err := os.Stat(path)
		if errors.Is(err, fs.ErrNotExist) { // opening the store says what that means
			delete(wanted, path)
			continue
		}
		if err != nil {
			return wrong("modes", a.command("verify"), fcp.Wrap(fcp.CodeDisk, err, "look at the store"))
		}
		if info.Mode().Perm()&^wanted[path] == 0 {
			delete(wanted, path)
			continue
		}
		what = append(what, fmt.Sprintf("%s has mode %o", path, info.Mode().Perm()))
		fix = append(fix, fmt.Sprintf("chmod %o %s", wanted[path], quote(path)))
	}
	if len(what) == 0 {
		return ok("modes", "nobody else may read the store")
	}
	c := warning("modes", strings.Join(fix, " && "), "%s", strings.Join(what, ", "))
	c.mend = func() error {
		for path, mode := range wanted {
			if err := chmod(path, mode); err != nil {
				return err
			}
		}
		return nil
	}
	return c
}

// checkSpace looks at the space that is left. refused: the store takes no writes for want
// of it, which also a quota causes that does not show from here.
func (a *app) checkSpace(refused bool) check {
	free, err := a.freeBytes(a.flags.dir)
	room := "free some space on the disk of " + quote(a.flags.dir) + "; writes go on by themselves"
	switch mib := free >> 20; {
	case err != nil:
		return wrong("space", "df "+quote(a.flags.dir), fcp.Wrap(fcp.CodeDisk, err, "ask for the free space"))
	case free < appendReserve || refused && free < 2*appendReserve: // it takes some more before appends go on
		return wrong("space", room, fcp.Errorf(fcp.CodeDiskFull, "%d MiB free; appends are refused below %d MiB, reads go on", mib, appendReserve>>20))
	case refused:
		return wrong("space", room, fcp.Errorf(fcp.CodeDiskFull, "%d MiB free on it, but writes were refused, as by a quota; reads go on", mib))
	case free < lowSpace:
		return warning("space", a.command("segment", "compact", "--dry-run"), "%d MiB free; appends stop below %d MiB", mib, appendReserve>>20)
	default:
		return ok("space", "%d MiB free", mib)
	}
}

// freeBytes returns what is free on the disk of dir.
func (a *app) freeBytes(dir string) (uint64, error) {
	if a.free != nil {
		return a.free(dir)
	}
	u, err := vfs.Default.GetDiskUsage(dir)
	return u.AvailBytes, err
}

func (a *app) checkTail(e *engine.Engine) check {
	if doubt := e.Log().Doubt(); doubt != nil {
		return wrong("log", restoreCommand, doubt)
	}
	return ok("log", "ends where it was acknowledged to, position %d", e.Log().Durable())
}

func (a *app) checkClock(e *engine.Engine) check {
	var last fcp.Time
	for _, f := range e.Log().Feeds() {
		last = max(last, f.Time)
	}
	if ahead := last.Wall().Sub(a.now()); ahead > clockSlack {
		return warning("clock", "set this machine's clock", "the last event is %s ahead of the clock", ahead.Round(time.Second))
	}
	return ok("clock", "not behind the log")
}

func (a *app) checkState(e *engine.Engine) check {
	s := e.Status()
	if s.Applied != s.Position {
		return warning("state", a.command("replay", "--in-place", "--yes"), "the state stands at %d, the log at %d", s.Applied, s.Position)
	}
	for _, p := range s.Projections {
		if p.Building {
			return warning("state", "wait", "projection %s is being rebuilt", p.Name)
		}
	}
	return ok("state", "reflects the log up to position %d", s.Applied)
}

func (a *app) checkOpenRuns(ctx context.Context, e *engine.Engine) check {
	runs, err := openRuns(ctx, e)
	if err != nil {
		return wrong("sealing", a.command("log", "verify"), err)
	}
	var n uint64
	for _, r := range runs {
		n += r.Events
	}
	if n > manyOpen {
		c := warning("sealing", a.command("segment", "seal"), "%d events are in no segment yet", n)
		c.mend = func() error {
			return a.withStore(ctx, writing, func(e *engine.Engine) error {
				_, err := e.Log().Seal(ctx, log.SealOptions{All: true})
				return err
			})
		}
		return c
	}
	return ok("sealing", "%d events are in no segment yet", n)
}

// manyOpen is how many events in no segment are worth a word: they are sealed by
// size and time while the store is open, so many are left only by short commands.
const manyOpen = 10_000

func (a *app) checkDrill(ctx context.Context, e *engine.Engine) check {
	fix := a.command("backup", "drill", "BACKUP", "--identity", "FILE")
	r, there, err := e.LastDrill(ctx)
	switch {
	case err != nil:
		return wrong("drill", fix, err)
	case !there:
		return warning("drill", fix, "no backup of this store was ever restored for practice")
	case r.Failure != 0:
		return wrong("drill", fix, fcp.Errorf(r.Failure, "the last drill, of %s at %s, did not pass", r.Where, timeText(r.Started)))
	case a.now().Sub(r.Started) > drillAge:
		return warning("drill", fix, "the last drill passed %d days ago", int(a.now().Sub(r.Started).Hours()/24))
	}
	return ok("drill", "%s passed at %s", r.Where, timeText(r.Started))
}
