package engine

import (
	"crypto/ed25519"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/zeebo/blake3"

	"fcp"
	"fcp/authority"
)

// backupFormat is the version of everything in a backup folder. A field is never
// removed or given a new meaning within one format; an unknown field is refused,
// so a new field is a new format.
const backupFormat = 1

// Limits of a backup.
const (
	maxBackupManifest = 32 << 20
	maxBackupSegments = 1 << 24
	maxTailParts      = 1 << 16
)

var schemaBackupManifest = fcp.MustSchema("fcp.core:BackupManifest@1.0.0")

// backupManifest is docs/format.md "Backup manifest": what a backup consists of,
// signed by the node that wrote it.
type backupManifest struct {
	Format      uint64                  `cbor:"format"`
	Store       uint64                  `cbor:"store"`              // format of the store that is in it
	Seq         uint64                  `cbor:"seq"`                // from 1, one more than the manifest before
	Previous    []byte                  `cbor:"previous,omitempty"` // hash of the manifest before; absent exactly in number 1
	Created     uint64                  `cbor:"created"`            // unix seconds
	Owner       authority.OwnerPublic   `cbor:"owner"`
	Genesis     fcp.Hash                `cbor:"genesis"`          // id of the genesis checkpoint
	Node        authority.SigningPublic `cbor:"node"`             // who signed it
	Device      []byte                  `cbor:"device,omitempty"` // its enrollment by the owner; absent when the genesis names it
	Incarnation uint64                  `cbor:"incarnation"`      // the node's, when it wrote this
	Position    uint64                  `cbor:"position"`         // the node's own; for people
	StateRoot   fcp.Hash                `cbor:"state_root"`       // of the state after exactly the events in here
	Zones       []backupZone            `cbor:"zones,omitempty"`  // strictly ascending
	Events      uint64                  `cbor:"events"`           // in segments and tail
	Segments    uint64                  `cbor:"segments"`
	Bytes       uint64                  `cbor:"bytes"` // of ciphertext in segments
	Index       backupFile              `cbor:"index"`
	KeyTable    backupKeyTable          `cbor:"key_table"`
	ZoneKeys    []fcp.Hash              `cbor:"zone_keys,omitempty"` // files, strictly ascending
	Tail        []backupTail            `cbor:"tail,omitempty"`      // strictly ascending by feed and first
	Signature   []byte                  `cbor:"signature,omitempty"`
}

type backupZone struct {
	Zone fcp.ZoneID `cbor:"zone"`
	Root fcp.Hash   `cbor:"root"`
}

// backupFile refers to a file by its BLAKE3 hash, which is also its name.
type backupFile struct {
	Hash fcp.Hash `cbor:"hash"`
	Size uint64   `cbor:"size"`
}

type backupKeyTable struct {
	Number  uint64   `cbor:"number"` // the manifest it was written for
	Hash    fcp.Hash `cbor:"hash"`
	Size    uint64   `cbor:"size"`
	Entries uint64   `cbor:"entries"` // salts that are not zero
}

// backupTail refers to a run of events that are in no segment. Feed, Last and
// Head name its content for good, because Head ends a hash chain.
type backupTail struct {
	Feed    fcp.FeedID      `cbor:"feed"`
	First   uint64          `cbor:"first"`
	Last    uint64          `cbor:"last"`
	Head    fcp.Hash        `cbor:"head"` // hash of event Last
	Hash    fcp.Hash        `cbor:"hash"` // of the file
	Size    uint64          `cbor:"size"`
	Key     []byte          `cbor:"key"`      // wrapped by the zone key
	ZoneKey authority.KeyID `cbor:"zone_key"` // which one
}

// The names of a backup's files.

const (
	backupGenesis     = "genesis"
	manifestPrefix    = "manifest/"
	keyTablePrefix    = "keytable/"
	segmentPrefix     = "segments/"
	cardPrefix        = "cards/"
	backupIndexPrefix = "index/"
	tailPrefix        = "tail/"
	zoneKeyPrefix     = "zonekeys/"
)

func manifestName(seq uint64) string    { return fmt.Sprintf("%s%010d.manifest", manifestPrefix, seq) }
func keyTableName(number uint64) string { return fmt.Sprintf("%s%010d.keys", keyTablePrefix, number) }

// manifestSeq is the inverse of manifestName.
func manifestSeq(name string) (uint64, bool) {
	s, ok := strings.CutPrefix(name, manifestPrefix)
	if !ok {
		return 0, false
	}
	n, err := strconv.ParseUint(strings.TrimSuffix(s, ".manifest"), 10, 64)
	return n, err == nil && n > 0 && manifestName(n) == name
}

// keyTableNumber is the inverse of keyTableName.
func keyTableNumber(name string) (uint64, bool) {
	s, ok := strings.CutPrefix(name, keyTablePrefix)
	if !ok {
		return 0, false
	}
	n, err := strconv.ParseUint(strings.TrimSuffix(s, ".keys"), 10, 64)
	return n, err == nil && n > 0 && keyTableName(n) == name
}

func segmentName(id fcp.SegmentID) string { return spread(segmentPrefix, id[:], ".seg") }
func cardName(id fcp.SegmentID) string    { return spread(cardPrefix, id[:], ".card") }

// spread puts files into 256 folders by the first byte of their id.
func spread(prefix string, id []byte, suffix string) string {
	h := hex.EncodeToString(id)
	return prefix + h[:2] + "/" + h + suffix
}

// unspread returns the id of a name that spread made.
func unspread(name, prefix, suffix string) (id fcp.SegmentID, ok bool) {
	s, ok := strings.CutPrefix(name, prefix)
	if !ok || len(s) != 3+2*fcp.HashSize+len(suffix) {
		return id, false
	}
	b, err := hex.DecodeString(s[3 : 3+2*fcp.HashSize])
	if err != nil {
		return id, false
	}
	copy(id[:], b)
	return id, spread(prefix, b, suffix) == name
}

func indexName(h fcp.Hash) string   { return backupIndexPrefix + h.String() + ".index" }
func tailName(h fcp.Hash) string    { return tailPrefix + h.String() + ".tail" }
func zoneKeyName(h fcp.Hash) string { return zoneKeyPrefix + h.String() + ".manifest" }

// isBackupName reports whether a backup could have written a file of that name.
func isBackupName(name string) bool {
	hashed := func(prefix, suffix string) bool {
		h, err := fcp.ParseHash(strings.TrimSuffix(strings.TrimPrefix(name, prefix), suffix))
		return err == nil && prefix+h.String()+suffix == name
	}
	if _, ok := manifestSeq(name); ok || name == backupGenesis {
		return true
	}
	if _, ok := unspread(name, segmentPrefix, ".seg"); ok {
		return true
	}
	if _, ok := unspread(name, cardPrefix, ".card"); ok {
		return true
	}
	_, ok := keyTableNumber(name)
	return ok || hashed(backupIndexPrefix, ".index") || hashed(tailPrefix, ".tail") || hashed(zoneKeyPrefix, ".manifest")
}

// fileHash is how a backup names bytes: what any BLAKE3 tool prints.
func fileHash(b []byte) fcp.Hash { return blake3.Sum256(b) }

// sign encodes the manifest with the node's signature over the schema hash and
// the canonical encoding without the signature.
func (m *backupManifest) sign(node *authority.NodeKeys) ([]byte, error) {
	m.Signature = nil
	if err := m.check(); err != nil {
		return nil, err
	}
	message, err := fcp.MarshalPayload(schemaBackupManifest, m)
	if err != nil {
		return nil, err
	}
	m.Signature = node.Sign(message)
	b, err := fcp.MarshalPayload(schemaBackupManifest, m)
	if err == nil && len(b) > maxBackupManifest {
		err = fcp.Errorf(fcp.CodeTooLarge, "a backup manifest of %d bytes", len(b))
	}
	return b, err
}

// decodeBackupManifest decodes a manifest and verifies the signature of the node
// it names. Whether that node may speak for the store says authorised.
func decodeBackupManifest(b []byte) (*backupManifest, error) {
	if len(b) > maxBackupManifest {
		return nil, fcp.Errorf(fcp.CodeTooLarge, "a backup manifest of %d bytes", len(b))
	}
	var m backupManifest
	if err := fcp.UnmarshalPayload(schemaBackupManifest, b, &m); err != nil {
		return nil, err
	}
	if m.Format != backupFormat {
		return nil, fcp.Errorf(fcp.CodeVersion, "backup format %d, this build knows %d", m.Format, backupFormat)
	}
	if err := m.check(); err != nil {
		return nil, err
	}
	signed := m
	signed.Signature = nil
	message, err := fcp.MarshalPayload(schemaBackupManifest, &signed)
	if err != nil {
		return nil, err
	}
	if !m.Node.Verify(message, m.Signature) {
		return nil, fcp.Errorf(fcp.CodeSignature, "backup manifest %d", m.Seq)
	}
	return &m, nil
}

func (m *backupManifest) check() error {
	bad := func(what string) error {
		return fcp.Errorf(fcp.CodeMalformed, "backup manifest %d: %s", m.Seq, what)
	}
	switch {
	case m.Format != backupFormat:
		return bad("format")
	case m.Seq == 0 || (m.Seq == 1) != (len(m.Previous) == 0) || m.Seq > 1 && len(m.Previous) != fcp.HashSize:
		return bad("the manifest before it")
	case m.Created > 1<<38:
		return bad("time")
	case m.Segments > maxBackupSegments || m.Index.Size != indexSize(m.Segments) || m.Bytes > m.Segments*fcp.MaxSegment:
		return bad("index")
	case m.KeyTable.Number == 0 || m.KeyTable.Number > m.Seq:
		return bad("key table")
	case len(m.Tail) > maxTailParts:
		return bad("tail")
	}
	for i, z := range m.Zones {
		if !z.Zone.Valid() || i > 0 && m.Zones[i-1].Zone >= z.Zone {
			return bad("zones")
		}
	}
	for i := 1; i < len(m.ZoneKeys); i++ {
		if string(m.ZoneKeys[i-1][:]) >= string(m.ZoneKeys[i][:]) {
			return bad("zone keys")
		}
	}
	for i := range m.Tail {
		if !m.Tail[i].valid() || i > 0 && !m.Tail[i-1].before(&m.Tail[i]) {
			return bad("tail")
		}
	}
	return nil
}

func (t *backupTail) valid() bool {
	return t.First > 0 && t.Last >= t.First && t.Last-t.First < maxTailPlain && t.Size > 0 && t.Size <= maxTailFile &&
		len(t.Key) == authority.WrappedKeySize
}

// before orders the parts: by feed, then behind each other without overlap.
func (t *backupTail) before(o *backupTail) bool {
	if t.Feed != o.Feed {
		return string(t.Feed[:]) < string(o.Feed[:])
	}
	return t.Last < o.First
}

// authorised checks that the owner of the genesis checkpoint enrolled the node
// that signed the manifest.
func (m *backupManifest) authorised(g *authority.GenesisFacts) error {
	if m.Genesis != g.ID || m.Owner != g.Owner {
		return fcp.Errorf(fcp.CodeManifest, "manifest %d is of another store", m.Seq)
	}
	if len(m.Device) == 0 {
		if m.Node != g.Node.Signing {
			return fcp.Errorf(fcp.CodeSignature, "manifest %d is signed by a node that it does not introduce", m.Seq)
		}
		return nil
	}
	d, err := authority.OpenDevice(m.Device)
	if err != nil {
		return fcp.Wrap(fcp.CodeManifest, err, "manifest %d", m.Seq)
	}
	if d.Issuer() != g.Owner || d.Node().Signing != m.Node {
		return fcp.Errorf(fcp.CodeSignature, "manifest %d is signed by a node that the owner did not enroll", m.Seq)
	}
	return nil
}

func (m *backupManifest) created() time.Time { return time.Unix(int64(m.Created), 0).UTC() }

func (m *backupManifest) writer() fcp.WriterID {
	return fcp.WriterOf(ed25519.PublicKey(m.Node[:]))
}

// total is what a reader of the whole backup has to read, manifests aside.
func (m *backupManifest) total() uint64 {
	n := m.Bytes + m.Index.Size + m.KeyTable.Size
	for i := range m.Tail {
		n += m.Tail[i].Size
	}
	return n
}

// address is what the key and the frames of a tail file are bound to.
func (t *backupTail) address() []byte {
	b := append([]byte("FCP2-BACKUP-TAIL-V1"), t.Feed[:]...)
	b = appendUint64(b, t.First)
	b = appendUint64(b, t.Last)
	return append(b, t.Head[:]...)
}

// String names the run, for messages.
func (t *backupTail) String() string {
	return fmt.Sprintf("events %d to %d of feed %.16s", t.First, t.Last, t.Feed.String())
}
