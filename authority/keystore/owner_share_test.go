package keystore

import (
	"bytes"
	"errors"
	"io/fs"
	"path/filepath"
	"testing"

	"fcp"
	"fcp/authority"
	"fcp/authority/frost"
)

// Remove implements Taker.
func (m *memory) Remove(path string) error {
	if _, ok := m.files[path]; !ok {
		return fs.ErrNotExist
	}
	delete(m.files, path)
	return nil
}

func testShares(t testing.TB) (out []OwnerShare) {
	t.Helper()
	g, keys, err := testOwner(t, 1).Split(testRand(2), 2, 3)
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range keys {
		out = append(out, OwnerShare{g, k})
	}
	return out
}

func TestOwnerShareFiles(t *testing.T) {
	shares := testShares(t)
	for _, p := range []Protection{{NoPassphrase: true}, {Passphrase: "open sesame", WorkFactor: quick}} {
		m := newMemory()
		if err := CreateOwnerShare(m, "share", shares[1], p); err != nil {
			t.Fatal(err)
		}
		if err := CreateOwnerShare(m, "share", shares[0], p); !errors.Is(err, fcp.CodeStoreExists) {
			t.Errorf("written over: %v", err)
		}
		encrypted, err := OwnerShareEncrypted(m, "share")
		if err != nil || encrypted != (p.Passphrase != "") {
			t.Errorf("encrypted: %v, %v", encrypted, err)
		}
		got, err := LoadOwnerShare(m, "share", p.Passphrase)
		if err != nil || !bytes.Equal(got.Key.Secret(), shares[1].Key.Secret()) || !bytes.Equal(got.Group.Encode(), shares[1].Group.Encode()) {
			t.Fatalf("%v", err)
		}
		if p.Passphrase != "" {
			if _, err := LoadOwnerShare(m, "share", "wrong"); !errors.Is(err, fcp.CodeWrongKey) {
				t.Errorf("a wrong passphrase: %v", err)
			}
			if bytes.Contains(m.files["share"], shares[1].Key.Secret()[1:9]) {
				t.Error("the share is in the clear")
			}
		}
		good := m.files["share"]
		for i := 0; i < len(good); i += 7 {
			m.files["share"] = append(append(bytes.Clone(good[:i]), good[i]^1), good[i+1:]...)
			if s, err := LoadOwnerShare(m, "share", p.Passphrase); err == nil {
				t.Fatalf("byte %d flipped: taken as share %d", i, s.Key.ID())
			}
		}
	}
	if err := CreateOwnerShare(newMemory(), "share", shares[0], Protection{}); !errors.Is(err, fcp.CodeInvalidArgument) {
		t.Errorf("no protection said: %v", err)
	}
}

func TestNoncesAreTakenOnceAndByTheirShareAlone(t *testing.T) {
	shares, draft := testShares(t), fcp.Hash{1}
	fresh := func(m *memory) *frost.Nonces {
		t.Helper()
		n, _, err := frost.Commit(testRand(3), shares[0].Key)
		if err != nil {
			t.Fatal(err)
		}
		if err := CreateNonces(m, "nonces", shares[0], draft, n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	m := newMemory()
	used := fresh(m)
	if _, err := used.Save(); !errors.Is(err, fcp.CodeConflict) {
		t.Errorf("nonces stay in memory: %v", err)
	}
	if _, err := TakeNonces(m, "nonces", shares[0], draft); err != nil {
		t.Fatal(err)
	}
	if _, err := TakeNonces(m, "nonces", shares[0], draft); !errors.Is(err, fcp.CodeNotFound) {
		t.Errorf("taken twice: %v", err)
	}
	fresh(m)
	if _, err := TakeNonces(m, "nonces", shares[1], draft); !errors.Is(err, fcp.CodeWrongKey) || len(m.files) != 0 {
		t.Errorf("by another share: %v, %d files", err, len(m.files))
	}
	fresh(m)
	if _, err := TakeNonces(m, "nonces", shares[0], fcp.Hash{2}); !errors.Is(err, fcp.CodeWrongKey) {
		t.Errorf("for another draft: %v", err)
	}
	// The real files: gone from the directory when the nonces are there.
	path := filepath.Join(t.TempDir(), "nonces")
	n, _, err := frost.Commit(testRand(4), shares[0].Key)
	if err == nil {
		err = CreateNonces(OS{}, path, shares[0], draft, n)
	}
	if err == nil {
		_, err = TakeNonces(OS{}, path, shares[0], draft)
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := TakeNonces(OS{}, path, shares[0], draft); !errors.Is(err, fcp.CodeNotFound) {
		t.Errorf("%v", err)
	}
}

func TestPartsAreOfOneDraft(t *testing.T) {
	body := []byte("what is to be signed")
	ref := authority.RefOf(body)
	b := EncodePart(PartDraft, ref, body)
	if got, id, err := DecodePart(PartDraft, b, nil); err != nil || id != ref || !bytes.Equal(got, body) {
		t.Fatal(err)
	}
	if _, _, err := DecodePart(PartCommitment, b, nil); !errors.Is(err, fcp.CodeMalformed) {
		t.Errorf("another kind: %v", err)
	}
	if _, _, err := DecodePart(PartDraft, EncodePart(PartDraft, fcp.Hash{1}, body), nil); !errors.Is(err, fcp.CodeMalformed) {
		t.Errorf("a wrong reference: %v", err)
	}
	if _, _, err := DecodePart(PartSignature, EncodePart(PartSignature, fcp.Hash{1}, body), &ref); !errors.Is(err, fcp.CodeWrongKey) {
		t.Errorf("another draft: %v", err)
	}
}

func FuzzOwnerFiles(f *testing.F) {
	shares := testShares(f)
	b, err := encodeOwnerShare(shares[0], Protection{NoPassphrase: true})
	if err != nil {
		f.Fatal(err)
	}
	m := newMemory()
	n, _, err := frost.Commit(testRand(3), shares[0].Key)
	if err != nil {
		f.Fatal(err)
	}
	if err := CreateNonces(m, "nonces", shares[0], fcp.Hash{1}, n); err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add(m.files["nonces"])
	f.Add(EncodePart(PartDraft, authority.RefOf([]byte("x")), []byte("x")))
	f.Fuzz(func(t *testing.T, b []byte) {
		if s, err := openOwnerShare(b, ""); err == nil {
			if again, err := encodeOwnerShare(s, Protection{NoPassphrase: true}); err != nil || !bytes.Equal(again, b) {
				t.Errorf("a share does not encode back: %v", err)
			}
		}
		_, _, _, _ = decodeOwnerShare(b)
		_, _ = decodeNonces(b, shares[0], fcp.Hash{1})
		for _, k := range []PartKind{PartDraft, PartCommitment, PartSignature} {
			if body, id, err := DecodePart(k, b, nil); err == nil && !bytes.Equal(EncodePart(k, id, body), b) {
				t.Error("a part does not encode back")
			}
		}
	})
}
