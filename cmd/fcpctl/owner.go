package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"fcp"
	"fcp/authority"
	"fcp/authority/frost"
	"fcp/authority/keystore"
	"fcp/engine"
)

func (a *app) ownerCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "owner", Short: "The owner's key in the hands of several: split it, and sign with some of them",
		Long: `owner splits the signing key of an identity into shares (FROST, RFC 9591). Any K of
their holders sign together, in two rounds over files, and no machine has the key. What
they sign is an ordinary signature of the owner.

  fcpctl owner split 2-of-3 ...         once, by whoever has the identity
  fcpctl owner draft ... --out D        what is to be signed
  fcpctl owner show D                   each signer looks at it
  fcpctl owner commit D --share S ...   round one, each signer
  fcpctl owner sign D --share S ...     round two, each signer
  fcpctl owner finish D ...             anybody with a store`}
	group(cmd)
	cmd.AddCommand(a.ownerSplitCommand(), a.ownerDraftCommand(), a.ownerShowCommand(), a.ownerCommitCommand(), a.ownerSignCommand(), a.ownerFinishCommand())
	return cmd
}

// splitView is a split key as JSON.
type splitView struct {
	Owner     string   `json:"owner"`
	Threshold int      `json:"threshold"`
	Files     []string `json:"files"`
	DryRun    bool     `json:"dry_run,omitempty"`
}

func (a *app) ownerSplitCommand() *cobra.Command {
	var (
		o      *identityOptions
		to     string
		plain  bool
		pass   string
		dryRun bool
	)
	cmd := &cobra.Command{
		Use: "split K-of-N", Short: "Split an identity's signing key into share files", Args: args(1, 1),
		Long: `split writes one share file for each holder. All are protected by the same passphrase
until their holders have them. The identity file and the 24 words stay what they were:
keep the words in a safe place, for they also open backups, and remove the file.`,
		Example: "  fcpctl owner split 2-of-3 --identity ~/fcp-identity --to /media/stick",
		RunE: func(cmd *cobra.Command, args []string) error {
			k, n, err := parseShares(args[0])
			if err != nil {
				return err
			}
			if n > keystore.MaxOwnerShares || to == "" {
				return usagef("see `"+cmd.CommandPath()+" --help`", "--to names a directory, and there are at most %d shares", keystore.MaxOwnerShares)
			}
			owner, err := a.ownerFor(o, "a split")
			if err != nil {
				return err
			}
			defer owner.Wipe()
			public := owner.Public()
			v := splitView{Owner: fcp.KidOf(public[:]).String(), Threshold: k, DryRun: dryRun}
			for i := range n {
				v.Files = append(v.Files, filepath.Join(to, fmt.Sprintf("owner-share-%d-of-%d", i+1, n)))
			}
			if !dryRun {
				p := keystore.Protection{NoPassphrase: plain}
				if !plain {
					if p.Passphrase, err = a.newPassphrase(&identityOptions{path: "the shares", passphraseFile: pass}); err != nil {
						return err
					}
				}
				if err := a.splitOwner(owner, k, v.Files, p); err != nil {
					return err
				}
			}
			return a.record("OwnerSplit", 0, v, v.Owner, field{"owner", v.Owner}, field{"signers needed", decimal(uint64(k))}, field{"files", strings.Join(v.Files, ", ")})
		},
	}
	o = identityFlags(cmd, "identity file of the owner")
	cmd.Flags().StringVar(&to, "to", "", "directory for the share files")
	cmd.Flags().BoolVar(&plain, "no-passphrase", false, "leave the share files unencrypted")
	cmd.Flags().StringVar(&pass, "share-passphrase-file", "", "file with the passphrase of the new share files")
	_ = cmd.MarkFlagDirname("to")
	dryRunFlag(cmd, &dryRun)
	return cmd
}

func (a *app) splitOwner(owner *authority.OwnerKey, k int, files []string, p keystore.Protection) error {
	g, shares, err := owner.Split(a.random(), k, len(files))
	if err != nil {
		return err
	}
	defer func() {
		for _, s := range shares {
			s.Wipe()
		}
	}()
	if err := os.MkdirAll(filepath.Dir(files[0]), 0o700); err != nil {
		return inputError(err, "the directory for the shares")
	}
	for i, s := range shares {
		if err := keystore.CreateOwnerShare(keystore.OS{}, files[i], keystore.OwnerShare{Group: g, Key: s}, p); err != nil {
			return err
		}
	}
	return nil
}

// draftView is what a draft says, as JSON.
type draftView struct {
	Draft   string     `json:"draft"` // names it in both rounds
	Kind    string     `json:"kind"`
	Zone    fcp.ZoneID `json:"zone"`
	Scope   string     `json:"scope"`
	Revoked []string   `json:"revoked"`
	Reason  string     `json:"reason,omitempty"`
	Issued  string     `json:"issued"`
}

func (a *app) printDraft(asOf uint64, draft []byte, r *authority.UnverifiedRevocation) error {
	v := draftView{Draft: authority.RefOf(draft).String(), Kind: fcp.KindRevocationIssued.String(), Zone: r.Zone(), Scope: string(r.Scope()), Reason: r.Reason(), Issued: secondsText(r.IssuedAt())}
	for _, t := range r.Targets() {
		v.Revoked = append(v.Revoked, t.String())
	}
	return a.record("OwnerDraft", asOf, v, v.Draft, field{"draft", v.Draft}, field{"kind", v.Kind}, field{"zone", v.Zone.String()}, field{"scope", v.Scope},
		field{"revokes", strings.Join(v.Revoked, ", ")}, field{"reason", v.Reason}, field{"issued", v.Issued})
}

func (a *app) ownerDraftCommand() *cobra.Command {
	var (
		zone          *zoneFlag
		scope, reason string
		out           string
	)
	cmd := &cobra.Command{
		Use: "draft TARGET...", Short: "Write a revocation that is to be signed by several", Args: args(1, authority.MaxTargets),
		Long: `draft writes a revocation without its signature. TARGET is a ref in full, as
"fcpctl cap ls -o json" and "device ls -o json" show them.`,
		Example: "  fcpctl owner draft 5f3c… --scope capability --reason 'sold' --out draft",
		RunE: func(cmd *cobra.Command, args []string) error {
			if out == "" {
				return usagef("see `"+cmd.CommandPath()+" --help`", "--out names the file to write")
			}
			spec := authority.RevocationSpec{Zone: fcp.ZoneID(*zone), Scope: authority.RevocationScope(scope), Reason: reason}
			for _, t := range args {
				h, err := fcp.ParseHash(t)
				if err != nil {
					return err
				}
				spec.Targets = append(spec.Targets, h)
			}
			return a.withStore(cmd.Context(), reading, func(e *engine.Engine) error {
				draft, err := authority.DraftRevocation(a.now(), e.Genesis().Owner, spec)
				if err != nil {
					return err
				}
				r, err := authority.ReadDraftedRevocation(e.Genesis().Owner, draft)
				if err != nil {
					return err
				}
				if err := writePart(out, keystore.PartDraft, authority.RefOf(draft), draft); err != nil {
					return err
				}
				return a.printDraft(e.Position(), draft, r)
			})
		},
	}
	zone = zoneOption(cmd)
	cmd.Flags().StringVar(&scope, "scope", string(authority.RevokeCapability), "what the targets are")
	cmd.Flags().StringVar(&reason, "reason", "", "your words, for whoever asks why")
	cmd.Flags().StringVar(&out, "out", "", "file to write")
	return cmd
}

func writePart(path string, kind keystore.PartKind, draft fcp.Hash, body []byte) error {
	return inputError(keystore.OS{}.WriteFileAtomic(path, keystore.EncodePart(kind, draft, body)), "the file to write")
}

func (a *app) readPart(path string, kind keystore.PartKind, want *fcp.Hash) ([]byte, fcp.Hash, error) {
	b, err := a.readInput(path, keystore.MaxFile, "a file of the signing")
	if err != nil {
		return nil, fcp.Hash{}, err
	}
	body, id, err := keystore.DecodePart(kind, b, want)
	return body, id, fcp.Wrap(fcp.CodeMalformed, err, "%s", path)
}

func (a *app) ownerShowCommand() *cobra.Command {
	return &cobra.Command{
		Use: "show DRAFT", Short: "What a draft says; needs no store", Args: args(1, 1),
		RunE: func(_ *cobra.Command, args []string) error {
			draft, _, err := a.readPart(args[0], keystore.PartDraft, nil)
			if err != nil {
				return err
			}
			r, err := authority.ReadDraft(draft)
			if err != nil {
				return err
			}
			return a.printDraft(0, draft, r)
		},
	}
}

// partView is what a round wrote, as JSON.
type partView struct {
	Draft  string `json:"draft"`
	Signer int    `json:"signer"`
	File   string `json:"file"`
}

func (a *app) printPart(draft fcp.Hash, signer byte, file string) error {
	v := partView{draft.String(), int(signer), file}
	return a.record("OwnerPart", 0, v, file, field{"draft", v.Draft}, field{"signer", decimal(uint64(signer))}, field{"file", file})
}

// signerFlags are those of a holder of a share.
type signerFlags struct{ share, pass, out string }

func signerOptions(cmd *cobra.Command) *signerFlags {
	o := &signerFlags{}
	cmd.Flags().StringVar(&o.share, "share", "", "share file of this signer")
	cmd.Flags().StringVar(&o.pass, "passphrase-file", "", "file with the passphrase of the share, - for stdin")
	cmd.Flags().StringVar(&o.out, "out", "", "file to write")
	return o
}

// open opens the signer's share, and the draft that it is shown: a signer signs
// nothing but a revocation of its own owner.
func (o *signerFlags) open(a *app, cmd *cobra.Command, path string) (s keystore.OwnerShare, draft []byte, id fcp.Hash, err error) {
	if o.share == "" || o.out == "" {
		return s, nil, id, usagef("see `"+cmd.CommandPath()+" --help`", "--share names this signer's share, --out the file to write")
	}
	if draft, id, err = a.readPart(path, keystore.PartDraft, nil); err != nil {
		return s, nil, id, err
	}
	encrypted, err := keystore.OwnerShareEncrypted(keystore.OS{}, o.share)
	if err != nil {
		return s, nil, id, err
	}
	phrase := ""
	if encrypted {
		if phrase, err = a.passphrase(&identityOptions{path: o.share, passphraseFile: o.pass}); err != nil {
			return s, nil, id, err
		}
	}
	if s, err = keystore.LoadOwnerShare(keystore.OS{}, o.share, phrase); err != nil {
		return s, nil, id, err
	}
	_, err = authority.ReadDraftedRevocation(s.Group.Public(), draft)
	return s, draft, id, err
}

// noncesOf is the file with the nonces of a share for a draft, between the rounds.
func (o *signerFlags) noncesOf(draft fcp.Hash) string {
	return o.share + ".nonces-" + draft.String()[:16]
}

func (a *app) ownerCommitCommand() *cobra.Command {
	var o *signerFlags
	cmd := &cobra.Command{
		Use: "commit DRAFT", Short: "Round one: say that this share will sign", Args: args(1, 1),
		Long: `commit draws nonces, keeps them beside the share file, encrypted under the share, and
writes their commitment for the others. Look at the draft with "fcpctl owner show"
before. Do not copy the nonces: two signatures over the same ones give the share away.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			s, _, id, err := o.open(a, cmd, args[0])
			if err != nil {
				return err
			}
			defer s.Key.Wipe()
			nonces, c, err := frost.Commit(a.random(), s.Key)
			if err != nil {
				return err
			}
			if err := keystore.CreateNonces(keystore.OS{}, o.noncesOf(id), s, id, nonces); err != nil {
				return err
			}
			if err := writePart(o.out, keystore.PartCommitment, id, append(c.Encode(), s.Group.Encode()...)); err != nil {
				return err
			}
			return a.printPart(id, c.ID, o.out)
		},
	}
	o = signerOptions(cmd)
	return cmd
}

// readCommitments reads the commitments to a draft, ascending by signer, and the
// group that they all name.
func (a *app) readCommitments(paths []string, draft fcp.Hash) (out []frost.Commitment, g *frost.Group, err error) {
	byID := map[byte]frost.Commitment{}
	for _, p := range paths {
		body, _, err := a.readPart(p, keystore.PartCommitment, &draft)
		if err != nil {
			return nil, nil, err
		}
		if len(body) < frost.CommitmentSize {
			return nil, nil, fcp.Errorf(fcp.CodeMalformed, "%s is too short", p)
		}
		c, err := frost.DecodeCommitment(body[:frost.CommitmentSize])
		if err != nil {
			return nil, nil, fcp.Wrap(fcp.CodeMalformed, err, "%s", p)
		}
		his, err := frost.DecodeGroup(body[frost.CommitmentSize:])
		if err != nil {
			return nil, nil, fcp.Wrap(fcp.CodeMalformed, err, "%s", p)
		}
		_, twice := byID[c.ID]
		if g == nil {
			g = his
		}
		if twice || string(g.Encode()) != string(his.Encode()) {
			return nil, nil, fcp.Errorf(fcp.CodeConflict, "%s is of a signer who is there already, or of another key", p)
		}
		byID[c.ID] = c
	}
	for id := range frost.MaxSigners {
		if c, ok := byID[byte(id+1)]; ok {
			out = append(out, c)
		}
	}
	if g == nil {
		return nil, nil, usagef("name the file of each signer", "--commitment is missing")
	}
	return out, g, nil
}

func commitmentOption(cmd *cobra.Command, v *[]string) {
	cmd.Flags().StringArrayVar(v, "commitment", nil, "commitment file of each signer of this signature; repeated")
}

func (a *app) ownerSignCommand() *cobra.Command {
	var (
		o           *signerFlags
		commitments []string
	)
	cmd := &cobra.Command{
		Use: "sign DRAFT", Short: "Round two: sign with this share", Args: args(1, 1),
		Long: `sign takes the nonces of round one, whose file is removed before anything else, and
writes this signer's part of the signature. All signers name the same commitments.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			s, draft, id, err := o.open(a, cmd, args[0])
			if err != nil {
				return err
			}
			defer s.Key.Wipe()
			list, g, err := a.readCommitments(commitments, id)
			if err != nil {
				return err
			}
			if string(g.Encode()) != string(s.Group.Encode()) {
				return fcp.Errorf(fcp.CodeConflict, "the commitments are to another key than this share's")
			}
			nonces, err := keystore.TakeNonces(keystore.OS{}, o.noncesOf(id), s, id)
			if err != nil {
				return err
			}
			part, err := frost.Sign(g, s.Key, nonces, draft, list)
			if err != nil {
				return err
			}
			if err := writePart(o.out, keystore.PartSignature, id, part.Encode()); err != nil {
				return err
			}
			return a.printPart(id, part.ID, o.out)
		},
	}
	o = signerOptions(cmd)
	commitmentOption(cmd, &commitments)
	return cmd
}

// signedView is a finished signature as JSON.
type signedView struct {
	Draft   string `json:"draft"`
	Ref     string `json:"ref"`
	Kind    string `json:"kind"`
	Signers []int  `json:"signers"`
	DryRun  bool   `json:"dry_run,omitempty"`
}

func (a *app) ownerFinishCommand() *cobra.Command {
	var (
		commitments, signatures []string
		dryRun                  bool
	)
	cmd := &cobra.Command{
		Use: "finish DRAFT", Short: "Put the parts together and append what was signed", Args: args(1, 1),
		Long: `finish adds the parts of all signers up and verifies the signature; when it is wrong, it
names the signers whose parts are.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			draft, id, err := a.readPart(args[0], keystore.PartDraft, nil)
			if err != nil {
				return err
			}
			list, g, err := a.readCommitments(commitments, id)
			if err != nil {
				return err
			}
			var parts []frost.SignatureShare
			for _, p := range signatures {
				b, _, err := a.readPart(p, keystore.PartSignature, &id)
				if err != nil {
					return err
				}
				s, err := frost.DecodeSignatureShare(b)
				if err != nil {
					return fcp.Wrap(fcp.CodeMalformed, err, "%s", p)
				}
				parts = append(parts, s)
			}
			return a.withStore(cmd.Context(), openMode(!dryRun), func(e *engine.Engine) error {
				if err := e.Genesis().CheckOwner(authority.OwnerPublic(g.Public())); err != nil {
					return err
				}
				signature, err := frost.Aggregate(g, draft, list, parts)
				if err != nil {
					return err
				}
				body, err := authority.SignedObject(draft, signature[:])
				if err != nil {
					return err
				}
				r, err := authority.VerifyRevocation(e.Genesis().Owner, body)
				if err != nil {
					return err
				}
				v := signedView{Draft: id.String(), Ref: r.Ref().String(), Kind: fcp.KindRevocationIssued.String(), DryRun: dryRun}
				for _, c := range list {
					v.Signers = append(v.Signers, int(c.ID))
				}
				if !dryRun {
					if _, err := e.AppendSigned(cmd.Context(), r.Zone(), fcp.KindRevocationIssued, body); err != nil {
						return err
					}
					err := e.Audit(cmd.Context(), authority.AuditEvent{Zone: r.Zone(), Type: authority.AuditRevocation, Result: r.Ref(),
						Actor: "owner@" + e.Node().Writer().String()[:16]})
					if err != nil {
						return err
					}
				}
				return a.answer("OwnerSigned", e.Position(), v, v.Ref, field{"ref", v.Ref}, field{"kind", v.Kind}, field{"signers", fmt.Sprint(v.Signers)})
			})
		},
	}
	commitmentOption(cmd, &commitments)
	cmd.Flags().StringArrayVar(&signatures, "signature", nil, "part of the signature of each signer; repeated")
	dryRunFlag(cmd, &dryRun)
	return cmd
}
