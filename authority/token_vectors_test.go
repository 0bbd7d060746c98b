package authority

import (
	"bytes"
	"crypto/ecdh"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/zeebo/blake3"
	"golang.org/x/crypto/chacha20poly1305"

	"fcp"
)

// vectorCase is one case of a class of the reference's vectors, which live outside
// the repository (FCP_VECTORS names another folder).
type vectorCase struct {
	Name   string         `json:"name"`
	Kind   string         `json:"kind"`
	Input  map[string]any `json:"input"`
	Expect map[string]any `json:"expect"`
}

// eachVector runs every case of a class. Without the folder the test is skipped and
// says so; in CI it fails.
func eachVector(t *testing.T, class string, run func(*testing.T, vectorCase)) {
	t.Helper()
	dir := os.Getenv("FCP_VECTORS")
	if dir == "" {
		dir = filepath.Join("..", "..", "shared", "vectors")
	}
	raw, err := os.ReadFile(filepath.Join(dir, class+".json"))
	if errors.Is(err, os.ErrNotExist) && os.Getenv("CI") != "true" {
		t.Skipf("did NOT run: no vectors of class %s in %s", class, dir)
	}
	must(t, raw, err)
	var file struct {
		Cases []vectorCase `json:"cases"`
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	if err := d.Decode(&file); err != nil || len(file.Cases) == 0 {
		t.Fatalf("%d cases of class %s: %v", len(file.Cases), class, err)
	}
	for _, v := range file.Cases {
		t.Run(v.Name, func(t *testing.T) { run(t, v) })
	}
}

func unhexed(t testing.TB, v any) []byte {
	t.Helper()
	s, _ := v.(string)
	b, err := hex.DecodeString(s)
	return must(t, b, err)
}

func (v vectorCase) in(t testing.TB, field string) []byte {
	t.Helper()
	return unhexed(t, v.Input[field])
}

func (v vectorCase) out(t testing.TB, field string, got []byte) {
	t.Helper()
	if want := unhexed(t, v.Expect[field]); !bytes.Equal(got, want) {
		t.Errorf("%s\n got %x\nwant %x", field, got, want)
	}
}

func vectorUint(t testing.TB, v any) uint64 {
	t.Helper()
	n, err := strconv.ParseUint(fmt.Sprint(v), 10, 64)
	return must(t, n, err)
}

// vectorTree turns a JSON value into the value to encode, see the vectors' README.
func vectorTree(t testing.TB, v any) any {
	switch v := v.(type) {
	case string:
		if label, ok := strings.CutPrefix(v, "h:@unscoped:"); ok {
			return fcp.UnscopedID([]byte(label))
		}
		if digits, ok := strings.CutPrefix(v, "h:"); ok {
			return unhexed(t, digits)
		}
		return v
	case json.Number:
		if n, err := strconv.ParseUint(v.String(), 10, 64); err == nil {
			return n
		}
		n, err := v.Float64()
		return must(t, n, err)
	case []any:
		out := make([]any, len(v))
		for i := range v {
			out[i] = vectorTree(t, v[i])
		}
		return out
	case map[string]any:
		out := make(map[any]any, len(v))
		for k := range v {
			out[k] = vectorTree(t, v[k])
		}
		return out
	}
	return v
}

func texts(v any) []string {
	list, _ := v.([]any)
	out := make([]string, len(list))
	for i := range list {
		out[i], _ = list[i].(string)
	}
	return out
}

func TestVectorsCOSE(t *testing.T) {
	claimNumbers := slices.Clone(claimOrder[:])
	eachVector(t, "cose", func(t *testing.T, v vectorCase) {
		switch v.Kind {
		case "protected_header":
			// Without a kid it is no header of ours; the part that is there must agree.
			var m map[any]any
			if err := fcp.Unmarshal(unhexed(t, v.Expect["cbor"]), &m); err != nil {
				t.Fatal(err)
			}
			kid := fcp.Kid{}
			if b, ok := v.Input["kid"].(string); ok {
				copy(kid[:], unhexed(t, b))
				v.out(t, "cbor", protectedHeader(kid, ""))
			}
			if fmt.Sprint(m[uint64(coseAlg)]) != fmt.Sprint(v.Input["alg"]) || fmt.Sprint(m[uint64(coseAlg)]) != fmt.Sprint(coseAlgEdDSA) {
				t.Errorf("algorithm %v", m)
			}
			if _, err := (sign1{protected: unhexed(t, v.Expect["cbor"])}).kid(""); (err == nil) != (v.Input["kid"] != nil) {
				t.Errorf("as a token header: %v", err)
			}
		case "cose_parse":
			_, err := parseSign1(v.in(t, "cbor"))
			r := ReasonOf(err)
			structure := err == nil || r == ReasonCOSESignatureSize || r == ReasonCOSEUnprotected || r == ReasonCOSEAlgUnprotected
			if structure != v.Expect["accept_structure"] {
				t.Errorf("accepted %v: %v", structure, err)
			}
		case "const":
			n, err := strconv.ParseInt(fmt.Sprint(v.Expect["value"]), 10, 64)
			must(t, n, err)
			if n != coseAlgEdDSA && n != coseAlg && n != coseKid && !slices.Contains(claimNumbers, n) {
				t.Errorf("%v is %d, which is unknown here", v.Input["name"], n)
			}
		default:
			t.Fatalf("kind %s", v.Kind)
		}
	})
}

func TestVectorsEd25519(t *testing.T) {
	eachVector(t, "ed25519", func(t *testing.T, v vectorCase) {
		switch v.Kind {
		case "sign", "pubkey":
			k, err := HolderKeyFromSeed(v.in(t, "seed"))
			pub := must(t, k, err).Public()
			v.out(t, "public_key", pub[:])
			if v.Kind == "sign" {
				sig := k.sign(v.in(t, "message"))
				v.out(t, "signature", sig)
				if !pub.Verify(v.in(t, "message"), sig) {
					t.Error("does not verify")
				}
			}
		case "verify", "verify_invalid":
			key := HolderPublic(v.in(t, "public_key"))
			if got := key.Verify(v.in(t, "message"), v.in(t, "signature")); got != v.Expect["accept"] {
				t.Errorf("accepted: %v", got)
			}
		default:
			t.Fatalf("kind %s", v.Kind)
		}
	})
}

func TestVectorsX25519(t *testing.T) {
	key := func(t *testing.T, b []byte) *ecdh.PrivateKey {
		k, err := ecdh.X25519().NewPrivateKey(b)
		return must(t, k, err)
	}
	eachVector(t, "x25519", func(t *testing.T, v vectorCase) {
		switch v.Kind {
		case "pubkey":
			v.out(t, "public_key", key(t, v.in(t, "secret")).PublicKey().Bytes())
		case "dh":
			a, b := key(t, v.in(t, "a_secret")), key(t, v.in(t, "b_secret"))
			v.out(t, "a_public", a.PublicKey().Bytes())
			v.out(t, "b_public", b.PublicKey().Bytes())
			for _, p := range [][2]*ecdh.PrivateKey{{a, b}, {b, a}} {
				s, err := p[0].ECDH(p[1].PublicKey())
				v.out(t, "shared", must(t, s, err))
			}
		default:
			t.Fatalf("kind %s", v.Kind)
		}
	})
}

func TestVectorsKDFMACAEAD(t *testing.T) {
	eachVector(t, "kdf_mac_aead", func(t *testing.T, v vectorCase) {
		switch v.Kind {
		case "hkdf":
			okm, err := hkdf.Key(sha256.New, v.in(t, "ikm"), v.in(t, "salt"), string(v.in(t, "info")), int(vectorUint(t, v.Input["len"])))
			v.out(t, "okm", must(t, okm, err))
		case "blake3_keyed":
			h, err := blake3.NewKeyed(v.in(t, "key"))
			must(t, h, err)
			h.Write(v.in(t, "message"))
			v.out(t, "mac", h.Sum(nil))
		case "chacha20poly1305", "xchacha20poly1305":
			aead, err := chacha20poly1305.New(v.in(t, "key"))
			if v.Kind[0] == 'x' {
				aead, err = chacha20poly1305.NewX(v.in(t, "key"))
			}
			ct := must(t, aead, err).Seal(nil, v.in(t, "nonce"), v.in(t, "plaintext"), v.in(t, "aad"))
			v.out(t, "ciphertext_and_tag", ct)
			pt, err := aead.Open(nil, v.in(t, "nonce"), ct, v.in(t, "aad"))
			if must(t, pt, err); !bytes.Equal(pt, v.in(t, "plaintext")) {
				t.Error("does not open to itself")
			}
			ct[0] ^= 1
			if _, err := aead.Open(nil, v.in(t, "nonce"), ct, v.in(t, "aad")); err == nil {
				t.Error("a flipped bit opens")
			}
		default:
			t.Fatalf("kind %s", v.Kind)
		}
	})
}

func TestVectorsCredential(t *testing.T) {
	eachVector(t, "credential", func(t *testing.T, v vectorCase) {
		canonical := unhexed(t, v.Expect["cbor_canonical"])
		tree, err := fcp.Marshal(vectorTree(t, v.Input["value"]))
		v.out(t, "cbor_canonical", must(t, tree, err))
		decode := func(b []byte) error {
			if value := v.Input["value"].(map[string]any); value["credential_id"] == nil {
				var c Constraints
				return fcp.Unmarshal(b, &c)
			}
			schema := fcp.SchemaCredential.Hash()
			c, err := DecodeCredential(append(schema[:], b...))
			if err != nil {
				return err
			}
			again, err := EncodeCredential(c)
			v.out(t, "cbor_canonical", must(t, again, err)[fcp.HashSize:])
			return nil
		}
		if err := decode(canonical); err != nil {
			t.Error(err)
		}
		if declared := unhexed(t, v.Expect["cbor_declaration_order"]); !bytes.Equal(declared, canonical) && !errors.Is(decode(declared), fcp.CodeNonCanonical) {
			t.Errorf("declaration order: %v", decode(declared))
		}
	})
}

func optionalText(v any) *string {
	s, ok := v.(string)
	if !ok {
		return nil
	}
	return &s
}

func labelled(v any) (out []fcp.ObjectID) {
	for _, l := range texts(v) {
		out = append(out, fcp.UnscopedID([]byte(l)))
	}
	return out
}

// vectorID reads a field that is hex or a label.
func (v vectorCase) id(t *testing.T, field string) fcp.ObjectID {
	if l, ok := v.Input[field+"_label"].(string); ok {
		return fcp.UnscopedID([]byte(l))
	}
	return fcp.ObjectID(v.in(t, field+"_hex"))
}

func TestVectorsOperation(t *testing.T) {
	eachVector(t, "operation", func(t *testing.T, v vectorCase) {
		switch v.Kind {
		case "intent_signable":
			o := OperationIntent{
				Header:  fcp.PlainHeader(fcp.SchemaOperationIntent, fcp.ZoneWork, vectorUint(t, v.Input["created_at"])),
				Request: v.id(t, "request_object_id"), Token: TokenID(unhexed(t, strings.ReplaceAll(v.Input["capability_token_jti"].(string), "-", ""))),
				IdempotencyKey: optionalText(v.Input["idempotency_key"]), PlannedAt: vectorUint(t, v.Input["planned_at"]),
				PlannedBy: v.Input["planned_by"].(string), Upstream: optionalText(v.Input["upstream_idempotency"]),
			}
			if v.Input["lease_seq"] != nil {
				n := vectorUint(t, v.Input["lease_seq"])
				o.LeaseSeq = &n
			}
			v.out(t, "signable", o.Signable())
			n := testNode(t, 1)
			b, err := SignIntent(n, o)
			got, err2 := VerifyIntent(n.Public().Signing, must(t, b, err))
			v.out(t, "signable", must(t, got, err2).Signable())
		case "receipt_signable":
			o := OperationReceipt{
				Header: fcp.PlainHeader(fcp.SchemaOperationReceipt, fcp.ZoneWork, vectorUint(t, v.Input["created_at"])), Request: v.id(t, "request_object_id"),
				IdempotencyKey: optionalText(v.Input["idempotency_key"]), Outcomes: labelled(v.Input["outcome_labels"]),
				ExecutedAt: vectorUint(t, v.Input["executed_at"]), ExecutedBy: v.Input["executed_by"].(string),
			}
			if o.Resources = labelled(v.Input["resource_labels"]); o.Resources == nil {
				for _, s := range texts(v.Input["resource_ids"]) {
					o.Resources = append(o.Resources, fcp.ObjectID(unhexed(t, strings.TrimPrefix(s, "h:"))))
				}
			}
			for _, m := range asMaps(v.Input["usage_metrics"]) {
				kind, _ := m["kind"].(string)
				o.Usage = append(o.Usage, UsageMetric{kind, vectorUint(t, m["amount"]), optionalText(m["unit"]), optionalText(m["custom_id"])})
			}
			v.out(t, "signable", o.Signable())
			n := testNode(t, 1)
			b, err := SignReceipt(n, o)
			got, err2 := VerifyReceipt(n.Public().Signing, must(t, b, err))
			v.out(t, "signable", must(t, got, err2).Signable())
		case "idempotency":
			e := IdempotencyEntry{
				Key: v.Input["key"].(string), Zone: fcp.ZoneID(v.Input["zone_id"].(string)), Intent: fcp.ObjectID(v.in(t, "intent_id_hex")),
				Status: IdempotencyStatus(v.Input["status"].(string)), Expires: vectorUint(t, v.Input["expires_at"]),
			}
			if v.Input["receipt_id_hex"] != nil {
				e.Receipt = fcp.ObjectID(v.in(t, "receipt_id_hex"))
			}
			now := vectorUint(t, v.Input["now"])
			equal[any](t, e.Expired(now), v.Expect["is_expired_at_now"])
			equal[any](t, e.Terminal(), v.Expect["is_terminal"])
			equal[any](t, e.Answers(now), v.Expect["should_return_cached"])
		default:
			t.Fatalf("kind %s", v.Kind)
		}
	})
}

func asMaps(v any) (out []map[string]any) {
	list, _ := v.([]any)
	for _, e := range list {
		if m, ok := e.(map[string]any); ok {
			out = append(out, m)
		}
	}
	return out
}

// referenceLevels are the levels of the reference's five names, which zones other
// than the standard ones do not have: they count as public.
func referenceLevels(zone string) fcp.Levels {
	if !strings.HasPrefix(zone, "z:") {
		if zone = "z:" + strings.ToLower(zone); zone == "z:untrusted" {
			zone = "z:public"
		}
	}
	l, ok := fcp.ZoneID(zone).StandardLevels()
	if !ok {
		l, _ = fcp.ZonePublic.StandardLevels()
	}
	return l
}

func vectorTaint(t testing.TB, v any) TaintFlags {
	t.Helper()
	f, err := ParseTaint(texts(v))
	return must(t, f, err)
}

func TestVectorsProvenance(t *testing.T) {
	eachVector(t, "provenance", func(t *testing.T, v vectorCase) {
		text := func(m map[string]any, field string) string { s, _ := m[field].(string); return s }
		switch v.Kind {
		case "flow":
			equal(t, FlowTo(referenceLevels(text(v.Input, "from")), referenceLevels(text(v.Input, "to"))).String(), text(v.Expect, "result"))
		case "tier":
			got := driveCheck(referenceLevels(text(v.Input, "origin")).Integrity, vectorTaint(t, v.Input["taint"]), Tier(text(v.Input, "tier")))
			equal[any](t, got == ReasonAllow, v.Expect["allowed"])
		case "merge":
			var labels []Label
			for _, in := range asMaps(v.Input["inputs"]) {
				labels = append(labels, Label{
					Origin: fcp.ZoneID(text(in, "origin_zone")), Taint: vectorTaint(t, in["taint_flags"]),
					Levels: fcp.Levels{Integrity: referenceLevels(text(in, "integrity_label")).Integrity, Confidentiality: referenceLevels(text(in, "confidentiality_label")).Confidentiality},
				})
			}
			got := Merge(labels[0], labels[1:]...)
			equal(t, got.Origin, labels[0].Origin)
			equal(t, got.Levels.Integrity, referenceLevels(text(v.Expect, "expected_integrity")).Integrity)
			equal(t, got.Levels.Confidentiality, referenceLevels(text(v.Expect, "expected_confidentiality")).Confidentiality)
			equal(t, got.Taint, vectorTaint(t, v.Expect["expected_taint_flags"]))
		case "reduction":
			cleared := vectorTaint(t, v.Input["receipt_cleared_flags"])
			s := SanitizerSpec{Authorized: cleared, Cleared: cleared}
			equal(t, s.Reduce(vectorTaint(t, v.Input["initial_flags"])), vectorTaint(t, v.Expect["remaining"]))
		case "sanitizer":
			s := SanitizerSpec{Authorized: vectorTaint(t, v.Input["authorized_flags"]), Cleared: vectorTaint(t, v.Input["cleared_flags"])}
			equal[any](t, s.valid(), v.Expect["is_valid"])
		case "approval_time":
			a := Approval{spec: ApprovalSpec{IssuedAt: millis(t, v.Input["issued_at_ms"]), Expires: millis(t, v.Input["expires_at_ms"])}}
			equal[any](t, a.validAt(a.spec.IssuedAt), v.Expect["valid_at_issue"])
			equal[any](t, !a.validAt(a.spec.Expires.Add(time.Millisecond)), v.Expect["expired_1ms_after_end"])
		default:
			t.Fatalf("kind %s", v.Kind)
		}
	})
}

func millis(t testing.TB, v any) time.Time { return time.UnixMilli(int64(vectorUint(t, v))) }
