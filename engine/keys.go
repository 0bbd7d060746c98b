package engine

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"slices"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"

	"fcp"
	"fcp/authority"
	"fcp/authority/keystore"
	"fcp/log"
)

// keyring is what this node can open. It is replaced as a whole when a zone key
// manifest arrives, and never changed.
type keyring struct {
	zones map[fcp.ZoneID]*zoneKeys
	byID  map[authority.KeyID]*authority.ZoneKeys
	known map[[sha256.Size]byte]openedManifest // by the manifest's hash
}

// openedManifest is a manifest that was verified, and what it gave: opening one anew
// with each that arrives would cost the square of their number.
type openedManifest struct {
	manifest *authority.Manifest
	keys     *authority.ZoneKeys // nil: this node is no recipient
}

// zoneKeys are the keys of one zone, the newest first.
type zoneKeys struct {
	zone     fcp.ZoneID
	versions []*authority.ZoneKeys
	numbers  []uint64 // of the manifests
}

// current returns the keys that new bodies and segments are sealed with.
func (z *zoneKeys) current() *authority.ZoneKeys { return z.versions[0] }

// newKeyring opens every manifest it can. Those that an earlier keyring of the same
// node opened, nil for none, are not opened again.
func newKeyring(before *keyring, owner authority.OwnerPublic, node *authority.NodeKeys, recovery *authority.RecoveryKey, manifests [][]byte) (*keyring, error) {
	k := &keyring{zones: map[fcp.ZoneID]*zoneKeys{}, byID: map[authority.KeyID]*authority.ZoneKeys{}, known: map[[sha256.Size]byte]openedManifest{}}
	for _, b := range manifests {
		sum := sha256.Sum256(b)
		var o openedManifest
		var ok bool
		if before != nil {
			o, ok = before.known[sum]
		}
		if !ok {
			var err error
			if o, err = openManifest(owner, node, recovery, b); err != nil {
				return nil, err
			}
		}
		k.known[sum] = o
		if o.keys != nil {
			k.add(o.manifest, o.keys)
		}
	}
	return k, nil
}

// openManifest verifies a manifest and opens it if this node is a recipient: else the
// zone stays closed to it.
func openManifest(owner authority.OwnerPublic, node *authority.NodeKeys, recovery *authority.RecoveryKey, b []byte) (openedManifest, error) {
	m, err := authority.VerifyManifest(owner, b)
	if err != nil {
		return openedManifest{}, fcp.Wrap(fcp.CodeCorrupt, err, "a zone key manifest")
	}
	var keys *authority.ZoneKeys
	if recovery != nil {
		keys, err = m.OpenRecovery(recovery)
	} else {
		keys, err = m.OpenNode(node)
	}
	if errors.Is(err, fcp.CodeWrongKey) {
		return openedManifest{manifest: m}, nil
	}
	return openedManifest{m, keys}, err
}

func (k *keyring) add(m *authority.Manifest, keys *authority.ZoneKeys) {
	k.byID[m.IDs().Zone] = keys
	z := k.zones[m.Zone()]
	if z == nil {
		z = &zoneKeys{zone: m.Zone()}
		k.zones[m.Zone()] = z
	}
	at := 0
	for at < len(z.numbers) && z.numbers[at] > m.Version() {
		at++
	}
	z.versions = slices.Insert(z.versions, at, keys)
	z.numbers = slices.Insert(z.numbers, at, m.Version())
}

// open decrypts a sealed body with whichever version of the zone's keys fits.
func (z *zoneKeys) open(dst []byte, id fcp.ObjectID, salt [log.SaltSize]byte, sealed []byte) (plain []byte, by *authority.ZoneKeys, err error) {
	for _, k := range z.versions {
		if plain, err = k.OpenBody(dst, id, salt, sealed); err == nil {
			return plain, k, nil
		}
	}
	return nil, nil, err
}

// sealer implements log.Sealer over the engine's current keyring.
type sealer struct{ e *Engine }

// segmentAddress is what a segment's key and frames are bound to: feed id, u64be
// first and last sequence number (docs/format.md "Segment").
func segmentAddress(run log.Run) []byte {
	id := run.Feed.ID()
	b := append([]byte(nil), id[:]...)
	b = appendUint64(b, run.First)
	return appendUint64(b, run.Last)
}

func appendUint64(b []byte, n uint64) []byte {
	return append(b, byte(n>>56), byte(n>>48), byte(n>>40), byte(n>>32), byte(n>>24), byte(n>>16), byte(n>>8), byte(n))
}

func (s sealer) NewSegment(run log.Run) (log.SegmentCipher, []byte, fcp.Hash, error) {
	var id fcp.Hash
	z := s.e.ring.Load().zones[run.Feed.Zone]
	if z == nil {
		return nil, nil, id, errNoZoneKeys(run.Feed.Zone)
	}
	key, err := authority.NewSegmentKey(s.e.env.Rand)
	if err != nil {
		return nil, nil, id, err
	}
	defer key.Wipe()
	address := segmentAddress(run)
	wrapped, err := z.current().WrapSegmentKey(s.e.env.Rand, key, address)
	if err != nil {
		return nil, nil, id, err
	}
	c, err := key.Cipher(address)
	if err != nil {
		return nil, nil, id, err
	}
	keyID := z.current().IDs().Zone
	copy(id[:], keyID[:])
	return c, wrapped[:], id, nil
}

func (s sealer) OpenSegment(run log.Run, wrapped []byte, zoneKey fcp.Hash) (log.SegmentCipher, error) {
	keys := s.e.ring.Load().byID[authority.KeyID(zoneKey[:len(authority.KeyID{})])]
	if keys == nil || keys.Zone() != run.Feed.Zone {
		return nil, errNoZoneKeys(run.Feed.Zone)
	}
	address := segmentAddress(run)
	key, err := keys.UnwrapSegmentKey(wrapped, address)
	if err != nil {
		return nil, err
	}
	defer key.Wipe()
	return key.Cipher(address)
}

func errNoZoneKeys(zone fcp.ZoneID) error {
	return fcp.Errorf(fcp.CodeUnauthorized, "this node has no keys of zone %s", zone).
		WithNext("enroll this node for the zone from a device that has the owner identity")
}

// signer implements log.Signer with the node's signing key.
type signer struct{ node *authority.NodeKeys }

func (s signer) Public() ed25519.PublicKey {
	pub := s.node.Public().Signing
	return ed25519.PublicKey(pub[:])
}

func (s signer) Sign(message []byte) ([]byte, error) { return s.node.Sign(message), nil }

// Files of dir/keys. The manifests are also events; their copies here open the
// segments that those events end up in. They hold no secret in the clear.
const (
	nodeKeyFile    = "node"
	genesisFile    = "genesis"
	manifestSuffix = ".manifest"
)

// keyDir is the directory of the node's keys.
type keyDir struct {
	fs   vfs.FS
	path string
}

func (k keyDir) file(name string) string { return k.fs.PathJoin(k.path, name) }

// LoadNodeKeys returns the node keys of the store in dir, which another process may have
// open: they never change. Wipe them after use. Errors are those of keystore.LoadNode.
func LoadNodeKeys(dir string, env Environment) (*authority.NodeKeys, error) {
	env.setDefaults()
	return keyDir{env.FS, env.FS.PathJoin(dir, dirKeys)}.loadNode()
}

func (k keyDir) loadNode() (*authority.NodeKeys, error) {
	return keystore.LoadNode(keyFiles(k.fs), k.file(nodeKeyFile), nil)
}

func (k keyDir) loadGenesis() (*authority.GenesisFacts, []byte, error) {
	b, err := readFile(k.fs, k.file(genesisFile), authority.MaxSignedObject)
	if err != nil {
		return nil, nil, fcp.Wrap(fcp.CodeCorrupt, err, "read the genesis checkpoint")
	}
	g, err := authority.VerifyGenesis(b)
	return g, b, fcp.Wrap(fcp.CodeCorrupt, err, "the file %s", genesisFile)
}

func (k keyDir) saveManifest(body []byte) error {
	sum := sha256.Sum256(body)
	name := hex.EncodeToString(sum[:16]) + manifestSuffix
	if _, err := k.fs.Stat(k.file(name)); err == nil {
		return nil
	}
	return writeFile(k.fs, k.path, name, body)
}

// loadManifests returns the manifests in the order of their names.
func (k keyDir) loadManifests() ([][]byte, error) {
	names, err := k.fs.List(k.path)
	if err != nil {
		return nil, fcp.Wrap(fcp.CodeDisk, err, "list the keys")
	}
	slices.Sort(names)
	var out [][]byte
	for _, name := range names {
		if !strings.HasSuffix(name, manifestSuffix) {
			continue
		}
		b, err := readFile(k.fs, k.file(name), authority.MaxSignedObject)
		if err != nil {
			return nil, err
		}
		out = append(out, b)
	}
	return out, nil
}

// readFile returns a whole file of at most max bytes.
func readFile(files vfs.FS, path string, max int) ([]byte, error) {
	f, err := files.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, int64(max)+1))
	if err != nil {
		return nil, fcp.Wrap(fcp.CodeDisk, err, "read a file of the store")
	}
	if len(b) > max {
		return nil, fcp.Errorf(fcp.CodeTooLarge, "a file of the store has more than %d bytes", max)
	}
	return b, nil
}

// writeFile makes or replaces a file in one step that survives a crash.
func writeFile(files vfs.FS, dir, name string, data []byte) error {
	return writeFiles(files, dir, []namedFile{{name, bytes.Clone(data)}})
}

func syncDir(files vfs.FS, dir string) error {
	d, err := files.OpenDir(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// keyFiles returns the keystore's view of a file system: the operating system's
// own with its modes, or a simulated one, which has none.
func keyFiles(files vfs.FS) keystore.FS {
	if files == vfs.Default {
		return keystore.OS{}
	}
	return vfsFiles{files}
}

type vfsFiles struct{ fs vfs.FS }

func (v vfsFiles) ReadFile(path string, max int64) ([]byte, fs.FileMode, error) {
	b, err := readFile(v.fs, path, int(max))
	return b, 0o600, err
}

func (v vfsFiles) WriteFileAtomic(path string, data []byte) error {
	if _, err := v.fs.Stat(path); err == nil {
		return &fs.PathError{Op: "create", Path: path, Err: fs.ErrExist}
	}
	return writeFile(v.fs, v.fs.PathDir(path), v.fs.PathBase(path), data)
}
