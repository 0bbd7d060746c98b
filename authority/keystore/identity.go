package keystore

import (
	"bytes"
	"errors"
	"io"

	"filippo.io/age"

	"fcp"
	"fcp/authority"
)

const (
	protectNone = "none"
	protectAge  = "age-scrypt"
)

const missingIdentity = "name the file that `fcpctl init` wrote, with --identity FILE"

// The scrypt cost of an identity file, as log2 of N with r=8, p=1: 2^18 takes
// about a second and 256 MiB. A file that asks for more than the highest is
// refused, so that a bad file cannot exhaust memory.
const (
	defaultWorkFactor = 18
	maxWorkFactor     = 20
)

// Protection says how an identity file is protected. The zero value is refused:
// leaving a key in the clear has to be said.
type Protection struct {
	Passphrase   string // when not empty, the file is encrypted under it
	NoPassphrase bool   // the file holds the owner's secret in the clear
	WorkFactor   int    // log2 of scrypt's N for writing; 0 means 18
}

// IdentityInfo is what an identity file says without being opened.
type IdentityInfo struct {
	Owner     authority.OwnerPublic
	Encrypted bool // a passphrase is needed
}

// CreateIdentity writes the owner's entropy to a new file. Errors: CodeStoreExists
// when the file is there, CodeInvalidArgument when Protection says neither or
// both, CodeDisk. age draws its salt from the operating system, not from an
// injected source: the file never enters the log.
func CreateIdentity(files FS, path string, owner *authority.OwnerKey, p Protection) error {
	b, err := encodeIdentity(owner, p)
	if err != nil {
		return err
	}
	defer clear(b)
	return write(files, path, b)
}

func encodeIdentity(owner *authority.OwnerKey, p Protection) ([]byte, error) {
	if (p.Passphrase == "") != p.NoPassphrase {
		return nil, fcp.Errorf(fcp.CodeInvalidArgument, "an identity file takes either a passphrase or the word that it has none").
			WithNext("give a passphrase, or --no-passphrase")
	}
	headers := map[string]string{headFormat: format, headOwner: owner.Public().String(), headProtect: protectNone}
	body := owner.Entropy()
	defer clear(body)
	if p.Passphrase != "" {
		headers[headProtect] = protectAge
		sealed, err := seal(body, p)
		if err != nil {
			return nil, err
		}
		headers[headCheck] = checksum(sealed)
		return encode(identityType, headers, sealed), nil
	}
	headers[headCheck] = checksum(body)
	return encode(identityType, headers, body), nil
}

func seal(secret []byte, p Protection) ([]byte, error) {
	r, err := age.NewScryptRecipient(p.Passphrase)
	if err != nil {
		return nil, fcp.Errorf(fcp.CodeInternal, "the passphrase cannot be used")
	}
	factor := p.WorkFactor
	if factor == 0 {
		factor = defaultWorkFactor
	}
	if factor < 1 || factor > maxWorkFactor {
		return nil, fcp.Errorf(fcp.CodeInvalidArgument, "scrypt work factor %d, not 1 to %d", factor, maxWorkFactor)
	}
	r.SetWorkFactor(factor)
	var out bytes.Buffer
	w, err := age.Encrypt(&out, r)
	if err == nil {
		_, err = w.Write(secret)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		return nil, fcp.Errorf(fcp.CodeInternal, "encrypt the identity")
	}
	return out.Bytes(), nil
}

// ReadIdentityInfo says whose identity a file holds and whether it needs a
// passphrase. The owner key is a claim until LoadIdentity has opened the file.
func ReadIdentityInfo(files FS, path string) (IdentityInfo, error) {
	b, err := read(files, path, missingIdentity)
	if err != nil {
		return IdentityInfo{}, err
	}
	defer clear(b)
	info, body, err := decodeIdentity(b)
	clear(body)
	return info, err
}

func decodeIdentity(b []byte) (IdentityInfo, []byte, error) {
	headers, body, err := decode(identityType, b, headOwner, headProtect, headCheck)
	if err != nil {
		return IdentityInfo{}, nil, err
	}
	if headers[headCheck] != checksum(body) {
		return IdentityInfo{}, nil, malformed("its checksum is wrong: it is damaged")
	}
	owner, err := key(headers, headOwner)
	if err != nil {
		return IdentityInfo{}, nil, err
	}
	p := headers[headProtect]
	if p != protectNone && p != protectAge {
		return IdentityInfo{}, nil, malformed("protection %.16q", p)
	}
	return IdentityInfo{Owner: owner, Encrypted: p == protectAge}, body, nil
}

// LoadIdentity opens an identity file. passphrase is not used when the file has
// none. want, unless nil, is the owner the caller needs. Errors: CodeNotFound,
// CodeUnauthorized when others may read the file or a passphrase is needed and
// none given, CodeWrongKey for a wrong passphrase or another owner,
// CodeMalformed for a broken file.
func LoadIdentity(files FS, path, passphrase string, want *authority.OwnerPublic) (*authority.OwnerKey, error) {
	b, err := read(files, path, missingIdentity)
	if err != nil {
		return nil, err
	}
	defer clear(b)
	return openIdentity(b, passphrase, want)
}

func openIdentity(b []byte, passphrase string, want *authority.OwnerPublic) (*authority.OwnerKey, error) {
	info, body, err := decodeIdentity(b)
	if err != nil {
		return nil, err
	}
	defer clear(body)
	if want != nil && info.Owner != *want {
		return nil, fcp.Errorf(fcp.CodeWrongKey, "the identity is of owner %s, needed is %s", fcp.KidOf(info.Owner[:]), fcp.KidOf(want[:]))
	}
	entropy := body
	if info.Encrypted {
		if entropy, err = unseal(body, passphrase); err != nil {
			return nil, err
		}
		defer clear(entropy)
	}
	owner, err := authority.OwnerKeyFromEntropy(entropy)
	if err != nil {
		return nil, malformed("the secret has the wrong length")
	}
	if owner.Public() != info.Owner {
		owner.Wipe()
		return nil, malformed("the secret does not belong to the owner it names")
	}
	return owner, nil
}

func unseal(sealed []byte, passphrase string) ([]byte, error) {
	if passphrase == "" {
		return nil, fcp.Errorf(fcp.CodeUnauthorized, "the identity file needs its passphrase").
			WithNext("give the passphrase that was chosen at `fcpctl init`")
	}
	id, err := age.NewScryptIdentity(passphrase)
	if err != nil {
		return nil, fcp.Errorf(fcp.CodeInternal, "the passphrase cannot be used")
	}
	id.SetMaxWorkFactor(maxWorkFactor)
	in := bytes.NewReader(sealed)
	r, err := age.Decrypt(in, id)
	if err != nil {
		// age says "no identity matched" for a wrong passphrase, and another
		// error for a file that was never its own or was damaged.
		if none := (*age.NoIdentityMatchError)(nil); errors.As(err, &none) {
			return nil, fcp.Errorf(fcp.CodeWrongKey, "the passphrase does not open the identity file").
				WithNext("type the passphrase again; without it the 24 words bring the identity back")
		}
		return nil, malformed("the encrypted part is damaged")
	}
	b, err := io.ReadAll(io.LimitReader(r, authority.KeySize+1))
	if err != nil || len(b) != authority.KeySize {
		clear(b)
		return nil, malformed("the encrypted part is damaged")
	}
	return b, nil
}
