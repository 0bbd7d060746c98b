package log

import (
	"fmt"
	"strings"
	"testing"

	"fcp/internal/crashfs"
)

func write(t *testing.T, fs *crashfs.FS, path, content string) {
	t.Helper()
	f, err := fs.Create(path, "")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write([]byte(content)); err != nil {
		t.Fatal(err)
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

// cleanTree is a small directory tree with a table.
func cleanTree(t *testing.T) *crashfs.FS {
	t.Helper()
	fs := crashfs.New()
	if err := fs.MkdirAll("r/log/deep", 0o755); err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{"r/a", "r/log/000001.sst", "r/log/deep/x", "r/skipped", "r/log/\"q\" \n"} {
		write(t, fs, p, "content of "+p)
	}
	if err := syncDir(fs, "."); err != nil { // the name of the root is not the list's business
		t.Fatal(err)
	}
	return fs
}

func TestCleanListFindsEveryChange(t *testing.T) {
	for name, c := range map[string]struct {
		change func(t *testing.T, fs *crashfs.FS)
		want   string // of the one finding; empty for none
	}{
		"nothing":         {func(*testing.T, *crashfs.FS) {}, ""},
		"excluded file":   {func(t *testing.T, fs *crashfs.FS) { write(t, fs, "r/skipped", "other") }, ""},
		"file changed":    {func(t *testing.T, fs *crashfs.FS) { write(t, fs, "r/a", "CONTENT of r/a") }, "a"},
		"file longer":     {func(t *testing.T, fs *crashfs.FS) { write(t, fs, "r/a", "content of r/a!") }, "a"},
		"file gone":       {func(t *testing.T, fs *crashfs.FS) { fs.Remove("r/log/deep/x") }, "log/deep/x"},
		"file added":      {func(t *testing.T, fs *crashfs.FS) { write(t, fs, "r/log/new", "") }, "log/new"},
		"list changed":    {func(t *testing.T, fs *crashfs.FS) { fs.Flip("r/CLEAN", 20, 0) }, cleanName},
		"list cut":        {func(t *testing.T, fs *crashfs.FS) { write(t, fs, "r/CLEAN", "FCP-CLEAN 1\n") }, cleanName},
		"table same size": {func(t *testing.T, fs *crashfs.FS) { fs.Flip("r/log/000001.sst", 3, 7) }, "log/000001.sst"},
	} {
		t.Run(name, func(t *testing.T) {
			fs := cleanTree(t)
			if err := RecordClean(fs, "r", nil, "skipped"); err != nil {
				t.Fatal(err)
			}
			fs = fs.CrashClone() // a power cut behind the close changes nothing
			c.change(t, fs)
			r, err := CheckClean(fs, "r", "skipped")
			if err != nil || !r.Recorded {
				t.Fatal(r, err)
			}
			if n := len(r.Findings); c.want == "" && n != 0 || c.want != "" && (n != 1 || r.Findings[0].Where != c.want) {
				t.Fatalf("findings %v, wanted one of %q", r.Findings, c.want)
			}
		})
	}
}

func TestCleanListIsThereOnlyWhileClosed(t *testing.T) {
	fs := cleanTree(t)
	if r, err := CheckClean(fs, "r"); err != nil || r.Recorded {
		t.Fatal(r, err)
	}
	if was, err := ForgetClean(fs, "r"); was || err != nil {
		t.Fatal(was, err)
	}
	for range 3 {
		if err := RecordClean(fs, "r", nil); err != nil {
			t.Fatal(err)
		}
		fs = fs.CrashClone()
		if r, err := CheckClean(fs, "r"); err != nil || !r.Recorded || len(r.Findings) > 0 || r.Files != 5 {
			t.Fatal(r, err)
		}
		if was, err := ForgetClean(fs, "r"); !was || err != nil {
			t.Fatal(was, err)
		}
		fs = fs.CrashClone()
		if r, err := CheckClean(fs, "r"); err != nil || r.Recorded {
			t.Fatal(r, err)
		}
	}
}

// TestCleanListReusesHashesOfTables: a table that was listed before is not read
// again, and rot in it since then is found by the next check.
func TestCleanListReusesHashesOfTables(t *testing.T) {
	fs := cleanTree(t)
	if err := RecordClean(fs, "r", nil); err != nil {
		t.Fatal(err)
	}
	if _, err := ForgetClean(fs, "r"); err != nil {
		t.Fatal(err)
	}
	if err := fs.Flip("r/log/000001.sst", 3, 7); err != nil {
		t.Fatal(err)
	}
	read := false
	fs.SetHook(func(op crashfs.Op) error {
		read = read || op.Kind == crashfs.Open && strings.HasSuffix(op.Path, ".sst")
		return nil
	})
	if err := RecordClean(fs, "r", nil); err != nil {
		t.Fatal(err)
	}
	if read {
		t.Fatal("the table was read again")
	}
	r, err := CheckClean(fs, "r")
	if err != nil || len(r.Findings) != 1 || !strings.Contains(fmt.Sprint(r.Findings), "000001.sst") {
		t.Fatalf("%v, %v", r.Findings, err)
	}
}
