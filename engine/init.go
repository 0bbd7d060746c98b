package engine

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"fcp"
	"fcp/authority"
	"fcp/authority/keystore"
	"fcp/log"
)

// Format is the version of a store directory: of the log, of the state's keys and
// of everything else in it. A store of another version is refused.
const Format = 1

// The entries of a store directory (docs/format.md "Store directory").
const (
	dirLog        = "log"
	dirState      = "state"
	dirKeys       = "keys"
	dirCheckpoint = "subscriptions"
	fileFormat    = "FORMAT"
	fileInit      = "INIT" // there while Init is at work
	fileLock      = "LOCK"
)

func (v *Environment) setDefaults() {
	if v.FS == nil {
		v.FS = vfs.Default
	}
	if v.Now == nil {
		v.Now = time.Now
	}
	if v.Rand == nil {
		v.Rand = rand.Reader
	}
	if v.Logger == nil {
		v.Logger = slog.New(slog.DiscardHandler)
	}
}

// Init makes a store in dir, which must be new, empty, or left by an Init that
// did not finish. When it returns nil everything is on disk: the owner's
// identity, the node's keys, the genesis checkpoint, the five standard zones with
// their keys, and the schemas. Errors: CodeStoreExists, CodeNotEmpty, CodeDisk,
// and those of SaveOwner.
func Init(ctx context.Context, dir string, o InitOptions) (InitResult, error) {
	o.setDefaults()
	if o.Device == "" {
		o.Device = "node"
	}
	if err := prepareDir(o.FS, dir); err != nil {
		return InitResult{}, err
	}
	owner := o.Owner
	if owner == nil {
		var err error
		if owner, err = authority.NewOwnerKey(o.Rand); err != nil {
			return InitResult{}, err
		}
		defer owner.Wipe()
	}
	if o.SaveOwner != nil {
		if err := o.SaveOwner(owner); err != nil {
			return InitResult{}, err
		}
	}
	node, err := authority.NewNodeKeys(o.Rand)
	if err != nil {
		return InitResult{}, err
	}
	defer node.Wipe()
	genesis, err := authority.MakeGenesis(o.Rand, o.Now(), owner, node, authority.StandardGenesisZones())
	if err != nil {
		return InitResult{}, err
	}
	hybrid, err := node.Hybrid()
	if err != nil {
		return InitResult{}, err
	}
	f := founding{env: &o.Environment, owner: owner, node: node.Public(), hybrid: hybrid, genesis: genesis, device: o.Device}
	if err := f.plan(); err != nil {
		return InitResult{}, err
	}
	if err := makeStore(&o.Environment, dir, node, genesis.Bytes, f.manifests); err != nil {
		return InitResult{}, err
	}
	if err := f.append(ctx, dir); err != nil {
		return InitResult{}, err
	}
	return InitResult{Dir: dir, Owner: owner.Public(), Writer: node.Writer(), Genesis: genesis.Facts.ID,
		Zones: f.zones, Events: f.events}, finishDir(o.FS, dir)
}

// JoinOptions configures Join.
type JoinOptions struct {
	Environment
	Node      *authority.NodeKeys // made beforehand, so that manifests could be sealed to it
	Genesis   []byte              // the genesis checkpoint of the store to join
	Manifests [][]byte            // zone key manifests; those for this node open its zones
}

// Join makes a store in dir for another node of an existing store. It holds no
// events: they come through ImportEvents. Errors are those of Init, and those of
// authority.VerifyGenesis.
func Join(ctx context.Context, dir string, o JoinOptions) error {
	o.setDefaults()
	if _, err := authority.VerifyGenesis(o.Genesis); err != nil {
		return err
	}
	if err := prepareDir(o.FS, dir); err != nil {
		return err
	}
	if err := makeStore(&o.Environment, dir, o.Node, o.Genesis, o.Manifests); err != nil {
		return err
	}
	l, err := log.Open(o.FS.PathJoin(dir, dirLog), logOptions(&o.Environment, o.Node.Writer(), true))
	if err != nil {
		return err
	}
	return errors.Join(l.Close(), finishDir(o.FS, dir))
}

// prepareDir makes dir and the marker that says an Init is at work, or refuses.
func prepareDir(files vfs.FS, dir string) error {
	if err := makeDir(files, dir); err != nil {
		return fcp.Wrap(fcp.CodeDisk, err, "make the store directory")
	}
	if _, err := files.Stat(files.PathJoin(dir, fileFormat)); err == nil {
		return fcp.Errorf(fcp.CodeStoreExists, "%s", dir)
	}
	_, err := files.Stat(files.PathJoin(dir, fileInit))
	unfinished := err == nil
	for _, name := range []string{dirLog, dirState, dirKeys} {
		path := files.PathJoin(dir, name)
		if _, err := files.Stat(path); err != nil {
			continue
		}
		if !unfinished {
			return fcp.Errorf(fcp.CodeNotEmpty, "%s has %s but is no store", dir, name)
		}
		// Nothing of an Init that did not finish was ever acknowledged.
		if err := files.RemoveAll(path); err != nil {
			return fcp.Wrap(fcp.CodeDisk, err, "remove what an unfinished init left")
		}
	}
	return writeFile(files, dir, fileInit, []byte("an init that did not finish\n"))
}

// makeDir makes a directory and what is missing above it, so that each survives a
// crash: a name is durable when the directory that holds it is synced.
func makeDir(files vfs.FS, dir string) error {
	var missing []string
	for d := dir; ; d = files.PathDir(d) {
		if _, err := files.Stat(d); err == nil || d == files.PathDir(d) {
			break
		}
		missing = append(missing, d)
	}
	if err := files.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	for _, d := range missing {
		if err := syncDir(files, files.PathDir(d)); err != nil {
			return err
		}
	}
	return nil
}

// makeStore writes the keys and their directories.
func makeStore(env *Environment, dir string, node *authority.NodeKeys, genesis []byte, manifests [][]byte) error {
	keys := keyDir{env.FS, env.FS.PathJoin(dir, dirKeys)}
	for _, d := range []string{keys.path, env.FS.PathJoin(dir, dirLog), env.FS.PathJoin(dir, dirState)} {
		if err := makeDir(env.FS, d); err != nil {
			return fcp.Wrap(fcp.CodeDisk, err, "make the store directory")
		}
	}
	if err := keystore.CreateNode(keyFiles(env.FS), keys.file(nodeKeyFile), node); err != nil {
		return err
	}
	if err := writeFile(env.FS, keys.path, genesisFile, genesis); err != nil {
		return err
	}
	for _, m := range manifests {
		if err := keys.saveManifest(m); err != nil {
			return err
		}
	}
	return nil
}

// finishDir makes the directory a store: from here on Open accepts it.
func finishDir(files vfs.FS, dir string) error {
	if err := writeFile(files, dir, fileFormat, []byte(strconv.Itoa(Format)+"\n")); err != nil {
		return err
	}
	if err := files.Remove(files.PathJoin(dir, fileInit)); err != nil {
		return fcp.Wrap(fcp.CodeDisk, err, "finish the init")
	}
	return fcp.Wrap(fcp.CodeDisk, syncDir(files, dir), "finish the init")
}

// CheckFormat refuses what is no store, or one of another format. Errors: CodeNoStore,
// CodeVersion, CodeCorrupt, CodeUnauthorized, CodeDisk.
func CheckFormat(files vfs.FS, dir string) error {
	b, err := readFile(files, files.PathJoin(dir, fileFormat), 64)
	switch {
	case err == nil:
	case errors.Is(err, fs.ErrPermission):
		return fcp.Errorf(fcp.CodeUnauthorized, "this user may not read %s: %w", dir, err).WithNext("run as the user who owns the directory")
	case !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ENOTDIR):
		return fcp.Wrap(fcp.CodeDisk, err, "look at %s", dir)
	case hasRemains(files, dir):
		return lost("%s holds the keys and the log of a store, and the file %s is gone; if that is all, it opens again with `echo %d` written there",
			dir, fileFormat, Format)
	default:
		return fcp.Errorf(fcp.CodeNoStore, "%s", dir)
	}
	n, err := strconv.Atoi(strings.TrimSuffix(string(b), "\n"))
	if err != nil || n < 1 || string(b) != fmt.Sprintf("%d\n", n) {
		return fcp.Errorf(fcp.CodeCorrupt, "the format file of %s does not hold a number", dir)
	}
	if n != Format {
		return fcp.Errorf(fcp.CodeVersion, "the store has format %d, this build knows format %d", n, Format)
	}
	return nil
}

// hasRemains reports whether dir holds what a store has, and no Init is at work there.
func hasRemains(files vfs.FS, dir string) bool {
	there := func(name ...string) bool {
		_, err := files.Stat(files.PathJoin(append([]string{dir}, name...)...))
		return err == nil
	}
	return !there(fileInit) && there(dirLog) && there(dirKeys, nodeKeyFile)
}

func logOptions(env *Environment, writer fcp.WriterID, create bool) log.Options {
	return log.Options{FS: env.FS, Now: env.Now, Rand: env.Rand, Logger: env.Logger, Writer: writer, Create: create,
		DisableBallast: env.FS != vfs.Default}
}

// founding is what the first events of a store are made from.
type founding struct {
	env     *Environment
	owner   *authority.OwnerKey
	node    authority.NodePublic
	hybrid  authority.HybridPublic
	genesis *authority.Genesis
	device  string

	zones     []fcp.ZoneID
	drafts    [][]log.Draft // by zone
	manifests [][]byte
	events    int
}

// plan makes the events of each zone: the genesis checkpoint first, so that a
// zone explains its own authority, then its definition and its keys. The owner's
// zone also holds the schemas and the enrollment of this node.
func (f *founding) plan() error {
	now := f.env.Now()
	for _, z := range f.genesis.Facts.Zones {
		keys, err := authority.NewZoneKeys(f.env.Rand, z.Zone)
		if err != nil {
			return err
		}
		defer keys.Wipe()
		definition, err := authority.SignZone(now, f.owner, authority.ZoneSpec{ID: z.Zone, Name: strings.TrimPrefix(z.Zone.String(), "z:"), Levels: z.Levels, Version: 1})
		if err != nil {
			return err
		}
		manifest, err := authority.SealManifest(f.env.Rand, now, f.owner, keys, authority.ManifestSpec{
			Version: 1, Recovery: f.genesis.Facts.Recovery, Recipients: []authority.Recipient{f.node.Recipient()}})
		if err != nil {
			return err
		}
		f.manifests = append(f.manifests, manifest)
		f.zones = append(f.zones, z.Zone)
		d := []log.Draft{
			f.draft(z.Zone, fcp.KindCheckpointSigned, f.genesis.Bytes, fcp.ObjectID(f.genesis.Facts.ID)),
			f.draft(z.Zone, fcp.KindZoneDefined, definition, objectIDOf(keys, fcp.SchemaZoneDefinition, definition)),
			f.draft(z.Zone, fcp.KindZoneKeyManifest, manifest, objectIDOf(keys, fcp.SchemaZoneKeyManifest, manifest)),
		}
		if z.Zone == fcp.ZoneOwner {
			if d, err = f.ownerZone(d, keys, now); err != nil {
				return err
			}
		}
		f.drafts = append(f.drafts, d)
		f.events += len(d)
	}
	return nil
}

func (f *founding) ownerZone(d []log.Draft, keys *authority.ZoneKeys, now time.Time) ([]log.Draft, error) {
	for _, s := range fcp.BuiltinSchemas() {
		body, err := schemaBody(s)
		if err != nil {
			return nil, err
		}
		d = append(d, f.draft(fcp.ZoneOwner, fcp.KindSchemaDefined, body, objectIDOf(keys, fcp.SchemaSchemaDefinition, body)))
	}
	body, err := authority.SignDevice(now, f.owner, authority.DeviceSpec{Node: f.node, Hybrid: f.hybrid, Name: f.device})
	if err != nil {
		return nil, err
	}
	return append(d, f.draft(fcp.ZoneOwner, fcp.KindDeviceEnrolled, body, objectIDOf(keys, fcp.SchemaDeviceEnrollment, body))), nil
}

func (f *founding) draft(zone fcp.ZoneID, kind fcp.Kind, body []byte, id fcp.ObjectID) log.Draft {
	return log.Draft{Zone: zone, Plane: fcp.PlaneControl, Under: f.genesis.Facts.ID,
		Content: fcp.Content{Kind: kind, Object: id, Body: body}}
}

// objectIDOf names a governance object: keyed with the zone's object-id key over
// the body as signed.
func objectIDOf(keys *authority.ZoneKeys, schema fcp.Schema, body []byte) fcp.ObjectID {
	return keys.KeyedObjectID(schema.Hash(), body)
}

func (f *founding) append(ctx context.Context, dir string) error {
	l, err := log.Open(f.env.FS.PathJoin(dir, dirLog), logOptions(f.env, f.node.Writer(), true))
	if err != nil {
		return err
	}
	for _, d := range f.drafts {
		if _, err := l.Append(ctx, slices.Clone(d)); err != nil {
			return errors.Join(err, l.Close())
		}
	}
	return l.Close()
}

var _ io.Closer = (*Engine)(nil)
