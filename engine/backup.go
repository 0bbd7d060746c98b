package engine

import (
	"context"
	"time"

	"fcp"
	"fcp/authority"
	"fcp/engine/blob"
)

// BackupOptions configures Backup.
type BackupOptions struct {
	// Keep is how many restore points stay, the new one included; below 1 is 1. A
	// point that stays keeps the key table of its time, and so the keys of bodies
	// that were forgotten since.
	Keep int
	// Trust takes files that are there with the right size for whole. Without it
	// they are all read and compared, and what rotted is written again.
	Trust bool
	// Progress is told the bytes of ciphertext copied or found there already; may
	// be nil; called from one goroutine.
	Progress func(Progress)
}

// BackupResult says what Backup wrote.
type BackupResult struct {
	Dir       string
	Seq       uint64   // number of the manifest in this folder, from 1
	Manifest  fcp.Hash // its hash: give it to VerifyBackup and Restore to be sure of the newest
	Position  uint64   // of the store; the backup holds every event up to it
	StateRoot fcp.Hash // of the state at Position
	ZoneRoots map[fcp.ZoneID]fcp.Hash

	Segments    int    // in the backup now
	Bytes       uint64 // of ciphertext in the backup now
	NewSegments int    // copied by this call
	Events      uint64 // in the backup
	TailEvents  uint64 // of them in no segment
	Files       int    // files written by this call
	Written     uint64 // bytes written by this call, manifest and key table included
	Removed     int    // files removed that no restore point needs
	Points      int    // restore points in the folder now
	Mended      int    // files that were there damaged, and were written again
	Elapsed     time.Duration
}

// VerifyBackupOptions configures VerifyBackup. The zero value checks all that can
// be checked without a key.
type VerifyBackupOptions struct {
	Environment

	// Owner is the identity. With it everything is decrypted and replayed.
	Owner *authority.OwnerKey
	// Manifest, unless zero, is the hash that the newest manifest must have.
	Manifest fcp.Hash
	// Scratch is an empty or new directory for the replay; "": memory for small
	// backups, else a temporary directory. It is removed after.
	Scratch string
	// Progress is told bytes (stage "files"), then bytes (stage "replay"); may be nil.
	Progress func(Progress)
}

// BackupReport says exactly what was checked and what is wrong.
type BackupReport struct {
	Dir      string
	Owner    authority.OwnerPublic
	Writer   fcp.WriterID // the node that wrote the newest manifest
	Genesis  fcp.Hash
	Created  time.Time // of the newest manifest
	Seq      uint64    // of the newest manifest
	Manifest fcp.Hash

	Files     int    // read whole
	Bytes     uint64 // read
	Manifests int    // of the chain: signature, hash of the one before, enrollment of the signer
	Segments  int    // ciphertext hash and length, source commitments
	Points    int    // older restore points whose files were read too
	Cards     int    // signature, segment id
	ZoneKeys  int    // owner signature of zone key manifests
	Salts     uint64 // entries of the key table, whose checksum was compared
	TailParts int    // ciphertext hash and length

	// The rest needs the identity.
	Decrypted bool
	Events    uint64 // leaf hash, chain, Merkle root
	Bodies    uint64 // object ids recomputed
	StateRoot fcp.Hash
	Identical bool // StateRoot is the manifest's

	Findings []BackupFinding
	Unlisted []UnlistedFile // ascending by name; no restore needs them
	Elapsed  time.Duration
}

// UnlistedFile is a file in a backup's folder that no restore point lists.
type UnlistedFile struct {
	File string
	// Own says that it is named as a backup's own files are: an interrupted backup
	// leaves such, and so does somebody who removes the newest manifest. Others are
	// strangers, as what a file manager drops into each folder.
	Own bool
}

// Checked returns one line for each thing that was checked, for people.
func (r *BackupReport) Checked() []string { return r.checked() }

// BackupFinding is one thing that is wrong with a backup.
type BackupFinding struct {
	Code fcp.Code // CodeManifest for missing files
	File string   // name inside the backup; "" when it concerns no single file
	What string
}

// RestoreOptions configures Restore.
type RestoreOptions struct {
	Environment

	// Seq picks a restore point by the number of its manifest; 0 is the newest.
	Seq uint64
	// At, unless zero, sets every name back to its version at that time after all
	// of the backup was taken in: see Restore.
	At time.Time

	Owner  *authority.OwnerKey // the identity; needed
	Device string              // display name of the node; "": "restored"
	// Manifest, unless zero, is the hash that the manifest must have.
	Manifest fcp.Hash
	// Progress is told bytes of ciphertext taken in; may be nil.
	Progress func(Progress)
}

// RestoreResult says what Restore made.
type RestoreResult struct {
	Dir         string
	Owner       authority.OwnerPublic
	Writer      fcp.WriterID // of the new node
	From        fcp.WriterID // of the node that wrote the backup
	Incarnation uint64       // the new one
	Seq         uint64       // of the manifest
	Manifest    fcp.Hash
	Created     time.Time // of the backup
	Segments    int
	Events      uint64   // taken in
	Appended    int      // by the restore: enrollment, zone key manifests, the local record, versions set back
	SetBack     int      // names that At changed
	Gone        []string // names whose version at At cannot be read any more: forgotten, or behind the horizon
	StateRoot   fcp.Hash // of what was taken in, before anything was appended
	Identical   bool     // always true when Restore returns nil
	Elapsed     time.Duration
}

// Backup writes a backup of the store into a folder, or adds to the one there.
// It first seals all open runs; the store stays in use meanwhile. The folder is
// described in docs/format.md "Backup". What is there already is not written again. The
// manifest comes last: a backup that is interrupted leaves the one before valid.
// Errors: CodeReadOnly, CodeLocked when another backup writes into the folder,
// CodeNotEmpty when the folder holds the backup of another store or of a later
// one, CodeManifest and others of class Corrupt when what it holds is damaged,
// CodeDisk, CodeDiskFull, CodeInterrupted.
func (e *Engine) Backup(ctx context.Context, dir string, o BackupOptions) (BackupResult, error) {
	return e.BackupTo(ctx, blob.NewFiles(e.env.FS, dir), dir, o)
}

// VerifyBackup checks a backup. It needs neither a daemon nor, without o.Owner, a
// key. The error is for what kept it from checking; what is wrong is in
// BackupReport.Findings. Errors: CodeNotFound when dir is no backup, CodeWrongKey
// for another owner, CodeDisk, CodeInterrupted.
func VerifyBackup(ctx context.Context, dir string, o VerifyBackupOptions) (BackupReport, error) {
	o.setDefaults()
	return VerifyBackupIn(ctx, blob.NewFiles(o.FS, dir), dir, o)
}

// VerifyBackupIn is VerifyBackup in any blob store; where is how the report names it.
func VerifyBackupIn(ctx context.Context, s blob.Store, where string, o VerifyBackupOptions) (BackupReport, error) {
	return verifyBackup(ctx, s, where, o)
}

// Restore makes a store in dir, which must be new or empty, from a backup. It
// checks all that VerifyBackup checks with the identity except that unlisted
// files are not looked at. The store gets new node keys, enrolled by the owner,
// and so a new incarnation; who was revoked stays revoked. On an error nothing
// is left in dir.
//
// With At the names are set back by new versions that equal the old ones, and by
// tombstones; nothing that happened since is taken out of the log, above all no
// revocation and no rotation of keys, and the history shows what was set back. Errors: CodeWrongKey, CodeNotEmpty, CodeStoreExists,
// CodeManifest and those of class Corrupt for a damaged backup, CodeRootMismatch,
// CodeDisk, CodeInterrupted.
func Restore(ctx context.Context, backup, dir string, o RestoreOptions) (RestoreResult, error) {
	o.setDefaults()
	return RestoreFrom(ctx, blob.NewFiles(o.FS, backup), backup, dir, o)
}

// RestoreFrom is Restore from any blob store; where is how errors name it.
func RestoreFrom(ctx context.Context, s blob.Store, where, dir string, o RestoreOptions) (RestoreResult, error) {
	return restore(ctx, s, where, dir, o)
}
