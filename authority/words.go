package authority

import (
	"strings"

	"github.com/tyler-smith/go-bip39"

	"fcp"
)

// WordCount is the number of BIP-39 English words of an owner key: 256 bits of
// entropy and an 8-bit checksum.
const WordCount = 24

// Words returns the 24 words that bring the owner key back. They are the secret.
func (k *OwnerKey) Words() (string, error) {
	w, err := bip39.NewMnemonic(k.p().entropy[:])
	if err != nil {
		return "", fcp.Errorf(fcp.CodeInternal, "24 words from 32 bytes")
	}
	return w, nil
}

// OwnerKeyFromWords reads 24 words in any case, separated by any white space. A
// wrong count, an unknown word or a wrong checksum is CodeInvalidArgument; the
// error never repeats a word.
func OwnerKeyFromWords(words string) (*OwnerKey, error) {
	f := strings.Fields(strings.ToLower(words))
	if len(f) != WordCount {
		return nil, fcp.Errorf(fcp.CodeInvalidArgument, "%d recovery words, not %d", len(f), WordCount)
	}
	for i, w := range f {
		if _, ok := bip39.GetWordIndex(w); !ok {
			return nil, fcp.Errorf(fcp.CodeInvalidArgument, "recovery word %d is not in the list", i+1)
		}
	}
	e, err := bip39.EntropyFromMnemonic(strings.Join(f, " "))
	if err != nil {
		return nil, fcp.Errorf(fcp.CodeInvalidArgument, "the checksum of the recovery words is wrong: a word is wrong or out of order")
	}
	defer clear(e)
	return OwnerKeyFromEntropy(e)
}
