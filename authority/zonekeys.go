package authority

import (
	"crypto/aes"
	"crypto/cipher"
	"encoding/hex"
	"io"
	"sync"

	"github.com/zeebo/blake3"

	"fcp"
)

// KeyID names a zone's key: the first 8 bytes of BLAKE3 over
// "FCP2-ZONE-KEYID-V1", the key's role and the key. Because it is computed from
// the key, a key that was swapped inside a manifest does not fit its id.
type KeyID [8]byte

func (k KeyID) String() string { return hex.EncodeToString(k[:]) }

// Hash returns the id as the log keeps it: followed by 24 zero bytes.
func (k KeyID) Hash() fcp.Hash {
	var h fcp.Hash
	copy(h[:], k[:])
	return h
}

// KeyIDOfHash is the inverse of Hash; ok is false for what Hash never returns.
func KeyIDOfHash(h fcp.Hash) (id KeyID, ok bool) {
	id = KeyID(h[:len(id)])
	return id, id.Hash() == h
}

// The role byte of each zone key in its id.
const (
	roleZoneKey     = 1
	roleObjectIDKey = 2
	roleBodyKey     = 3
)

func keyIDOf(role byte, key *[KeySize]byte) KeyID {
	const purpose = "FCP2-ZONE-KEYID-V1"
	var b [len(purpose) + 1 + KeySize]byte
	copy(b[:], purpose)
	b[len(purpose)] = role
	copy(b[len(purpose)+1:], key[:])
	sum := blake3.Sum256(b[:])
	clear(b[:])
	return KeyID(sum[:8])
}

// ZoneKeyIDs are the ids of the three keys of one zone key version.
type ZoneKeyIDs struct {
	Zone     KeyID // wraps segment keys
	ObjectID KeyID // keys object ids
	Body     KeyID // derives one key per body
}

// ZoneKeys are the three random 256-bit keys of a zone in one version. Each has
// one use: the zone key wraps segment keys (WrapSegmentKey), the object-id key
// makes object ids (StoredObjectID), the body key derives one key for each body
// (SealBody). Safe for concurrent use.
type ZoneKeys struct {
	redacted
	p func() *zoneSecret
}

type zoneSecret struct {
	zone fcp.ZoneID
	ids  ZoneKeyIDs
	keys [3][KeySize]byte // by role - 1
	wrap cipher.AEAD      // AES-256-GCM under the zone key
	pool sync.Pool        // of *bodyScratch, each keyed with the body key
}

// NewZoneKeys makes the three keys of a zone from 96 bytes of rand.
func NewZoneKeys(rand io.Reader, zone fcp.ZoneID) (*ZoneKeys, error) {
	var keys [3][KeySize]byte
	defer clear(keys[:])
	for i := range keys {
		if _, err := io.ReadFull(rand, keys[i][:]); err != nil {
			return nil, fcp.Wrap(fcp.CodeInternal, err, "read randomness for the keys of a zone")
		}
	}
	return newZoneKeys(zone, &keys)
}

// Rotate makes the keys that follow k. A routine rotation keeps the object-id key,
// so that ids stay comparable; after a loss all three are new.
func (k *ZoneKeys) Rotate(rand io.Reader, reason RotationReason) (*ZoneKeys, error) {
	n, err := NewZoneKeys(rand, k.Zone())
	if err != nil || reason != RotateRoutine {
		return n, err
	}
	defer n.Wipe()
	keys := n.p().keys
	defer clear(keys[:])
	keys[roleObjectIDKey-1] = k.p().keys[roleObjectIDKey-1]
	return newZoneKeys(k.Zone(), &keys)
}

func newZoneKeys(zone fcp.ZoneID, keys *[3][KeySize]byte) (*ZoneKeys, error) {
	if !zone.Valid() {
		return nil, fcp.Errorf(fcp.CodeZone, "keys for zone %.64q", string(zone))
	}
	s := &zoneSecret{zone: zone, keys: *keys}
	s.ids = ZoneKeyIDs{
		Zone:     keyIDOf(roleZoneKey, &s.keys[0]),
		ObjectID: keyIDOf(roleObjectIDKey, &s.keys[1]),
		Body:     keyIDOf(roleBodyKey, &s.keys[2]),
	}
	var err error
	if s.wrap, err = newGCM(s.keys[0][:]); err != nil {
		return nil, err
	}
	s.pool.New = func() any { return newBodyScratch(s) }
	return &ZoneKeys{p: hide(s)}, nil
}

func newGCM(key []byte) (cipher.AEAD, error) {
	b, err := aes.NewCipher(key)
	if err != nil {
		return nil, fcp.Wrap(fcp.CodeInternal, err, "AES-256")
	}
	g, err := cipher.NewGCM(b)
	return g, fcp.Wrap(fcp.CodeInternal, err, "AES-256-GCM")
}

// Zone returns the zone the keys belong to.
func (k *ZoneKeys) Zone() fcp.ZoneID { return k.p().zone }

// IDs returns the ids of the three keys.
func (k *ZoneKeys) IDs() ZoneKeyIDs { return k.p().ids }

// StoredObjectID returns the id of an object in its stored form under the
// object-id key; see fcp.StoredObjectID.
func (k *ZoneKeys) StoredObjectID(schemaHash fcp.Hash, encoded []byte) fcp.ObjectID {
	return fcp.StoredObjectID(&k.p().keys[roleObjectIDKey-1], k.p().zone, schemaHash, encoded)
}

// KeyedObjectID returns the id of content under the object-id key; see
// fcp.KeyedObjectID.
func (k *ZoneKeys) KeyedObjectID(schemaHash fcp.Hash, content ...[]byte) fcp.ObjectID {
	return fcp.KeyedObjectID(&k.p().keys[roleObjectIDKey-1], k.p().zone, schemaHash, content...)
}

// Wipe overwrites the keys as far as Go allows. They are unusable after.
func (k *ZoneKeys) Wipe() {
	clear(k.p().keys[:])
	k.p().wrap = nil
	k.p().pool = sync.Pool{}
}
