package keystore

import (
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/crypto/chacha20poly1305"

	"fcp"
	"fcp/authority"
	"fcp/authority/frost"
)

const (
	ownerShareType = "FCP OWNER SHARE"
	noncesType     = "FCP OWNER NONCES"

	headGroup = "Group"
	headShare = "Share"
	headDraft = "Draft"
)

const missingShare = "name the file that `fcpctl owner split` wrote, with --share FILE"

// MaxOwnerShares limits the holders of a split owner key: what is public of the key
// stands in every file.
const MaxOwnerShares = 16

// OwnerShare is one holder's share of an owner key, and what is public of the key.
type OwnerShare struct {
	Group *frost.Group
	Key   *frost.KeyShare
}

// CreateOwnerShare writes a share of an owner key to a new file, protected as an
// identity is. Errors are those of CreateIdentity.
func CreateOwnerShare(files FS, path string, s OwnerShare, p Protection) error {
	if (p.Passphrase == "") != p.NoPassphrase {
		return fcp.Errorf(fcp.CodeInvalidArgument, "a share takes either a passphrase or the word that it has none")
	}
	b, err := encodeOwnerShare(s, p)
	if err != nil {
		return err
	}
	defer clear(b)
	return write(files, path, b)
}

func encodeOwnerShare(s OwnerShare, p Protection) ([]byte, error) {
	secret := s.Key.Secret()
	defer clear(secret)
	headers := map[string]string{headFormat: format, headGroup: hex.EncodeToString(s.Group.Encode()), headShare: strconv.Itoa(int(s.Key.ID())), headProtect: protectNone}
	body := secret[1:]
	if p.Passphrase != "" {
		headers[headProtect] = protectAge
		var err error
		if body, err = seal(body, p); err != nil {
			return nil, err
		}
	}
	headers[headCheck] = checksum(body)
	return encode(ownerShareType, headers, body), nil
}

// OwnerShareEncrypted reports whether a share file needs a passphrase.
func OwnerShareEncrypted(files FS, path string) (bool, error) {
	b, err := read(files, path, missingShare)
	if err != nil {
		return false, err
	}
	defer clear(b)
	_, body, headers, err := decodeOwnerShare(b)
	clear(body)
	return err == nil && headers[headProtect] == protectAge, err
}

func decodeOwnerShare(b []byte) (*frost.Group, []byte, map[string]string, error) {
	headers, body, err := decode(ownerShareType, b, headGroup, headShare, headProtect, headCheck)
	if err != nil {
		return nil, nil, nil, err
	}
	raw, err := hex.DecodeString(headers[headGroup])
	if err != nil || hex.EncodeToString(raw) != headers[headGroup] {
		return nil, nil, nil, malformed("what is public of the key does not decode")
	}
	g, err := frost.DecodeGroup(raw)
	if err != nil {
		return nil, nil, nil, malformed("what is public of the key does not decode")
	}
	if p := headers[headProtect]; p != protectNone && p != protectAge {
		return nil, nil, nil, malformed("protection %.16q", p)
	}
	if headers[headCheck] != checksum(body) {
		return nil, nil, nil, malformed("its checksum is wrong: it is damaged")
	}
	return g, body, headers, nil
}

// LoadOwnerShare opens a share file; passphrase is not used when it has none. Errors
// are those of LoadIdentity.
func LoadOwnerShare(files FS, path, passphrase string) (OwnerShare, error) {
	b, err := read(files, path, missingShare)
	if err != nil {
		return OwnerShare{}, err
	}
	defer clear(b)
	return openOwnerShare(b, passphrase)
}

func openOwnerShare(b []byte, passphrase string) (OwnerShare, error) {
	g, body, headers, err := decodeOwnerShare(b)
	if err != nil {
		return OwnerShare{}, err
	}
	defer clear(body)
	id, err := strconv.Atoi(headers[headShare])
	if err != nil || id < 1 || id > g.Signers() || strconv.Itoa(id) != headers[headShare] {
		return OwnerShare{}, malformed("share %.8q of a key with %d", headers[headShare], g.Signers())
	}
	secret := body
	if headers[headProtect] == protectAge {
		if secret, err = unseal(body, passphrase); err != nil {
			return OwnerShare{}, err
		}
		defer clear(secret)
	}
	whole := append([]byte{byte(id)}, secret...)
	defer clear(whole)
	k, err := frost.DecodeKeyShare(whole)
	if err != nil {
		return OwnerShare{}, malformed("the secret is not a share")
	}
	if err := g.Check(k); err != nil {
		k.Wipe()
		return OwnerShare{}, malformed("the secret is not share %d of the key it names", id)
	}
	return OwnerShare{g, k}, nil
}

// nonceCipher encrypts nonces between the rounds under the key share they belong to,
// so that their file says nothing without it.
func nonceCipher(s OwnerShare) (cipher.AEAD, error) {
	secret := s.Key.Secret()
	defer clear(secret)
	h := sha256.New()
	io.WriteString(h, "FCP2-NONCE-KEY-V1")
	h.Write(secret)
	key := h.Sum(nil)
	defer clear(key)
	return chacha20poly1305.NewX(key)
}

// CreateNonces moves the nonces of round one for a draft into a new file. They are
// used up in memory, also when it fails.
func CreateNonces(files FS, path string, s OwnerShare, draft fcp.Hash, n *frost.Nonces) error {
	b, err := n.Save()
	if err != nil {
		return err
	}
	defer clear(b)
	aead, err := nonceCipher(s)
	if err != nil {
		return fcp.Wrap(fcp.CodeInternal, err, "the cipher of nonces")
	}
	body := make([]byte, chacha20poly1305.NonceSizeX, chacha20poly1305.NonceSizeX+len(b)+chacha20poly1305.Overhead)
	rand.Read(body) // never fails (crypto/rand)
	body = aead.Seal(body, body, b, draft[:])
	return write(files, path, encode(noncesType, map[string]string{headFormat: format, headDraft: draft.String()}, body))
}

// Taker is FS with what TakeNonces needs besides.
type Taker interface {
	FS
	// Remove removes a file; it is gone from the disk when it returns.
	Remove(path string) error
}

// Remove implements Taker.
func (OS) Remove(path string) error {
	if err := os.Remove(path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// TakeNonces reads the nonces of a draft and removes their file before it returns
// them: they sign once, also over a crash. Errors: CodeNotFound when they were taken,
// CodeWrongKey for another share or draft, CodeMalformed, CodeDisk.
func TakeNonces(files Taker, path string, s OwnerShare, draft fcp.Hash) (*frost.Nonces, error) {
	b, err := read(files, path, "run `fcpctl owner commit` for this draft first; nonces sign once")
	if err != nil {
		return nil, err
	}
	if err := files.Remove(path); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, fcp.Errorf(fcp.CodeNotFound, "the nonces in %s were taken by somebody else just now", path)
		}
		return nil, fcp.Wrap(fcp.CodeDisk, err, "remove the nonces")
	}
	return decodeNonces(b, s, draft)
}

func decodeNonces(b []byte, s OwnerShare, draft fcp.Hash) (*frost.Nonces, error) {
	headers, body, err := decode(noncesType, b, headDraft)
	if err != nil {
		return nil, err
	}
	if headers[headDraft] != draft.String() {
		return nil, fcp.Errorf(fcp.CodeWrongKey, "the nonces are of another draft, %.16s", headers[headDraft])
	}
	aead, err := nonceCipher(s)
	if err != nil {
		return nil, fcp.Wrap(fcp.CodeInternal, err, "the cipher of nonces")
	}
	if len(body) < chacha20poly1305.NonceSizeX {
		return nil, malformed("it is too short")
	}
	plain, err := aead.Open(nil, body[:chacha20poly1305.NonceSizeX], body[chacha20poly1305.NonceSizeX:], draft[:])
	if err != nil {
		return nil, fcp.Errorf(fcp.CodeWrongKey, "the nonces are of another share")
	}
	defer clear(plain)
	return frost.DecodeNonces(plain)
}

// PartKind is what a file between the holders of a split key has. None is secret.
type PartKind string

// The kinds of parts.
const (
	PartDraft      PartKind = "FCP OWNER DRAFT"           // what is to be signed
	PartCommitment PartKind = "FCP OWNER COMMITMENT"      // round one: commitment, and the group
	PartSignature  PartKind = "FCP OWNER SIGNATURE SHARE" // round two
)

// EncodePart returns the file of a part; draft is authority.RefOf what is to be
// signed.
func EncodePart(kind PartKind, draft fcp.Hash, body []byte) []byte {
	return encode(string(kind), map[string]string{headFormat: format, headDraft: draft.String()}, body)
}

// DecodePart is the inverse of EncodePart. Errors: CodeMalformed, CodeNonCanonical,
// CodeVersion, and CodeWrongKey for a part of another draft; want nil is any.
func DecodePart(kind PartKind, b []byte, want *fcp.Hash) ([]byte, fcp.Hash, error) {
	headers, body, err := decode(string(kind), b, headDraft)
	if err != nil {
		return nil, fcp.Hash{}, err
	}
	draft, err := fcp.ParseHash(headers[headDraft])
	if err != nil || draft.String() != headers[headDraft] {
		return nil, fcp.Hash{}, malformed("the draft it names is none")
	}
	if want != nil && draft != *want {
		return nil, fcp.Hash{}, fcp.Errorf(fcp.CodeWrongKey, "it is of another draft, %.16s", draft)
	}
	if kind == PartDraft && authority.RefOf(body) != draft {
		return nil, fcp.Hash{}, malformed("its reference is not that of its bytes")
	}
	return body, draft, nil
}
