package authority

import (
	"bytes"
	"encoding/gob"
	"encoding/hex"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"fcp"
)

func hexBytes(s string) []byte {
	b, err := hex.DecodeString(s)
	if err != nil {
		panic(err)
	}
	return b
}

func equal[T comparable](t testing.TB, got, want T) {
	t.Helper()
	if got != want {
		t.Errorf("got %v, want %v", got, want)
	}
}

func wantCode(t testing.TB, err error, code fcp.Code) {
	t.Helper()
	if fcp.CodeOf(err) != code || err == nil {
		t.Errorf("got %v, want %s", err, code)
	}
}

func TestRecoveryWordsThatAreWrong(t *testing.T) {
	good, err := testOwner(t, 1).Words()
	if err != nil {
		t.Fatal(err)
	}
	f := strings.Fields(good)
	swapped := append([]string{f[1], f[0]}, f[2:]...)
	for name, words := range map[string]string{
		"empty":        "",
		"23 words":     strings.Join(f[1:], " "),
		"12 words":     strings.Join(f[:12], " "),
		"25 words":     good + " zoo",
		"unknown word": strings.Join(append([]string{"secretword"}, f[1:]...), " "),
		"swapped":      strings.Join(swapped, " "),
	} {
		t.Run(name, func(t *testing.T) {
			_, err := OwnerKeyFromWords(words)
			wantCode(t, err, fcp.CodeInvalidArgument)
			if strings.Contains(err.Error(), "secretword") {
				t.Errorf("the error repeats a word: %v", err)
			}
		})
	}
}

func TestRolesHaveDifferentKeys(t *testing.T) {
	o, n := testOwner(t, 1), testNode(t, 1)
	r := testRecovery(t, o)
	seen := map[string]string{}
	for name, k := range map[string][KeySize]byte{
		"owner": o.Public(), "recovery": r.Public(), "signing": n.Public().Signing,
		"encryption": n.Public().Encryption, "issuance": n.Public().Issuance,
	} {
		if other, ok := seen[string(k[:])]; ok {
			t.Errorf("%s and %s share a key", name, other)
		}
		seen[string(k[:])] = name
	}
	msg := []byte("message")
	if n.Public().Signing.Verify(msg, n.Issue(msg)) || n.Public().Issuance.Verify(msg, n.Sign(msg)) {
		t.Error("a signature of one role verifies under another")
	}
	if !n.Public().Signing.Verify(msg, n.Sign(msg)) || !n.Public().Issuance.Verify(msg, n.Issue(msg)) {
		t.Error("a signature does not verify")
	}
}

func TestNodeKeysHaveOneForm(t *testing.T) {
	n := testNode(t, 1)
	back, err := NodeKeysFromSecret(n.Secret())
	if err != nil || back.Public() != n.Public() || back.Writer() != n.Writer() {
		t.Fatalf("round trip: %v", err)
	}
	for i := range n.Secret() {
		b := n.Secret()
		b[i] ^= 1
		if k, err := NodeKeysFromSecret(b); err == nil && k.Public() == n.Public() {
			t.Errorf("byte %d does not matter", i)
		}
	}
	_, err = NodeKeysFromSecret(n.Secret()[1:])
	wantCode(t, err, fcp.CodeMalformed)
	_, err = OwnerKeyFromEntropy(make([]byte, 31))
	wantCode(t, err, fcp.CodeMalformed)
}

func TestShortRandomnessIsAnError(t *testing.T) {
	short := func() *bytes.Reader { return bytes.NewReader(make([]byte, 31)) }
	if _, err := NewOwnerKey(short()); err == nil {
		t.Error("owner")
	}
	if _, err := NewNodeKeys(short()); err == nil {
		t.Error("node")
	}
	if _, err := NewZoneKeys(short(), "z:work"); err == nil {
		t.Error("zone")
	}
	if _, err := NewSegmentKey(short()); err == nil {
		t.Error("segment")
	}
}

// TestNoSecretLeavesThroughAPrinter prints and encodes every key type, alone, by
// pointer, and inside exported and unexported fields, and looks for the secret
// in hex, decimal, base64 and raw form.
func TestNoSecretLeavesThroughAPrinter(t *testing.T) {
	canary := bytes.Repeat([]byte{0xC5}, 4)
	fill := func(n int) *bytes.Reader { return bytes.NewReader(bytes.Repeat([]byte{0xC5}, n)) }
	o := must(t, ownerOf(NewOwnerKey(fill(32))), nil)
	n, err := NewNodeKeys(fill(96))
	if err != nil {
		t.Fatal(err)
	}
	z, err := NewZoneKeys(fill(96), "z:work")
	if err != nil {
		t.Fatal(err)
	}
	s, err := NewSegmentKey(fill(32))
	if err != nil {
		t.Fatal(err)
	}
	c, err := s.Cipher([]byte("address"))
	if err != nil {
		t.Fatal(err)
	}
	r := testRecovery(t, o)
	type nested struct {
		Exported any
		hidden   any
		o        OwnerKey
		n        NodeKeys
		z        *ZoneKeys
		s        SegmentKey
		r        RecoveryKey
		c        SegmentCipher
	}
	values := []any{o, *o, n, *n, z, *z, s, *s, c, *c, r, *r, //nolint:govet // copies on purpose
		nested{o, n, *o, *n, z, *s, *r, *c}, []any{o, *n, z}, map[string]any{"k": *s}}
	var out strings.Builder
	log := slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{AddSource: true}))
	logJSON := slog.New(slog.NewJSONHandler(&out, nil))
	for _, v := range values {
		for _, verb := range "vTtbcdoOqxXUeEfFgGsp" {
			for _, flag := range []string{"", "+", "#", " ", "0", "-20"} {
				fmt.Fprintf(&out, "%"+flag+string(verb)+"\n", v)
			}
		}
		fmt.Fprintln(&out, v)
		log.Info("key", "k", v)
		logJSON.Info("key", "k", v)
		if b, err := json.Marshal(v); err == nil {
			out.Write(b)
		}
		if b, err := xml.Marshal(v); err == nil {
			out.Write(b)
		}
		var g bytes.Buffer
		if gob.NewEncoder(&g).Encode(v) == nil {
			out.Write(g.Bytes())
		}
		if b, err := fcp.Marshal(v); err == nil {
			out.Write(b)
		}
	}
	printed := strings.ToLower(out.String())
	words, _ := o.Words()
	for _, bad := range []string{string(canary), "c5c5c5c5", "c5 c5 c5 c5", "197 197 197", "0xc5, 0xc5", "xcxfxcxf", "\\xc5\\xc5", strings.Fields(words)[1] + " "} {
		if i := strings.Index(printed, bad); i >= 0 {
			t.Errorf("a secret was printed as %q: ...%.200q", bad, printed[max(0, i-100):])
		}
	}
	if !strings.Contains(printed, redactedText) {
		t.Error("nothing was printed as redacted")
	}
}

func ownerOf(k *OwnerKey, err error) *OwnerKey {
	if err != nil {
		panic(err)
	}
	return k
}

func TestKeysCannotBeMarshalled(t *testing.T) {
	s, _ := NewSegmentKey(testRand(1))
	o := testOwner(t, 1)
	for _, v := range []any{o, *o, testNode(t, 1), testZoneKeys(t, "z:work", 1), s, *s, testRecovery(t, o)} {
		if _, err := json.Marshal(v); err == nil {
			t.Errorf("JSON of %T", v)
		}
		if _, err := fcp.Marshal(v); err == nil {
			t.Errorf("CBOR of %T", v)
		}
		if err := gob.NewEncoder(&bytes.Buffer{}).Encode(v); err == nil {
			t.Errorf("gob of %T", v)
		}
		if got := fmt.Sprintf("%#v|%x|%d|%s", v, v, v, v); got != strings.Repeat("[redacted]|", 3)+"[redacted]" {
			t.Errorf("%T prints %s", v, got)
		}
	}
}

func TestWipeClearsTheKey(t *testing.T) {
	o := testOwner(t, 1)
	o.Wipe()
	if !bytes.Equal(o.Entropy(), make([]byte, KeySize)) {
		t.Error("entropy is still there")
	}
	s, _ := NewSegmentKey(testRand(1))
	s.Wipe()
	if *s.p() != [KeySize]byte{} {
		t.Error("segment key is still there")
	}
	r := testRecovery(t, testOwner(t, 1))
	keys := testZoneKeys(t, "z:work", 1)
	m := must(t, testManifest(t, testOwner(t, 1), keys), nil)
	r.Wipe()
	if _, err := m.OpenRecovery(r); !errors.Is(err, fcp.CodeWrongKey) {
		t.Errorf("a wiped key opens: %v", err)
	}
}
