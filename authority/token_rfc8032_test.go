package authority

import (
	"bytes"
	"crypto/sha512"
	"math/big"
	"slices"
	"testing"
)

// TestRFC8032 is section 7.1 of RFC 8032 (tests 1, 2, 3 and SHA(abc)) with every
// byte of key, message and signature changed once, and with S + L for S.
func TestRFC8032(t *testing.T) {
	abc := sha512.Sum512([]byte("abc"))
	for name, c := range map[string]struct {
		seed, public string
		message      []byte
		signature    string
	}{
		"1": {"9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60", "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a", nil,
			"e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b"},
		"2": {"4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb", "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c", []byte{0x72},
			"92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"},
		"3": {"c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7", "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025", []byte{0xaf, 0x82},
			"6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a"},
		"SHA(abc)": {"833fe62409237b9d62ec77587520911e9a759cec1d19755b7da901b96dca3d42", "ec172b93ad5e563bf4932c70e1245034c35467ef2efd4d64ebf819683467e2bf", abc[:],
			"dc2a4459e7369633a52b1bf277839a00201009a3efbf3ecb69bea2186c26b58909351fc9ac90b3ecfdfbc7c66431e0303dca179c138ac17ad9bef1177331a704"},
	} {
		k, err := HolderKeyFromSeed(unhexed(t, c.seed))
		pub := must(t, k, err).Public()
		sig := unhexed(t, c.signature)
		if pub.String() != c.public || !bytes.Equal(k.sign(c.message), sig) || !pub.Verify(c.message, sig) {
			t.Fatalf("test %s: %s %x", name, pub, k.sign(c.message))
		}
		for i := range sig {
			bad := slices.Clone(sig)
			bad[i] ^= 1 << (i % 8)
			if pub.Verify(c.message, bad) {
				t.Errorf("test %s: byte %d of the signature does not matter", name, i)
			}
		}
		for i := range pub {
			bad := pub
			bad[i] ^= 1 << (i % 8)
			if bad.Verify(c.message, sig) {
				t.Errorf("test %s: byte %d of the key does not matter", name, i)
			}
		}
		for i := range c.message {
			bad := slices.Clone(c.message)
			bad[i] ^= 1
			if pub.Verify(bad, sig) {
				t.Errorf("test %s: byte %d of the message does not matter", name, i)
			}
		}
		if pub.Verify(c.message, plusOrder(sig)) || pub.Verify(c.message, sig[:63]) || pub.Verify(c.message, append(slices.Clone(sig), 0)) {
			t.Errorf("test %s: another form of the signature passes", name)
		}
	}
}

// plusOrder adds the group order L to S (RFC 8032 section 5.1.7 refuses that).
func plusOrder(sig []byte) []byte {
	order, _ := new(big.Int).SetString("7237005577332262213973186563042994240857116359379907606001950938285454250989", 10)
	le := slices.Clone(sig[32:])
	slices.Reverse(le)
	s := new(big.Int).SetBytes(le)
	out := s.Add(s, order).FillBytes(make([]byte, 32))
	slices.Reverse(out)
	return append(slices.Clone(sig[:32]), out...)
}
