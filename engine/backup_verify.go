package engine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/cockroachdb/pebble/v2/vfs"

	"fcp"
	"fcp/authority"
	"fcp/engine/blob"
)

// scratchInMemory is the largest backup that is replayed in memory when no
// scratch directory is named, in bytes of ciphertext.
const scratchInMemory = 128 << 20

// maxManifests bounds the chain that is walked.
const maxManifests = 1 << 20

// backupVerifier is one call of VerifyBackup.
type backupVerifier struct {
	ctx   context.Context
	o     *VerifyBackupOptions
	s     blob.Store
	ob    *openedBackup // m is the newest manifest that decodes
	r     *BackupReport
	seqs  []uint64 // of the manifests there, ascending
	done  uint64
	older []olderPoint // restore points behind the newest

	damaged bool // something that a replay needs
}

func verifyBackup(ctx context.Context, s blob.Store, where string, o VerifyBackupOptions) (r BackupReport, err error) {
	o.setDefaults()
	start := o.Now()
	r.Dir = where
	v := backupVerifier{ctx: ctx, o: &o, s: s, ob: &openedBackup{s: s}, r: &r}
	if err := v.manifests(); err != nil {
		return r, err
	}
	if v.ob.m != nil {
		for _, step := range []func() error{v.keys, v.index, v.segments, v.keyTable, v.tails, v.olderPoints, v.unlisted, v.replay} {
			if err := step(); err != nil {
				return r, err
			}
		}
	}
	r.Elapsed = o.Now().Sub(start)
	return r, nil
}

// found records what is wrong with a file. What keeps the verification from
// going on is returned.
func (v *backupVerifier) found(file string, err error) error {
	switch fcp.CodeOf(err) {
	case 0:
		return nil
	case fcp.CodeInterrupted, fcp.CodeTimeout, fcp.CodeInternal:
		return err
	}
	v.damaged = true
	v.add(fcp.CodeOf(err), file, err.Error())
	return nil
}

func (v *backupVerifier) add(code fcp.Code, file, what string) {
	v.r.Findings = append(v.r.Findings, BackupFinding{Code: code, File: file, What: what})
}

func (v *backupVerifier) read(n int) {
	v.r.Files++
	v.r.Bytes += uint64(n)
}

func (v *backupVerifier) tell(n uint64) {
	v.done += n
	if v.o.Progress != nil {
		v.o.Progress(Progress{Stage: "files", Done: v.done, Total: v.ob.m.total()})
	}
}

// manifests checks the genesis checkpoint and the chain of manifests, from the
// newest back.
func (v *backupVerifier) manifests() error {
	err := v.s.List(v.ctx, manifestPrefix, func(i blob.Info) error {
		if n, ok := manifestSeq(i.Name); ok {
			v.seqs = append(v.seqs, n)
		}
		if len(v.seqs) > maxManifests {
			return fcp.Errorf(fcp.CodeTooLarge, "more than %d manifests", maxManifests)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if len(v.seqs) == 0 {
		return fcp.Errorf(fcp.CodeNotFound, "there is no backup in %s", v.r.Dir).WithNext("name the folder that `fcpctl backup create` wrote to")
	}
	slices.Sort(v.seqs) // by number: from 10,000,000,000 on names sort differently
	if err := v.found(backupGenesis, v.ob.readGenesis(v.ctx)); err != nil {
		return err
	}
	v.read(len(v.ob.raw))
	if g := v.ob.genesis; g != nil {
		v.r.Owner, v.r.Genesis = g.Owner, g.ID
		if v.o.Owner != nil {
			if err := g.CheckOwner(v.o.Owner.Public()); err != nil {
				return err
			}
		}
	}
	var after *backupManifest // the one behind the present one, when it decodes
	for i := len(v.seqs) - 1; i >= 0; i-- {
		m, err := v.manifest(v.seqs[i], after, i == len(v.seqs)-1)
		if err != nil {
			return err
		}
		after = m
		if i > 0 && v.seqs[i-1] != v.seqs[i]-1 || i == 0 && v.seqs[i] != 1 {
			v.add(fcp.CodeManifest, manifestName(v.seqs[i]-1), "the manifest is missing from the chain")
			after = nil
		}
	}
	return nil
}

func (v *backupVerifier) manifest(seq uint64, after *backupManifest, newest bool) (*backupManifest, error) {
	name := manifestName(seq)
	m, hash, err := readManifest(v.ctx, v.s, seq)
	if after != nil && hash != fcp.Hash(after.Previous) && err == nil {
		err = fcp.Errorf(fcp.CodeManifest, "%s is not the one that manifest %d continues", name, after.Seq)
	}
	if err == nil && v.ob.genesis != nil {
		err = m.authorised(v.ob.genesis)
	}
	if newest {
		v.r.Seq, v.r.Manifest = seq, hash
		if want := v.o.Manifest; err == nil && !want.IsZero() && hash != want {
			v.add(fcp.CodeManifest, name, fmt.Sprintf("the newest manifest has hash %s, not the one asked for", hash))
		}
	}
	if err := v.found(name, err); err != nil {
		return nil, err
	}
	v.read(0)
	if err != nil {
		return nil, nil
	}
	v.r.Manifests++
	if v.ob.m == nil {
		v.ob.m, v.ob.hash = m, hash
		v.r.Writer, v.r.Created = m.writer(), m.created()
	}
	if v.ob.m != m {
		there, err := hasPoint(v.ctx, v.s, seq)
		if err != nil {
			return nil, err
		}
		if there {
			v.older = append(v.older, olderPoint{m: m})
		}
	}
	return m, nil
}

func (v *backupVerifier) keys() error {
	if v.ob.genesis == nil {
		return nil // nothing to verify their signatures with
	}
	for _, h := range v.ob.m.ZoneKeys {
		b, err := v.ob.readZoneKey(v.ctx, h)
		v.read(len(b))
		if err == nil {
			v.r.ZoneKeys++
		}
		if err := v.found(zoneKeyName(h), err); err != nil {
			return err
		}
	}
	return nil
}

func (v *backupVerifier) index() (err error) {
	v.ob.index, err = readIndex(v.ctx, v.s, v.ob.m)
	v.read(int(v.ob.m.Index.Size))
	v.tell(v.ob.m.Index.Size)
	return v.found(indexName(v.ob.m.Index.Hash), err)
}

func (v *backupVerifier) segments() error {
	for i := range v.ob.index {
		if err := v.oneSegment(&v.ob.index[i]); err != nil {
			return err
		}
	}
	return nil
}

func (v *backupVerifier) oneSegment(x *indexed) error {
	ciphertext, err := v.ob.segment(v.ctx, x)
	if err := v.found(segmentName(x.id), err); err != nil {
		return err
	}
	v.read(len(ciphertext))
	card, cerr := v.card(x)
	if err := v.found(cardName(x.id), cerr); err != nil {
		return err
	}
	if err == nil {
		v.r.Segments++
	}
	if err == nil && cerr == nil {
		info, err := card.Transmission()
		if err == nil && (info.F != uint64(x.size) || fcp.CommitmentRoot(fcp.SourceCommitments(ciphertext, int(info.T))) != card.Source) {
			err = fcp.Errorf(fcp.CodeChecksum, "the commitments of segment %s", x.id)
		}
		if err := v.found(cardName(x.id), err); err != nil {
			return err
		}
		v.r.Cards++
	}
	v.tell(uint64(x.size))
	return nil
}

func (v *backupVerifier) card(x *indexed) (card fcp.Card, err error) {
	name := cardName(x.id)
	b, err := blob.ReadAll(v.ctx, v.s, name, fcp.MaxCard)
	v.read(len(b))
	if err != nil {
		return card, err
	}
	if cardSum(b) != x.card {
		return card, fcp.Errorf(fcp.CodeChecksum, "%s", name)
	}
	if card, err = fcp.DecodeCard(b); err == nil && card.Segment != x.id {
		err = fcp.Errorf(fcp.CodeManifest, "%s is the card of segment %s", name, card.Segment)
	}
	return card, err
}

func (v *backupVerifier) keyTable() error {
	k := &v.ob.m.KeyTable
	err := v.ob.keyTable(v.ctx, nil)
	v.read(int(k.Size))
	v.tell(k.Size)
	if err == nil {
		v.r.Salts = k.Entries
	}
	return v.found(keyTableName(k.Number), err)
}

func (v *backupVerifier) tails() error {
	for i := range v.ob.m.Tail {
		t := &v.ob.m.Tail[i]
		b, err := readHashed(v.ctx, v.s, tailName(t.Hash), t.Hash, t.Size)
		v.read(len(b))
		v.tell(t.Size)
		if err == nil {
			v.r.TailParts++
		}
		if err := v.found(tailName(t.Hash), err); err != nil {
			return err
		}
	}
	return nil
}

// unlisted finds files that no manifest accounts for. They do no harm to a restore:
// an interrupted backup leaves some, and so does somebody who put an older manifest
// in the place of the newest.
func (v *backupVerifier) unlisted() error {
	m := v.ob.m
	known := map[string]bool{backupGenesis: true, indexName(m.Index.Hash): true, keyTableName(m.KeyTable.Number): true}
	for _, h := range m.ZoneKeys {
		known[zoneKeyName(h)] = true
	}
	for i := range m.Tail {
		known[tailName(m.Tail[i].Hash)] = true
	}
	for i := range v.older {
		o := &v.older[i]
		known[indexName(o.m.Index.Hash)], known[keyTableName(o.m.KeyTable.Number)] = true, true
		for _, h := range o.m.ZoneKeys {
			known[zoneKeyName(h)] = true
		}
		for j := range o.m.Tail {
			known[tailName(o.m.Tail[j].Hash)] = true
		}
		for j := range o.index {
			known[segmentName(o.index[j].id)], known[cardName(o.index[j].id)] = true, true
		}
	}
	return v.s.List(v.ctx, "", func(i blob.Info) error {
		if known[i.Name] {
			return nil
		}
		if n, ok := manifestSeq(i.Name); ok && n <= v.r.Seq {
			return nil // checked as part of the chain
		}
		id, ok := unspread(i.Name, segmentPrefix, ".seg")
		if !ok {
			id, ok = unspread(i.Name, cardPrefix, ".card")
		}
		if ok {
			if _, ok = findIndexed(v.ob.index, id); ok {
				return nil
			}
		}
		v.r.Unlisted = append(v.r.Unlisted, UnlistedFile{File: i.Name, Own: isBackupName(i.Name)})
		return nil
	})
}

// replay decrypts everything into a scratch store and compares the roots.
func (v *backupVerifier) replay() (err error) {
	if v.o.Owner == nil || v.damaged {
		return nil
	}
	env, dir, done, err := v.scratch()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, done()) }()
	node, err := authority.NewNodeKeys(env.Rand)
	if err != nil {
		return err
	}
	e, err := openCopy(v.ctx, v.ob, env, dir, v.o.Owner, node)
	if err != nil {
		return v.found("", err)
	}
	defer func() { err = errors.Join(err, e.Close()) }()
	if err := takeIn(v.ctx, v.ob, e, "replay", v.o.Progress); err != nil {
		return v.found("", err)
	}
	v.r.Decrypted, v.r.Events = true, e.log.Durable()
	if v.r.StateRoot, err = e.StateRoot(); err != nil {
		return v.found("", err)
	}
	if v.r.Identical = v.r.StateRoot == v.ob.m.StateRoot; !v.r.Identical {
		v.add(fcp.CodeRootMismatch, "", fmt.Sprintf("the backup gives state root %s, its manifest says %s", v.r.StateRoot, v.ob.m.StateRoot))
	}
	for _, z := range v.ob.m.Zones {
		root, err := e.ZoneRoot(z.Zone)
		if err == nil && root != z.Root {
			err = fcp.Errorf(fcp.CodeRootMismatch, "the backup gives zone %s another root than its manifest says", z.Zone)
		}
		if err := v.found("", err); err != nil {
			return err
		}
	}
	report, err := e.Verify(v.ctx, VerifyOptions{Bodies: true})
	v.r.Bodies = report.Bodies
	for _, f := range report.Findings {
		v.add(f.Code, "", f.What)
	}
	return v.found("", err)
}

// scratch returns where the replay runs, and how to remove it.
func (v *backupVerifier) scratch() (env Environment, dir string, done func() error, err error) {
	env = v.o.Environment
	dir = v.o.Scratch
	if dir == "" {
		if env.FS != vfs.Default || v.ob.m.Bytes <= scratchInMemory {
			env.FS = vfs.NewMem()
			return env, "scratch", func() error { return nil }, nil
		}
		if dir, err = os.MkdirTemp("", "fcp-verify-"); err != nil {
			return env, "", nil, fcp.Wrap(fcp.CodeDisk, err, "make a scratch directory")
		}
	} else if err := checkTarget(env.FS, dir); err != nil {
		return env, "", nil, err
	}
	return env, dir, func() error {
		return fcp.Wrap(fcp.CodeDisk, env.FS.RemoveAll(dir), "remove the scratch directory")
	}, nil
}

func (r *BackupReport) checked() []string {
	out := []string{
		fmt.Sprintf("%d manifests: signature of the node, its enrollment by the owner, the hash of the one before", r.Manifests),
		fmt.Sprintf("%d segments: length and BLAKE3 hash of the ciphertext, as listed", r.Segments),
		fmt.Sprintf("%d cards: signature, segment, commitments to %d-byte symbols", r.Cards, fcp.SymbolSize),
		fmt.Sprintf("%d zone key manifests: the owner's signature", r.ZoneKeys),
		fmt.Sprintf("key table: checksum, %d salts", r.Salts),
		fmt.Sprintf("%d files of events in no segment: length and BLAKE3 hash", r.TailParts),
		"no file missing",
	}
	if r.Points > 0 {
		out = append(out, fmt.Sprintf("%d older restore points: everything they list", r.Points))
	}
	if !r.Decrypted {
		return append(out, "not checked without the identity: events, bodies and the state root")
	}
	return append(out,
		fmt.Sprintf("%d events: decrypted, leaf hash, chain, Merkle root at each segment's end", r.Events),
		fmt.Sprintf("%d bodies: decrypted with their salts, object ids computed again", r.Bodies),
		"state root and zone roots of a replay")
}
