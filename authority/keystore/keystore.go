// Package keystore keeps the owner identity and the node keys in files. It is
// the only part of authority that does I/O, all of it through FS.
//
// # Files
//
// Both are one PEM block whose headers are public and whose body is secret
// (docs/format.md "Identity file", "Node key file"). A file is made once with
// mode 0600, complete and synced or not there at all, and never overwritten. A
// file that others may read is refused. Each has exactly one accepted form: what
// is read must encode back to the same bytes.
//
// # Evolution
//
// Format is 1. A header is never removed or given a new meaning within a format;
// an unknown one is refused.
package keystore

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"runtime"
	"strings"

	"fcp"
	"fcp/authority"
)

// MaxFile limits both files, in bytes.
const MaxFile = 16 << 10

const (
	format       = "1"
	headFormat   = "Format"
	headOwner    = "Owner"
	headProtect  = "Protection"
	headCheck    = "Check"
	headWriter   = "Writer"
	headEncrypt  = "Encryption"
	headIssuance = "Issuance"

	identityType = "FCP OWNER IDENTITY"
	nodeType     = "FCP NODE KEYS"
)

// read returns the file at path after the checks that concern the file itself.
// missing is the next step when there is no such file.
func read(files FS, path, missing string) ([]byte, error) {
	b, mode, err := files.ReadFile(path, MaxFile)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fcp.Errorf(fcp.CodeNotFound, "key file %s", path).WithNext(missing)
	case errors.Is(err, fs.ErrPermission):
		return nil, fcp.Errorf(fcp.CodeUnauthorized, "this user may not read key file %s", path).WithNext("run as the user who made it")
	case errors.Is(err, errTooLong):
		return nil, fcp.Errorf(fcp.CodeMalformed, "key file %s is longer than %d bytes", path, MaxFile).WithNext(restoreFile)
	case err != nil:
		return nil, fcp.Wrap(fcp.CodeDisk, err, "read key file")
	case runtime.GOOS != "windows" && mode.Perm()&0o077 != 0:
		clear(b)
		return nil, fcp.Errorf(fcp.CodeUnauthorized, "key file %s can be read by others (mode %04o)", path, mode.Perm()).
			WithNext("run `chmod 600 " + shellQuote(path) + "`, and think about who may have read it")
	}
	return b, nil
}

// checksum tells a damaged file from a wrong passphrase. It is the first 8 bytes
// of SHA-256 over a purpose string and the body, which for an encrypted file is
// ciphertext, and otherwise 256 bits of entropy that a hash does not betray.
func checksum(body []byte) string {
	h := sha256.New()
	io.WriteString(h, "FCP2-IDENTITY-CHECK-V1")
	h.Write(body)
	return hex.EncodeToString(h.Sum(nil)[:8])
}

const restoreFile = "restore the file from a copy, or make it again from the 24 words"

func write(files FS, path string, data []byte) error {
	err := files.WriteFileAtomic(path, data)
	switch {
	case errors.Is(err, fs.ErrExist):
		return fcp.Errorf(fcp.CodeStoreExists, "key file %s is there and is not overwritten", path).
			WithNext("use it as it is, or name another file")
	case errors.Is(err, fs.ErrNotExist):
		return fcp.Errorf(fcp.CodeNotFound, "no directory for key file %s", path).WithNext("make the directory first")
	case errors.Is(err, fs.ErrPermission):
		return fcp.Errorf(fcp.CodeUnauthorized, "this user may not write key file %s", path).WithNext("name a file in a directory of your own")
	case err != nil:
		return fcp.Wrap(fcp.CodeDisk, err, "write key file")
	}
	return nil
}

func shellQuote(s string) string {
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// encode returns the one form of a key file.
func encode(kind string, headers map[string]string, body []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Headers: headers, Bytes: body})
}

// decode parses a key file of the given kind with exactly the named headers.
func decode(kind string, b []byte, names ...string) (map[string]string, []byte, error) {
	if len(b) > MaxFile {
		return nil, nil, malformed("longer than %d bytes", MaxFile)
	}
	block, rest := pem.Decode(b)
	if block == nil || len(rest) != 0 {
		return nil, nil, malformed("not one PEM block")
	}
	if block.Type != kind {
		return nil, nil, malformed("a PEM block of another type, not %s", kind)
	}
	if v, ok := block.Headers[headFormat]; ok && v != format {
		return nil, nil, fcp.Errorf(fcp.CodeVersion, "key file in format %.8q, this build knows %s", v, format)
	}
	if len(block.Headers) != len(names)+1 {
		return nil, nil, malformed("other headers than it must have")
	}
	for _, n := range append(names, headFormat) {
		if _, ok := block.Headers[n]; !ok {
			return nil, nil, malformed("no header %s", n)
		}
	}
	if again := encode(kind, block.Headers, block.Bytes); !bytes.Equal(again, b) {
		clear(again)
		return nil, nil, fcp.Errorf(fcp.CodeNonCanonical, "key file is not in its one form").WithNext(restoreFile)
	}
	return block.Headers, block.Bytes, nil
}

func malformed(detail string, args ...any) *fcp.Error {
	return fcp.Errorf(fcp.CodeMalformed, "key file: %s", fmt.Sprintf(detail, args...)).WithNext(restoreFile)
}

// key reads a public key header.
func key(headers map[string]string, name string) ([authority.KeySize]byte, error) {
	var k [authority.KeySize]byte
	v := headers[name]
	if b, err := hex.DecodeString(v); err != nil || len(b) != len(k) || hex.EncodeToString(b) != v {
		return k, malformed("header %s is not %d lower-case hex digits", name, 2*len(k))
	}
	hex.Decode(k[:], []byte(v))
	return k, nil
}
