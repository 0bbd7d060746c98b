package main

import (
	"context"
	"crypto/ed25519"
	"encoding/hex"
	"strconv"

	"github.com/spf13/cobra"

	"fcp"
	"fcp/engine"
	"fcp/log"
)

// maxProofFile bounds what is read as a proof, in bytes.
const maxProofFile = 8 << 20

func (a *app) proveCommand() *cobra.Command {
	var (
		zone  *zoneFlag
		at    *atFlag
		check string
		trust []string

		refusal string
	)
	cmd := &cobra.Command{
		Use: "prove KEY|POSITION", Short: "Prove that the log holds a version, or check such a proof", Args: args(0, 1),
		Long: `prove writes a proof to stdout: the event, its path through the Merkle tree of its
feed, and the tree head signed by this node. A number is a position, anything else
a key; --key takes a key that looks like a number. --refusal proves a refusal that
` + "`fcpctl why`" + ` explains, with the signed objects it rests on. With --check FILE a proof
of either kind is checked with no store and no network; - is stdin.`,
		Example:           "  fcpctl prove notes/today > today.proof\n  fcpctl prove --check today.proof",
		ValidArgsFunction: a.completeKeys,
		RunE: func(cmd *cobra.Command, args []string) error {
			help := "see `" + cmd.CommandPath() + " --help`"
			key, _ := cmd.Flags().GetString("key")
			switch {
			case check != "" && (len(args) > 0 || key != "" || refusal != ""), refusal != "" && (len(args) > 0 || key != ""):
				return usagef(help, "--check and --refusal take no key or position")
			case refusal != "":
				return a.withStore(cmd.Context(), reading, func(e *engine.Engine) error { return a.proveRefusal(e, refusal) })
			case check != "":
				return a.checkProof(check, trust)
			case (len(args) == 1) == (key != ""):
				return usagef(help, "one key or position is needed; wanted is: %s", cmd.UseLine())
			}
			return a.withStore(cmd.Context(), reading, func(e *engine.Engine) error {
				return a.prove(cmd.Context(), e, fcp.ZoneID(*zone), optional(args, 0), key, at.At)
			})
		},
	}
	zone, at = zoneOption(cmd), a.atOption(cmd)
	cmd.Flags().String("key", "", "a key that looks like a number")
	cmd.Flags().StringVar(&refusal, "refusal", "", "prove this refusal: the first digits of its request or receipt")
	_ = cmd.RegisterFlagCompletionFunc("refusal", func(cmd *cobra.Command, _ []string, typed string) ([]string, cobra.ShellCompDirective) {
		return a.completeRefusals(cmd, nil, typed)
	})
	cmd.Flags().StringVar(&check, "check", "", "check the proof in this file, - for stdin")
	cmd.Flags().StringSliceVar(&trust, "trust", nil, "with --check: signing keys (hex) to trust besides the event's own writer")
	return cmd
}

func (a *app) prove(ctx context.Context, e *engine.Engine, zone fcp.ZoneID, what, key string, at engine.At) error {
	asOf, err := e.PositionAt(at)
	if err != nil {
		return err
	}
	var (
		no  log.FeedNo
		seq uint64
	)
	if position, perr := strconv.ParseUint(what, 10, 64); perr == nil {
		if position > asOf {
			return fcp.Errorf(fcp.CodeNotPosition, "position %d, the log ends at %d", position, asOf)
		}
		no, seq, err = e.Log().At(position)
	} else {
		if key == "" {
			key = what
		}
		var entry engine.Entry
		if entry, err = e.Stat(ctx, zone, key, at); err == nil {
			no, seq = entry.Head().Feed, entry.Head().Seq
		}
	}
	if err != nil {
		return a.notFound(err, what)
	}
	bundle, err := e.Log().Bundle(no, seq)
	if err != nil {
		return err
	}
	if _, err := a.out.Write(bundle); err != nil {
		return err
	}
	a.answered(asOf, "check it anywhere with `fcpctl prove --check FILE`")
	return nil
}

// checkProof needs nothing but the proof.
func (a *app) checkProof(path string, trust []string) error {
	b, err := a.readInput(path, maxProofFile, "the proof")
	if err != nil {
		return err
	}
	if engine.IsRefusal(b) {
		return a.checkRefusal(b)
	}
	keys, err := trustedKeys(trust)
	if err != nil {
		return err
	}
	ev, err := log.OpenProof(b, keys...)
	if err != nil {
		return advise(err, fcp.CodeOf(err), "do not trust this proof; ask for it again from who made it")
	}
	v := viewFull(&ev, ev.Hash(), 0)
	return a.record("Proven", 0, v, v.Hash, field{"result", "the proof is right"}, field{"zone", v.Zone.String()}, field{"writer", v.Writer},
		field{"seq", decimal(v.Seq)}, field{"time", v.Time}, field{"kind", v.Kind}, field{"key", v.Key}, field{"generation", decimal(v.Generation)},
		field{"object", v.Object}, field{"hash", v.Hash})
}

func trustedKeys(texts []string) (keys []ed25519.PublicKey, err error) {
	for _, s := range texts {
		b, err := hex.DecodeString(s)
		if err != nil || len(b) != ed25519.PublicKeySize {
			return nil, fcp.Errorf(fcp.CodeInvalidArgument, "a signing key has %d hex digits", 2*ed25519.PublicKeySize)
		}
		keys = append(keys, b)
	}
	return keys, nil
}
