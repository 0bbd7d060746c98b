package authority

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
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

// orderedCBOR writes CBOR items in the order they come. Only the reference
// genesis is not canonical; everything else uses fcp.Marshal.
type orderedCBOR []byte

func (w *orderedCBOR) head(major byte, n uint64) {
	if n < 24 {
		*w = append(*w, major<<5|byte(n))
		return
	}
	*w = append(*w, major<<5|24, byte(n)) // every length and number here is below 256
}

func (w *orderedCBOR) text(s string) {
	w.head(3, uint64(len(s)))
	*w = append(*w, s...)
}
