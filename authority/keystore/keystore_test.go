package keystore

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"fcp"
	"fcp/authority"
)

const quick = 4 // scrypt work factor of tests

func testRand(seed byte) io.Reader { return rand.NewChaCha8([32]byte{seed}) }

func testOwner(t testing.TB, seed byte) *authority.OwnerKey {
	t.Helper()
	k, err := authority.NewOwnerKey(testRand(seed))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func testNode(t testing.TB, seed byte) *authority.NodeKeys {
	t.Helper()
	k, err := authority.NewNodeKeys(testRand(seed))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// memory is an FS in memory.
type memory struct {
	files map[string][]byte
	mode  fs.FileMode
	fail  error
}

func newMemory() *memory { return &memory{files: map[string][]byte{}, mode: 0o600} }

func (m *memory) ReadFile(path string, max int64) ([]byte, fs.FileMode, error) {
	b, ok := m.files[path]
	switch {
	case m.fail != nil:
		return nil, 0, m.fail
	case !ok:
		return nil, 0, fs.ErrNotExist
	case int64(len(b)) > max:
		return nil, 0, errTooLong
	}
	return bytes.Clone(b), m.mode, nil
}

func (m *memory) WriteFileAtomic(path string, data []byte) error {
	if m.fail != nil {
		return m.fail
	}
	if _, ok := m.files[path]; ok {
		return fs.ErrExist
	}
	m.files[path] = bytes.Clone(data)
	return nil
}

func wantCode(t testing.TB, err error, code fcp.Code) {
	t.Helper()
	if err == nil || fcp.CodeOf(err) != code {
		t.Errorf("got %v, want %s", err, code)
		return
	}
	var e *fcp.Error
	if errors.As(err, &e) && e.NextStep() == "" {
		t.Errorf("%v has no next step", err)
	}
}

// TestFileSystems is the contract of FS, for the real one and the one in memory.
func TestFileSystems(t *testing.T) {
	for name, make := range map[string]func() (FS, string){
		"os":     func() (FS, string) { return OS{}, t.TempDir() },
		"memory": func() (FS, string) { return newMemory(), "dir" },
	} {
		t.Run(name, func(t *testing.T) {
			files, dir := make()
			path := filepath.Join(dir, "a b'c")
			if _, _, err := files.ReadFile(path, 10); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("missing: %v", err)
			}
			if err := files.WriteFileAtomic(path, []byte("data")); err != nil {
				t.Fatal(err)
			}
			if err := files.WriteFileAtomic(path, []byte("other")); !errors.Is(err, fs.ErrExist) {
				t.Errorf("overwrite: %v", err)
			}
			b, mode, err := files.ReadFile(path, 4)
			if err != nil || string(b) != "data" || runtime.GOOS != "windows" && mode.Perm() != 0o600 {
				t.Errorf("%q %o %v", b, mode, err)
			}
			if _, _, err := files.ReadFile(path, 3); err == nil {
				t.Error("a longer file than asked for")
			}
		})
	}
}

func TestWriteLeavesNothingBehind(t *testing.T) {
	dir := t.TempDir()
	for range 2 {
		OS{}.WriteFileAtomic(filepath.Join(dir, "f"), []byte("data"))
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 {
		t.Errorf("%v %v", entries, err)
	}
}

func TestIdentityRoundTrip(t *testing.T) {
	for name, p := range map[string]Protection{
		"plain":      {NoPassphrase: true},
		"passphrase": {Passphrase: "correct horse", WorkFactor: quick},
	} {
		t.Run(name, func(t *testing.T) {
			files, o := newMemory(), testOwner(t, 1)
			if err := CreateIdentity(files, "id", o, p); err != nil {
				t.Fatal(err)
			}
			wantCode(t, CreateIdentity(files, "id", testOwner(t, 2), p), fcp.CodeStoreExists)
			info, err := ReadIdentityInfo(files, "id")
			if err != nil || info.Owner != o.Public() || info.Encrypted != (p.Passphrase != "") {
				t.Errorf("%+v %v", info, err)
			}
			want := o.Public()
			got, err := LoadIdentity(files, "id", p.Passphrase, &want)
			if err != nil || !bytes.Equal(got.Entropy(), o.Entropy()) {
				t.Fatalf("load: %v", err)
			}
			stranger := testOwner(t, 2).Public()
			_, err = LoadIdentity(files, "id", p.Passphrase, &stranger)
			wantCode(t, err, fcp.CodeWrongKey)
			if p.Passphrase == "" {
				return
			}
			_, err = LoadIdentity(files, "id", "wrong horse", nil)
			wantCode(t, err, fcp.CodeWrongKey)
			if strings.Contains(err.Error(), "horse") {
				t.Errorf("the error repeats a passphrase: %v", err)
			}
			_, err = LoadIdentity(files, "id", "", nil)
			wantCode(t, err, fcp.CodeUnauthorized)
			if bytes.Contains(files.files["id"], o.Entropy()) {
				t.Error("the secret is in the encrypted file")
			}
		})
	}
}

func TestIdentityNeedsAWordAboutItsProtection(t *testing.T) {
	for _, p := range []Protection{{}, {Passphrase: "x", NoPassphrase: true}, {Passphrase: "x", WorkFactor: 21}} {
		wantCode(t, CreateIdentity(newMemory(), "id", testOwner(t, 1), p), fcp.CodeInvalidArgument)
	}
}

func TestEveryFlippedByteOfAKeyFileIsRefused(t *testing.T) {
	files := newMemory()
	o := testOwner(t, 1)
	for path, p := range map[string]Protection{"plain": {NoPassphrase: true}, "sealed": {Passphrase: "pass", WorkFactor: quick}} {
		if err := CreateIdentity(files, path, o, p); err != nil {
			t.Fatal(err)
		}
	}
	if err := CreateNode(files, "node", testNode(t, 1)); err != nil {
		t.Fatal(err)
	}
	for path, b := range files.files {
		for i := range b {
			bad := bytes.Clone(b)
			bad[i] ^= 1 << (i % 7)
			var err error
			if path == "node" {
				_, err = decodeNode(bad)
			} else {
				_, err = openIdentity(bad, "pass", nil)
			}
			switch fcp.CodeOf(err) {
			case fcp.CodeMalformed, fcp.CodeNonCanonical, fcp.CodeVersion:
			default:
				t.Errorf("%s, byte %d (%q): %v", path, i, b[i], err)
			}
		}
	}
}

func TestNodeRoundTrip(t *testing.T) {
	path := filepath.Join(t.TempDir(), NodeFile)
	n := testNode(t, 1)
	if err := CreateNode(OS{}, path, n); err != nil {
		t.Fatal(err)
	}
	wantCode(t, CreateNode(OS{}, path, testNode(t, 2)), fcp.CodeStoreExists)
	want := n.Public()
	got, err := LoadNode(OS{}, path, &want)
	if err != nil || !bytes.Equal(got.Secret(), n.Secret()) {
		t.Fatalf("load: %v", err)
	}
	other := testNode(t, 2).Public()
	_, err = LoadNode(OS{}, path, &other)
	wantCode(t, err, fcp.CodeWrongKey)
}

func TestFilesThatOthersMayReadAreRefused(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("no such modes")
	}
	path := filepath.Join(t.TempDir(), "it's mine")
	if err := CreateIdentity(OS{}, path, testOwner(t, 1), Protection{NoPassphrase: true}); err != nil {
		t.Fatal(err)
	}
	for _, mode := range []fs.FileMode{0o640, 0o604, 0o666, 0o620} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		_, err := LoadIdentity(OS{}, path, "", nil)
		wantCode(t, err, fcp.CodeUnauthorized)
		var e *fcp.Error
		if !errors.As(err, &e) || !strings.Contains(e.NextStep(), `chmod 600 '`+filepath.Dir(path)+`/it'\''s mine'`) {
			t.Errorf("next step: %s", e.NextStep())
		}
	}
	if err := os.Chmod(path, 0o400); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadIdentity(OS{}, path, "", nil); err != nil {
		t.Error(err)
	}
}

func TestFileErrorsSayWhatToDo(t *testing.T) {
	files := newMemory()
	_, err := LoadIdentity(files, "none", "", nil)
	wantCode(t, err, fcp.CodeNotFound)
	_, err = LoadNode(files, "none", nil)
	wantCode(t, err, fcp.CodeNotFound)
	files.files["long"] = make([]byte, MaxFile+1)
	_, err = LoadNode(files, "long", nil)
	wantCode(t, err, fcp.CodeMalformed)
	for cause, codes := range map[error][2]fcp.Code{
		fs.ErrPermission:  {fcp.CodeUnauthorized, fcp.CodeUnauthorized},
		errors.New("EIO"): {fcp.CodeDisk, fcp.CodeDisk},
		fs.ErrNotExist:    {fcp.CodeNotFound, fcp.CodeNotFound},
	} {
		files.fail = cause
		_, err = ReadIdentityInfo(files, "x")
		wantCode(t, err, codes[0])
		wantCode(t, CreateNode(files, "x", testNode(t, 1)), codes[1])
	}
}

func TestKeyFilesThatAreNotOurs(t *testing.T) {
	files := newMemory()
	if err := CreateNode(files, "node", testNode(t, 1)); err != nil {
		t.Fatal(err)
	}
	if err := CreateIdentity(files, "id", testOwner(t, 1), Protection{NoPassphrase: true}); err != nil {
		t.Fatal(err)
	}
	id := string(files.files["id"])
	for name, b := range map[string]string{
		"empty": "", "noise": "noise", "a node file": string(files.files["node"]),
		"text before": "hello\n" + id, "text after": id + "hello\n", "twice": id + id,
		"CRLF":            strings.ReplaceAll(id, "\n", "\r\n"),
		"another header":  strings.Replace(id, "Format: 1\n", "Format: 1\nNote: x\n", 1),
		"header missing":  strings.Replace(id, "Protection: none\n", "", 1),
		"other protector": strings.Replace(id, "Protection: none", "Protection: rot13", 1),
		"claims sealed":   strings.Replace(id, "Protection: none", "Protection: age-scrypt", 1),
		"no newline":      strings.TrimSuffix(id, "\n"),
	} {
		_, err := openIdentity([]byte(b), "pass", nil)
		if c := fcp.CodeOf(err); c != fcp.CodeMalformed && c != fcp.CodeNonCanonical {
			t.Errorf("%s: %v", name, err)
		}
	}
	_, err := openIdentity([]byte(strings.Replace(id, "Format: 1", "Format: 2", 1)), "", nil)
	wantCode(t, err, fcp.CodeVersion)
}

func FuzzIdentityFile(f *testing.F) {
	o := testOwner(f, 1)
	plain, err := encodeIdentity(o, Protection{NoPassphrase: true})
	if err != nil {
		f.Fatal(err)
	}
	sealed, err := encodeIdentity(o, Protection{Passphrase: "pass", WorkFactor: 1})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(plain)
	f.Add(sealed)
	f.Add([]byte("-----BEGIN FCP OWNER IDENTITY-----\nFormat: 1\n\n-----END FCP OWNER IDENTITY-----\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		info, body, err := decodeIdentity(b)
		if err != nil || info.Encrypted && !bytes.Equal(b, sealed) { // no scrypt on invented files
			return
		}
		if k, err := openIdentity(b, "pass", nil); err == nil && (k.Public() != info.Owner || len(body) == 0) {
			t.Error("opened another owner than the file names")
		}
	})
}

func FuzzNodeFile(f *testing.F) {
	f.Add(encodeNode(testNode(f, 1)))
	f.Fuzz(func(t *testing.T, b []byte) {
		if n, err := decodeNode(b); err == nil && !bytes.Equal(encodeNode(n), b) {
			t.Error("two forms of one file")
		}
	})
}
