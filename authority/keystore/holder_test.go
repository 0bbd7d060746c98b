package keystore

import (
	"bytes"
	"errors"
	"testing"

	"fcp"
	"fcp/authority"
)

func TestHolderAndTokenRoundTrip(t *testing.T) {
	files := newMemory()
	k, err := CreateHolder(files, "key", testRand(1))
	if err != nil {
		t.Fatal(err)
	}
	got, err := LoadHolder(files, "key")
	if err != nil || got.Public() != k.Public() {
		t.Fatalf("%v", err)
	}
	if _, err := CreateHolder(files, "key", testRand(2)); !errors.Is(err, fcp.CodeStoreExists) {
		t.Fatalf("a key was written over: %v", err)
	}
	chain, err := authority.NewChain([]byte("one"), []byte("two"))
	if err != nil {
		t.Fatal(err)
	}
	if err := CreateToken(files, "token", chain); err != nil {
		t.Fatal(err)
	}
	back, err := LoadToken(files, "token")
	if err != nil || !bytes.Equal(back.Bytes(), chain.Bytes()) {
		t.Fatalf("%v", err)
	}
	for _, name := range []string{"key", "token"} {
		whole := files.files[name]
		for i := range whole {
			bad := bytes.Clone(whole)
			bad[i] ^= 1
			files.files[name] = bad
			if k, err := LoadHolder(files, name); name == "key" && err == nil {
				t.Fatalf("byte %d of the key can be changed: %v", i, k.Public())
			}
		}
		files.files[name] = whole
	}
	if _, err := LoadToken(files, "key"); !errors.Is(err, fcp.CodeMalformed) {
		t.Fatalf("a key passed as a token: %v", err)
	}
	files.mode = 0o644
	if _, err := LoadHolder(files, "key"); !errors.Is(err, fcp.CodeUnauthorized) {
		t.Fatalf("a key that others may read: %v", err)
	}
}

func FuzzHolderFile(f *testing.F) {
	f.Add([]byte("-----BEGIN FCP HOLDER KEY-----\n"))
	f.Fuzz(func(t *testing.T, b []byte) { _, _ = decodeHolder(b) })
}

func FuzzTokenFile(f *testing.F) {
	f.Add([]byte("-----BEGIN FCP CAPABILITY TOKEN-----\n"))
	f.Fuzz(func(t *testing.T, b []byte) { _, _ = decodeToken(b) })
}
