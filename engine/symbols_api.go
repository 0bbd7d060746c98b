package engine

import (
	"context"
	"time"

	"fcp"
	"fcp/engine/symbols"
)

// SymbolPolicy says that any Need of Of directories rebuild everything.
type SymbolPolicy = symbols.Policy

// ParseSymbolPolicy parses "any-2-of-5".
func ParseSymbolPolicy(s string) (SymbolPolicy, error) { return symbols.ParsePolicy(s) }

// ScatterOptions configures Scatter and ScatterBackup.
type ScatterOptions struct {
	Policy SymbolPolicy // Of is the number of directories
	DryRun bool         // write nothing
	// Progress is told bytes of ciphertext; may be nil; called from one goroutine.
	Progress func(Progress)
}

// ScatterResult says what Scatter wrote.
type ScatterResult struct {
	Dirs     []string
	Policy   SymbolPolicy
	Minter   fcp.Kid  // of the key that signed
	Vouched  bool     // the owner enrolled the minter
	Seq      uint64   // of the backup manifest in the directories
	Manifest fcp.Hash // its hash
	Position uint64   // of the store; 0 from a backup folder
	Segments int      // in the directories now
	Coded    int      // of them coded; the others are copied whole
	Bytes    uint64   // of ciphertext
	Planned  []PlannedShare
	Shares   int    // written by this call, whole copies included
	Symbols  int    // minted by this call
	Written  uint64 // bytes of shares written by this call
	Stored   uint64 // bytes of shares in the directories now
	Elapsed  time.Duration
	Findings []SymbolFinding // damage met on the way; it did no harm
}

// PlannedShare is a share that was written, or with DryRun would be.
type PlannedShare struct {
	Dir     string
	Segment fcp.SegmentID
	First   uint32 // encoding symbol id
	Count   uint32 // 0: the segment is copied whole
	Bytes   uint64 // of the file
}

// SymbolFinding is one thing that is wrong with a set of directories.
type SymbolFinding struct {
	Code    fcp.Code
	Dir     string
	File    string        // below Dir; "" when it concerns no single file
	Segment fcp.SegmentID // zero when it concerns none
	Symbols int           // damaged or false ones
	What    string
}

// GatherOptions configures GatherSymbols.
type GatherOptions struct {
	Environment

	// Manifest, unless zero, is the hash of the backup manifest to rebuild.
	Manifest fcp.Hash
	Progress func(Progress) // bytes of ciphertext; may be nil
}

// GatherResult says what GatherSymbols rebuilt.
type GatherResult struct {
	Out      string
	Seq      uint64
	Manifest fcp.Hash // give it to VerifyBackup and Restore
	Owner    fcp.Kid
	Segments int
	Coded    int // decoded from symbols
	Bytes    uint64
	Findings []SymbolFinding // damage met on the way; it did no harm
	Elapsed  time.Duration
}

// HealOptions configures HealSymbols.
type HealOptions struct {
	Environment

	// Minter is a store of the same owner whose node signs for the new symbols.
	// nil: a key made for this call signs, and nobody vouches for it.
	Minter   *Engine
	Need     int // size shares for any Need directories; 0: as in the directories
	DryRun   bool
	Manifest fcp.Hash       // as in GatherOptions
	Progress func(Progress) // bytes of ciphertext; may be nil
}

// CoverageOptions configures SymbolCoverage.
type CoverageOptions struct {
	Environment

	Manifest fcp.Hash       // as in GatherOptions
	Progress func(Progress) // bytes read; may be nil
}

// CoverageReport says what directories hold.
type CoverageReport struct {
	Seq        uint64
	Manifest   fcp.Hash
	Owner      fcp.Kid
	Dirs       []DirCoverage
	Segments   []SegmentCoverage // ascending by id
	Rebuilds   bool              // everything can be rebuilt now
	MayLose    int               // any so many of the directories can be lost; -1: it does not rebuild now
	Lacking    int               // segments that cannot be rebuilt
	Findings   []SymbolFinding
	Unprovable int // symbols that only the ciphertext hash can judge
	Elapsed    time.Duration
}

// DirCoverage is what one directory holds.
type DirCoverage struct {
	Dir      string
	Seq      uint64 // of the newest backup manifest in it; 0: none
	Segments int    // with at least one good symbol, or whole
	Symbols  int    // good ones
	Damaged  int
	Bytes    uint64 // of shares
}

// SegmentCoverage is what all directories hold of one segment.
type SegmentCoverage struct {
	Segment  fcp.SegmentID
	Bytes    uint32
	Symbols  int   // source symbols, so many are needed; 0: copied whole
	Held     []int // by directory, good symbols; of a whole copy Symbols, or 1
	Damaged  []int // by directory
	Distinct int   // good ones over all directories
	Rebuilds bool
	MayLose  int // -1: it does not rebuild now
}

// Scatter seals and backs the store up into several directories at once, with its
// segments as symbols: any Policy.Need of the directories rebuild all. What is
// there already is not written again; a directory that is new among old ones gets
// symbols that were never allotted. Errors: those of Backup, CodeInvalidArgument
// for a policy that does not fit the directories, CodeNotEmpty for a directory with
// other things in it, CodeManifest for one of another store.
func (e *Engine) Scatter(ctx context.Context, dirs []string, o ScatterOptions) (ScatterResult, error) {
	return e.scatter(ctx, dirs, o)
}

// ScatterBackup is Scatter from a backup folder instead of a store. minter signs
// as in HealOptions.
func ScatterBackup(ctx context.Context, backup string, dirs []string, env Environment, minter *Engine, o ScatterOptions) (ScatterResult, error) {
	return scatterBackup(ctx, backup, dirs, env, minter, o)
}

// GatherSymbols rebuilds the newest backup in the directories into a backup folder
// out, which must be new or empty. Directories that are missing or damaged are
// named in the result and otherwise count as lost. It needs no key. Errors:
// CodeNotEnough, which says how many symbols are missing, CodeNotFound when no
// directory holds a backup, CodeGuess when they hold several stores, CodeNotEmpty,
// CodeManifest, CodeDisk, CodeInterrupted.
func GatherSymbols(ctx context.Context, dirs []string, out string, o GatherOptions) (GatherResult, error) {
	return gatherSymbols(ctx, dirs, out, o)
}

// HealSymbols writes a new directory from whatever survives, without any zone key:
// symbols with ids above all that were allotted. It records the allotment in the
// other directories too. Errors: as GatherSymbols and Scatter.
func HealSymbols(ctx context.Context, dirs []string, to string, o HealOptions) (ScatterResult, error) {
	return healSymbols(ctx, dirs, to, o)
}

// SymbolCoverage reads and checks every symbol in the directories. The error is
// for what kept it from looking; what is wrong is in the report.
func SymbolCoverage(ctx context.Context, dirs []string, o CoverageOptions) (CoverageReport, error) {
	return symbolCoverage(ctx, dirs, o)
}
