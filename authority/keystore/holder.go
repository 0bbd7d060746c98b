package keystore

import (
	"encoding/hex"
	"errors"
	"io"

	"fcp"
	"fcp/authority"
)

const (
	holderType = "FCP HOLDER KEY"
	tokenType  = "FCP CAPABILITY TOKEN"
	headHolder = "Holder"
)

// CreateHolder makes the key of a token's holder from rand and writes it to a new
// file, in the clear: it is short-lived and opens what its tokens say. Errors:
// CodeStoreExists when the file is there, CodeDisk.
func CreateHolder(files FS, path string, rand io.Reader) (*authority.HolderKey, error) {
	k, err := authority.NewHolderKey(rand)
	if err != nil {
		return nil, err
	}
	secret := k.Secret()
	defer clear(secret)
	pub := k.Public()
	b := encode(holderType, map[string]string{headFormat: format, headHolder: pub.String()}, secret)
	defer clear(b)
	if err := write(files, path, b); err != nil {
		k.Wipe()
		return nil, err
	}
	return k, nil
}

// LoadHolder opens a holder key file. Errors: CodeNotFound, CodeUnauthorized when
// others may read the file, CodeMalformed for a broken one.
func LoadHolder(files FS, path string) (*authority.HolderKey, error) {
	b, err := read(files, path, "name the file that `fcpctl cap mint` or `fcpctl cap attenuate` wrote with --key")
	if err != nil {
		return nil, err
	}
	defer clear(b)
	return decodeHolder(b)
}

func decodeHolder(b []byte) (*authority.HolderKey, error) {
	headers, seed, err := decode(holderType, b, headHolder)
	if err != nil {
		return nil, err
	}
	defer clear(seed)
	k, err := authority.HolderKeyFromSeed(seed)
	if err != nil {
		return nil, malformed("the secret is not that of a holder")
	}
	if pub := k.Public(); hex.EncodeToString(pub[:]) != headers[headHolder] {
		k.Wipe()
		return nil, malformed("the secret does not belong to the key it names")
	}
	return k, nil
}

// CreateToken writes a chain of tokens to a new file. Whoever has it without the
// holder's key can do nothing with it, and still it is nobody's business.
func CreateToken(files FS, path string, chain *authority.Chain) error {
	return write(files, path, encode(tokenType, map[string]string{headFormat: format}, chain.Bytes()))
}

// LoadToken reads a token file. Errors are those of LoadHolder. Nothing in the chain
// is verified.
func LoadToken(files FS, path string) (*authority.Chain, error) {
	b, err := read(files, path, "name the file that `fcpctl cap mint` or `fcpctl cap attenuate` wrote")
	if err != nil {
		return nil, err
	}
	return decodeToken(b)
}

func decodeToken(b []byte) (*authority.Chain, error) {
	_, raw, err := decode(tokenType, b)
	if err != nil {
		return nil, err
	}
	chain, err := authority.ParseChain(raw)
	if err != nil && !errors.Is(err, fcp.CodeTooLarge) {
		return nil, malformed("it holds no chain of tokens")
	}
	return chain, err
}
