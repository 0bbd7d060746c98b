package conformance

import (
	"crypto/ecdh"
	"crypto/ed25519"
	"crypto/hpke"
	"slices"
	"testing"

	"github.com/zeebo/blake3"

	"fcp"
	"fcp/authority"
	"fcp/conformance/internal/catalog"
)

// hashedEncodings are items that are hashed, signed or bound into a box and never
// stored. They are built here from what docs/format.md says, and each is proven to be
// what the product uses: its hash, its signature or its box fits no other bytes.
func hashedEncodings(t testing.TB, c *catalog.Catalog) map[string][][]byte {
	t.Helper()
	marshal := func(v any) []byte {
		b, err := fcp.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	r := authority.Request{ID: fcp.ObjectID{1}, Zone: fcp.ZoneWork, Principal: catalog.Principal, Device: fcp.WriterID{2}, Connector: catalog.Connector,
		Instance: catalog.Instance, Binary: fcp.Hash{3}, Capability: catalog.Read, Operation: "mail.get", Resource: "mail://inbox/1",
		Credential: authority.CredentialID{4}, IdempotencyKey: "once", InputHash: fcp.Hash{5}, LeaseSeq: 6}
	request := marshal([]any{r.ID, r.Zone, r.Principal, r.Connector, r.Instance, r.Capability, r.Operation, r.Resource, r.IdempotencyKey, r.Device, r.Binary,
		r.Credential, r.InputHash, r.LeaseSeq})
	if fcp.Hash(blake3.Sum256(append([]byte("FCP2-REQUEST-V1"), request...))) != r.Hash() {
		t.Error("a request hash covers something else")
	}

	var token []any
	if err := fcp.Unmarshal(c.Reference, &token); err != nil || len(token) != 4 {
		t.Fatal("the reference token", err)
	}
	protected, payload, sig := token[0].([]byte), token[2].([]byte), token[3].([]byte)
	signed := marshal([]any{"Signature1", protected, []byte{}, payload})
	issuance := c.Node.Public().Issuance
	if !ed25519.Verify(issuance[:], signed, sig) {
		t.Error("a token's signature covers something else")
	}
	return map[string][][]byte{"RequestHash": {request}, "SigStructure": {signed}, "BoxAddress": {openBox(t, c, marshal)}}
}

// wrappedKeys is one entry of a zone key manifest, as another program reads it.
type wrappedKeys struct {
	Recipient   string      `cbor:"recipient"`
	ZoneKey     sealedBox   `cbor:"zone_key"`
	ObjectIDKey fcp.RawCBOR `cbor:"object_id_key"`
	BodyKey     fcp.RawCBOR `cbor:"body_key"`
}

type sealedBox struct {
	KEM  uint16 `cbor:"kem"`
	KDF  uint16 `cbor:"kdf"`
	AEAD uint16 `cbor:"aead"`
	Enc  []byte `cbor:"enc"`
	CT   []byte `cbor:"ct"`
}

// openBox opens a box of the catalog's manifest with crypto/hpke and the additional
// data that it returns.
func openBox(t testing.TB, c *catalog.Catalog, marshal func(any) []byte) []byte {
	t.Helper()
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	var fields map[string]fcp.RawCBOR
	check(fcp.Unmarshal(c.Manifest[fcp.HashSize:], &fields))
	var issued uint64
	check(fcp.Unmarshal(fields["issued_at"], &issued))
	var all []wrappedKeys
	check(fcp.Unmarshal(fields["wrapped"], &all))
	to := c.Second.Writer().String()
	i := slices.IndexFunc(all, func(w wrappedKeys) bool { return w.Recipient == to })
	if i < 0 {
		t.Fatal("no box for the second node")
	}
	box := all[i].ZoneKey
	address := marshal(map[string]any{"purpose": []byte("FCP2-ZONE-KEY"), "zone_id": []byte(fcp.ZoneWork), "issued_at": issued, "recipient_node_id": []byte(to)})

	scalar, err := ecdh.X25519().NewPrivateKey(c.Second.Secret()[32:64]) // signing seed, X25519 scalar, issuance seed
	check(err)
	key, err := hpke.NewDHKEMPrivateKey(scalar)
	check(err)
	kdf, err := hpke.NewKDF(box.KDF)
	check(err)
	aead, err := hpke.NewAEAD(box.AEAD)
	check(err)
	r, err := hpke.NewRecipient(box.Enc, key, kdf, aead, []byte("FCP2-HPKE"))
	check(err)
	if plain, err := r.Open(address, box.CT); err != nil || len(plain) != authority.KeySize {
		t.Errorf("a box is bound to something else: %v", err)
	}
	return address
}
