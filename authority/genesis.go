package authority

import (
	"cmp"
	"io"
	"slices"
	"time"

	"github.com/zeebo/blake3"

	"fcp"
)

// MaxGenesisZones limits the zones a genesis checkpoint names.
const MaxGenesisZones = 64

// GenesisZone is one zone of a genesis checkpoint.
type GenesisZone struct {
	Zone   fcp.ZoneID `cbor:"zone_id"`
	Levels fcp.Levels `cbor:"levels"`
}

// genesisObject is the native genesis checkpoint on the wire.
type genesisObject struct {
	Format        uint64         `cbor:"format"`
	StoreID       [16]byte       `cbor:"store_id"`
	CheckpointSeq uint64         `cbor:"checkpoint_seq"` // 0
	CreatedAt     uint64         `cbor:"created_at"`     // unix seconds
	Owner         OwnerPublic    `cbor:"owner"`
	Recovery      RecoveryPublic `cbor:"recovery"`
	Node          genesisNode    `cbor:"node"`
	Zones         []GenesisZone  `cbor:"zones"` // strictly ascending by zone id
	Signature     []byte         `cbor:"signature,omitempty"`
}

type genesisNode struct {
	Writer     fcp.WriterID     `cbor:"writer"`
	Signing    SigningPublic    `cbor:"signing"`
	Encryption EncryptionPublic `cbor:"encryption"`
	Issuance   IssuancePublic   `cbor:"issuance"`
}

// GenesisFacts are what a verified genesis checkpoint says: who owns the store,
// which node made it, which zones it began with. Made by VerifyGenesis.
type GenesisFacts struct {
	ID        fcp.Hash // see GenesisID; what the Under field of first events names
	StoreID   [16]byte // random, so that two stores of one owner differ
	CreatedAt time.Time
	Owner     OwnerPublic
	Recovery  RecoveryPublic
	Node      NodePublic
	Writer    fcp.WriterID // of the node's signing key
	Zones     []GenesisZone
}

// Genesis is an encoded genesis checkpoint and its facts.
type Genesis struct {
	Bytes []byte
	Facts GenesisFacts
}

// GenesisID returns BLAKE3-256("FCP2-GENESIS-V1" || bytes). It is not keyed
// because genesis comes before any zone key; it names public bytes only.
func GenesisID(b []byte) fcp.Hash {
	h := blake3.New()
	h.WriteString("FCP2-GENESIS-V1")
	h.Write(b)
	var id fcp.Hash
	h.Sum(id[:0])
	return id
}

// StandardGenesisZones returns the five standard zones.
func StandardGenesisZones() []GenesisZone {
	var out []GenesisZone
	for _, z := range fcp.StandardZones() {
		out = append(out, GenesisZone{z.ID, z.Levels})
	}
	return out
}

// MakeGenesis makes the owner-signed checkpoint number 0 of a new store. zones
// may be in any order; none may be there twice. rand gives the store id.
func MakeGenesis(rand io.Reader, now time.Time, owner *OwnerKey, node *NodeKeys, zones []GenesisZone) (*Genesis, error) {
	at, err := unixSeconds(now)
	if err != nil {
		return nil, err
	}
	recovery, err := owner.Recovery()
	if err != nil {
		return nil, err
	}
	defer recovery.Wipe()
	pub := node.Public()
	o := genesisObject{
		Format: ObjectFormat, CreatedAt: at, Owner: owner.Public(), Recovery: recovery.Public(),
		Node:  genesisNode{pub.Writer(), pub.Signing, pub.Encryption, pub.Issuance},
		Zones: slices.SortedFunc(slices.Values(zones), func(a, b GenesisZone) int { return cmp.Compare(a.Zone, b.Zone) }),
	}
	if _, err := io.ReadFull(rand, o.StoreID[:]); err != nil {
		return nil, fcp.Wrap(fcp.CodeInternal, err, "read randomness for the store id")
	}
	if err := o.check(); err != nil {
		return nil, err
	}
	b, err := signObject(owner, fcp.SchemaZoneCheckpoint, &o, &o.Signature)
	if err != nil {
		return nil, err
	}
	return &Genesis{Bytes: b, Facts: o.facts(b)}, nil
}

// VerifyGenesis decodes a genesis checkpoint and checks that the owner it names
// signed exactly these bytes. That the owner is the expected one is the caller's
// question: see GenesisFacts.CheckOwner. Errors: CodeMalformed, CodeNonCanonical,
// CodeSchema, CodeVersion, CodeZone, CodeWrongKey when two roles share a key,
// CodeSignature.
func VerifyGenesis(b []byte) (*GenesisFacts, error) {
	var o genesisObject
	s, err := decodeSigned(fcp.SchemaZoneCheckpoint, b, &o)
	if err != nil {
		return nil, err
	}
	if err := o.check(); err != nil {
		return nil, err
	}
	if err := s.verifyOwner(o.Owner, fcp.SchemaZoneCheckpoint); err != nil {
		return nil, err
	}
	f := o.facts(b)
	return &f, nil
}

// CheckOwner refuses, with CodeWrongKey, an owner that did not make this store.
func (f *GenesisFacts) CheckOwner(owner OwnerPublic) error {
	if f.Owner != owner {
		return fcp.Errorf(fcp.CodeWrongKey, "this store belongs to owner %s, the identity is %s", fcp.KidOf(f.Owner[:]), fcp.KidOf(owner[:]))
	}
	return nil
}

// CheckNode refuses, with CodeWrongKey, node keys that are not those of the node
// that made this store.
func (f *GenesisFacts) CheckNode(node NodePublic) error {
	if f.Node != node {
		return fcp.Errorf(fcp.CodeWrongKey, "this store was made by node %.16s, the node keys are of %.16s", f.Writer, node.Writer())
	}
	return nil
}

func (o *genesisObject) facts(b []byte) GenesisFacts {
	return GenesisFacts{
		ID: GenesisID(b), StoreID: o.StoreID, CreatedAt: time.Unix(int64(o.CreatedAt), 0).UTC(),
		Owner: o.Owner, Recovery: o.Recovery,
		Node:   NodePublic{o.Node.Signing, o.Node.Encryption, o.Node.Issuance},
		Writer: o.Node.Writer, Zones: o.Zones,
	}
}

func (o *genesisObject) check() error {
	if err := checkCommon(fcp.SchemaZoneCheckpoint, o.Format, o.CreatedAt); err != nil {
		return err
	}
	pub := NodePublic{o.Node.Signing, o.Node.Encryption, o.Node.Issuance}
	signing, issuance, owner := [KeySize]byte(pub.Signing), [KeySize]byte(pub.Issuance), [KeySize]byte(o.Owner)
	switch {
	case o.CheckpointSeq != 0:
		return fcp.Errorf(fcp.CodeMalformed, "genesis with checkpoint number %d", o.CheckpointSeq)
	case o.Node.Writer != pub.Writer():
		return fcp.Errorf(fcp.CodeMalformed, "genesis with a writer id that is not that of the signing key")
	case signing == issuance || signing == owner || issuance == owner || [KeySize]byte(o.Recovery) == [KeySize]byte(pub.Encryption):
		return fcp.Errorf(fcp.CodeWrongKey, "genesis with one key in two roles")
	case len(o.Zones) == 0 || len(o.Zones) > MaxGenesisZones:
		return fcp.Errorf(fcp.CodeMalformed, "genesis with %d zones, not 1 to %d", len(o.Zones), MaxGenesisZones)
	}
	for i, z := range o.Zones {
		if !z.Zone.Valid() {
			return fcp.Errorf(fcp.CodeZone, "genesis with zone %.64q", string(z.Zone))
		}
		if i > 0 && o.Zones[i-1].Zone >= z.Zone {
			return fcp.Errorf(fcp.CodeMalformed, "genesis with zones that are not strictly ascending")
		}
		if err := checkLevels(z.Zone, z.Levels); err != nil {
			return err
		}
	}
	return nil
}
