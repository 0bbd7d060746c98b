package authority

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"math"
	"time"

	"github.com/zeebo/blake3"
)

// referenceSchemaVersion is the schema_version of the reference genesis.
const referenceSchemaVersion = 1

// referenceZones are the zones of the reference genesis. Its levels run to 255
// and are not the native ones of fcp.StandardZones.
var referenceZones = []struct {
	id, name                   string
	integrity, confidentiality uint64
}{
	{"z:owner", "Owner Zone", 255, 255},
	{"z:private", "Private Zone", 200, 200},
	{"z:work", "Work Zone", 150, 150},
	{"z:community", "Community Zone", 100, 100},
	{"z:public", "Public Zone", 50, 0},
}

// ReferenceGenesis returns the genesis of the reference profile, byte for byte:
// unsigned plain CBOR in declaration order, which is not canonical
// (spec/wire.md section 13.9). It is for vectors and interchange and proves
// nothing; a store uses MakeGenesis.
func ReferenceGenesis(owner OwnerPublic, created time.Time) ([]byte, error) {
	if _, err := unixSeconds(created); err != nil {
		return nil, err
	}
	w := orderedCBOR(make([]byte, 0, 512))
	w.head(5, 4)
	w.text("schema_version")
	w.head(0, referenceSchemaVersion)
	w.text("owner_public_key")
	w.text(hex.EncodeToString(owner[:]))
	w.text("created_at")
	w.text(created.UTC().Format("2006-01-02T15:04:05Z"))
	w.text("initial_zones")
	w.head(4, uint64(len(referenceZones)))
	for _, z := range referenceZones {
		w.head(5, 4)
		w.text("zone_id")
		w.text(z.id)
		w.text("name")
		w.text(z.name)
		w.text("integrity_level")
		w.head(0, z.integrity)
		w.text("confidentiality_level")
		w.head(0, z.confidentiality)
	}
	return w, nil
}

// ReferenceFingerprint returns the reference profile's fingerprint of an owner:
// "SHA256:" and unpadded base64url of the first 12 bytes of BLAKE3 over public
// key || u32le schema version. The label is the reference's and misleading.
func ReferenceFingerprint(owner OwnerPublic) string {
	b := binary.LittleEndian.AppendUint32(append([]byte(nil), owner[:]...), referenceSchemaVersion)
	sum := blake3.Sum256(b)
	return "SHA256:" + base64.RawURLEncoding.EncodeToString(sum[:12])
}

// orderedCBOR writes CBOR items in the order they come, for what fcp.Marshal does
// not order: the reference genesis, and the claims and envelope of a token.
type orderedCBOR []byte

// head writes a head in its shortest form (RFC 8949 section 3).
func (w *orderedCBOR) head(major byte, n uint64) {
	m := major << 5
	switch {
	case n < 24:
		*w = append(*w, m|byte(n))
	case n <= math.MaxUint8:
		*w = append(*w, m|24, byte(n))
	case n <= math.MaxUint16:
		*w = binary.BigEndian.AppendUint16(append(*w, m|25), uint16(n))
	case n <= math.MaxUint32:
		*w = binary.BigEndian.AppendUint32(append(*w, m|26), uint32(n))
	default:
		*w = binary.BigEndian.AppendUint64(append(*w, m|27), n)
	}
}

func (w *orderedCBOR) bytes(b []byte) {
	w.head(2, uint64(len(b)))
	*w = append(*w, b...)
}

func (w *orderedCBOR) text(s string) {
	w.head(3, uint64(len(s)))
	*w = append(*w, s...)
}
