package main

import (
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"fcp"
	"fcp/authority"
	"fcp/authority/keystore"
	"fcp/engine"
	"fcp/node/api"
)

// linkView is one token of a chain as JSON. It has no byte that could be used.
type linkView struct {
	Link int    `json:"link"` // from 1
	ID   string `json:"id"`   // what revokes it
	scopeView
	Issuer   string     `json:"issuer"`
	Audience string     `json:"audience"`
	Instance string     `json:"instance"`
	Zone     fcp.ZoneID `json:"zone"`
	Holder   string     `json:"holder"`
	Confirm  string     `json:"confirm"` // public key that proves possession
	Grants   []string   `json:"grants"`
	Depth    uint64     `json:"depth"` // how many links may follow
}

// tokenView is a token file as JSON.
type tokenView struct {
	File   string     `json:"file,omitempty"`
	DryRun bool       `json:"dry_run,omitempty"`
	Links  []linkView `json:"links"`
}

func viewToken(chain *authority.Chain, file string) (tokenView, error) {
	v := tokenView{File: file}
	for i, b := range chain.Tokens() {
		t, err := authority.InspectToken(b)
		if err != nil {
			return v, err
		}
		l := linkView{Link: i + 1, ID: t.ID.String(), scopeView: viewScope(t.Principal, t.Rights, &t.Constraints, t.NotBefore, t.Expires),
			Issuer: t.Issuer.String(), Audience: t.Audience.String(), Instance: t.Instance.String(), Zone: t.Zone, Holder: t.Holder.String(),
			Confirm: t.Confirm.String(), Depth: t.Depth}
		for _, g := range t.Grants {
			l.Grants = append(l.Grants, g.String())
		}
		v.Links = append(v.Links, l)
	}
	return v, nil
}

func (a *app) printToken(chain *authority.Chain, file string, dryRun bool, asOf uint64) error {
	v, err := viewToken(chain, file)
	if err != nil {
		return err
	}
	v.DryRun = dryRun
	last := &v.Links[len(v.Links)-1]
	fields := append([]field{{"token", last.ID}, {"file", file}, {"links", decimal(uint64(len(v.Links)))}, {"zone", last.Zone.String()},
		{"grant", strings.Join(last.Grants, ", ")}}, last.fields()...)
	return a.record("Token", asOf, v, last.ID, append(fields, field{"may be narrowed", decimal(last.Depth) + " times"})...)
}

func (a *app) capInspectCommand() *cobra.Command {
	return &cobra.Command{
		Use: "inspect TOKENFILE", Short: "What a token says, link by link; needs no store and verifies nothing", Args: args(1, 1),
		RunE: func(_ *cobra.Command, args []string) error {
			chain, err := keystore.LoadToken(keystore.OS{}, args[0])
			if err != nil {
				return err
			}
			v, err := viewToken(chain, args[0])
			if err != nil {
				return err
			}
			l := a.list("TokenLink", 0, "LINK", "ID", "PRINCIPAL", "UNTIL", "PERMITS", "ON", "DEPTH")
			for i := range v.Links {
				x := &v.Links[i]
				if err := l.add(x, x.ID, decimal(uint64(x.Link)), x.ID, x.Principal, x.Until, strings.Join(x.Rights, ", "), strings.Join(x.Resources, ", "), decimal(x.Depth)); err != nil {
					return err
				}
			}
			return l.close()
		},
	}
}

type attenuateOptions struct {
	scopeFlags
	key, newKey, out string
	principal        string
	depth            uint64
	dryRun           bool
}

func (a *app) capAttenuateCommand() *cobra.Command {
	o := &attenuateOptions{}
	cmd := &cobra.Command{
		Use: "attenuate TOKENFILE", Short: "Narrow a token offline", Args: args(1, 1),
		Long: `attenuate makes a token that permits less than the one given, signed by that one's
holder key. It needs no store, no network and nobody's leave. A child that is wider
than its parent is refused here as it would be everywhere.`,
		Example: "  fcpctl cap attenuate notes.token --key notes.key --new-key read.key --out read.token --allow object.get --resource notes/today --for 2m",
		RunE: func(cmd *cobra.Command, args []string) error {
			if o.key == "" || o.newKey == "" || o.out == "" {
				return usagef("see `"+cmd.CommandPath()+" --help`", "--key is the holder's key, --new-key and --out name the two files to write")
			}
			return a.attenuate(o, args[0])
		},
	}
	o.add(cmd, "2m; default as long as the token given")
	f := cmd.Flags()
	f.StringVar(&o.key, "key", "", "file with the holder's key of the token given")
	f.StringVar(&o.newKey, "new-key", "", "file to write the new holder's key to")
	f.StringVar(&o.out, "out", "", "file to write the token to")
	f.StringVar(&o.principal, "principal", "", "whom it is for (default whom the token given is for)")
	f.Uint64Var(&o.depth, "depth", 0, "how often the new holder may narrow it")
	dryRunFlag(cmd, &o.dryRun)
	return cmd
}

func (a *app) attenuate(o *attenuateOptions, file string) error {
	parent, err := keystore.LoadToken(keystore.OS{}, file)
	if err != nil {
		return err
	}
	holder, err := keystore.LoadHolder(keystore.OS{}, o.key)
	if err != nil {
		return err
	}
	defer holder.Wipe()
	up, err := lastLink(parent)
	if err != nil {
		return err
	}
	n := authority.Narrowing{Principal: up.Principal, Holder: up.Holder, NotBefore: up.NotBefore, Expires: up.Expires, Grants: up.Grants,
		Rights: up.Rights, Constraints: o.narrowed(up.Constraints), Depth: o.depth}
	if o.principal != "" {
		n.Principal = fcp.CanonicalID(o.principal)
	}
	if len(o.operations) > 0 {
		if n.Rights, err = o.rights(); err != nil {
			return err
		}
	}
	now := a.now().Truncate(time.Second)
	if now.After(n.NotBefore) {
		n.NotBefore = now
	}
	if o.life.set {
		n.Expires = n.NotBefore.Add(o.life.Truncate(time.Second))
	}
	err = a.writeToken(o.newKey, o.out, o.dryRun, func(k authority.HolderPublic) (*authority.Chain, error) {
		n.Confirm = k
		return authority.Attenuate(a.random(), now, holder, parent, n)
	}, 0)
	return advise(err, fcp.CodeDenied, "permit less than `"+a.command("cap", "inspect", file)+"` shows")
}

func lastLink(chain *authority.Chain) (authority.TokenInfo, error) {
	tokens := chain.Tokens()
	return authority.InspectToken(tokens[len(tokens)-1])
}

type useOptions struct {
	key         string
	expect      expectFlag
	idempotency string
	dryRun      bool
}

func (a *app) capUseCommand() *cobra.Command {
	o := &useOptions{}
	cmd := &cobra.Command{
		Use: "use TOKENFILE get KEY [PATH] | put KEY PATH | rm KEY", Short: "Read or write an object with a token", Args: args(3, 4),
		Long: `use does what ` + "`fcpctl object`" + ` does, as the holder of a token instead of as the owner.
The holder's key proves possession for this one request; the store decides by what
it knows at this moment. A refusal has exit code 4, its reason, and what would pass.`,
		Example: "  fcpctl cap use notes.token --key notes.key put notes/today note.txt",
		ValidArgsFunction: func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			if len(args) == 1 {
				return []string{"get", "put", "rm"}, cobra.ShellCompDirectiveNoFileComp
			}
			return nil, cobra.ShellCompDirectiveDefault
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			help := "see `" + cmd.CommandPath() + " --help`"
			want := map[string][2]int{"get": {3, 4}, "put": {4, 4}, "rm": {3, 3}}
			n, ok := want[args[1]]
			switch {
			case !ok:
				return usagef(help, "%q is not get, put or rm", args[1])
			case len(args) < n[0] || len(args) > n[1]:
				return usagef(help, "%d arguments for %s", len(args), args[1])
			case o.key == "":
				return usagef(help, "--key names the file with the holder's key")
			}
			return a.withAny(cmd.Context(), openMode(!o.dryRun), func(e api.Store) error { return a.use(cmd.Context(), e, o, args) })
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.key, "key", "", "file with the holder's key")
	f.Var(&o.expect, "expect", "write only if this is the current version")
	f.StringVar(&o.idempotency, "idempotency-key", "", "a second write with the same key changes nothing and answers with the first")
	dryRunFlag(cmd, &o.dryRun)
	return cmd
}

func (a *app) use(ctx context.Context, e api.Store, o *useOptions, args []string) error {
	chain, err := keystore.LoadToken(keystore.OS{}, args[0])
	if err != nil {
		return err
	}
	info, err := lastLink(chain)
	if err != nil {
		return err
	}
	holder, err := keystore.LoadHolder(keystore.OS{}, o.key)
	if err != nil {
		return err
	}
	defer holder.Wipe()
	caller := &engine.Caller{Token: chain, Prove: func(c authority.Challenge, leaf, request fcp.Hash) ([]byte, error) {
		return holder.Prove(c, leaf, request), nil
	}}
	zone, key := info.Zone, args[2]
	switch args[1] {
	case "get":
		err = a.useGet(ctx, e, o, caller, zone, key, optional(args, 3))
	case "put":
		err = a.usePut(ctx, e, o, caller, zone, key, args[3])
	default:
		var res engine.PutResult
		res, err = e.RemoveFor(ctx, caller, engine.RemoveRequest{Zone: zone, Key: key, Expect: o.expect.Expect, Idempotency: o.idempotency, DryRun: o.dryRun})
		if err == nil {
			return a.printWrite(e, &res, zone, key)
		}
	}
	return a.notFound(a.writeError(a.refused(err), key), key)
}

// refused gives a denial its way forward: its receipt, or the smallest grant.
func (a *app) refused(err error) error {
	var r *engine.Refusal
	var fe *fcp.Error
	if !errors.As(err, &r) || !errors.As(err, &fe) {
		return err
	}
	switch {
	case r.Reason == authority.ReasonProofMissing:
		return fe.WithNext("give with --key the file that was written together with this token")
	case !r.Receipt.IsZero():
		return fe.WithNext("see `" + a.command("why", r.Request.String()[:16]) + "` for the reason and the smallest grant that passes")
	case r.Smallest != nil:
		return fe.WithNext("this would pass: `" + a.grantLine(r.Smallest) + "`")
	}
	return fe
}

func (a *app) useGet(ctx context.Context, e api.Store, o *useOptions, caller *engine.Caller, zone fcp.ZoneID, key, path string) error {
	if o.dryRun {
		return usagef("leave out --dry-run", "a get writes nothing")
	}
	r, err := e.GetFor(ctx, caller, engine.GetRequest{Zone: zone, Key: key})
	if err != nil {
		return err
	}
	defer r.Close()
	if path == "" {
		_, err := io.Copy(a.out, r)
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return inputError(err, "the file to write")
	}
	_, err = io.Copy(f, r)
	return errors.Join(err, inputError(f.Close(), "the file to write"))
}

// maxUse bounds what one put with a token takes, in bytes: its size is part of what
// is decided, so it is read before.
const maxUse = 64 << 20

func (a *app) usePut(ctx context.Context, e api.Store, o *useOptions, caller *engine.Caller, zone fcp.ZoneID, key, path string) error {
	body, err := a.readInput(path, maxUse, "what is put with a token")
	if err != nil {
		return err
	}
	res, err := e.PutFor(ctx, caller, engine.PutRequest{Zone: zone, Key: key, Bytes: body, Expect: o.expect.Expect, Idempotency: o.idempotency, DryRun: o.dryRun})
	if err != nil {
		return err
	}
	return a.printWrite(e, &res, zone, key)
}

func (a *app) capSuggestCommand() *cobra.Command {
	var (
		zone      *zoneFlag
		principal string
		idem      string
		size      uint64
	)
	cmd := &cobra.Command{
		Use: "suggest OPERATION KEY", Short: "The smallest grant that permits one use; needs no store", Args: args(2, 2),
		Example: "  fcpctl cap suggest object.put notes/today --principal agent:notes",
		ValidArgsFunction: func(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
			if len(args) == 0 {
				return completeOperations(cmd, args, typed)
			}
			return nil, cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if principal == "" {
				return usagef("see `"+cmd.CommandPath()+" --help`", "--principal says whom the grant is for")
			}
			if _, err := fcp.ParseCanonicalID(principal); err != nil {
				return err
			}
			if err := checkOperation(string(engine.StoreCapability), args[0]); err != nil {
				return err
			}
			g := authority.SmallestGrant(&authority.Request{Zone: fcp.ZoneID(*zone), Principal: fcp.CanonicalID(principal), Capability: engine.StoreCapability,
				Operation: fcp.CanonicalID(args[0]), Resource: engine.ResourceOf(args[1]), Bytes: size, IdempotencyKey: idem}, a.now())
			return a.printSuggested(&g, 0)
		},
	}
	zone = zoneOption(cmd)
	cmd.Flags().StringVar(&principal, "principal", "", "whom the grant is for")
	cmd.Flags().StringVar(&idem, "idempotency-key", "", "idempotency key of the use")
	cmd.Flags().Uint64Var(&size, "bytes", 0, "bytes that the use writes")
	return cmd
}

func (a *app) printSuggested(g *authority.GrantSpec, asOf uint64) error {
	v := suggestedView(a, g)
	return a.record("SuggestedGrant", asOf, v, v.Command, append(append([]field{{"zone", g.Zone.String()}}, v.fields()...), field{"next", v.Command})...)
}

// suggestView is a grant that would pass, as JSON.
type suggestView struct {
	Zone fcp.ZoneID `json:"zone"`
	scopeView
	Command string `json:"command"`
}

func suggestedView(a *app, g *authority.GrantSpec) suggestView {
	return suggestView{g.Zone, viewScope(g.Principal, g.Rights, &g.Constraints, g.NotBefore, g.NotAfter), a.grantLine(g)}
}
