package main

import (
	"context"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"fcp"
	"fcp/authority"
	"fcp/authority/keystore"
	"fcp/engine"
	"fcp/node/api"
)

func (a *app) capCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "cap", Short: "Capabilities: grant, mint, attenuate, use, revoke", Long: `cap works with what somebody other than the owner may do. The owner signs a grant;
a node mints a short-lived token from it for a holder's key; the holder can narrow
the token offline; whoever uses it proves possession of its key, and every use is
decided against what the store knows at that moment.`}
	group(cmd)
	cmd.AddCommand(a.capGrantCommand(), a.capMintCommand(), a.capAttenuateCommand(), a.capUseCommand(), a.capRevokeCommand(),
		a.capInspectCommand(), a.capSuggestCommand(), a.capListCommand(),
		a.capBindCommand(), a.capDelegateCommand(), a.capWithdrawCommand(), a.capApproveCommand())
	return cmd
}

// scopeFlags are the flags that say what a grant or token permits.
type scopeFlags struct {
	capability  string
	operations  []string
	resources   []string
	deny        []string
	calls       uint32
	bytes       uint64
	idempotency string
	life        ageFlag
}

func (o *scopeFlags) add(cmd *cobra.Command, life string) {
	f := cmd.Flags()
	f.StringVar(&o.capability, "capability", string(engine.StoreCapability), "capability that the operations belong to")
	f.StringSliceVar(&o.operations, "allow", nil, "operations to permit (object.get, object.put, object.remove; with --capability those it has), or * for every one")
	f.StringArrayVar(&o.resources, "resource", nil, "prefix of the names to permit, or * for every one; may be repeated")
	f.StringArrayVar(&o.deny, "deny", nil, "prefix of names to take out again; may be repeated")
	f.Uint32Var(&o.calls, "calls", 0, "how many uses; 0 for no limit")
	f.Uint64Var(&o.bytes, "bytes", 0, "how many bytes may be written; 0 for no limit")
	f.StringVar(&o.idempotency, "idempotency-key", "", "permit only uses with this idempotency key")
	f.Var(&o.life, "for", "how long it holds ("+life+")")
	_ = cmd.RegisterFlagCompletionFunc("allow", completeOperations)
}

// checkOperation refuses an operation that its capability does not have. The store
// knows its own capabilities; those of connectors are the connectors' to define.
func checkOperation(capability, operation string) error {
	known := engine.CapabilityOperations(fcp.CanonicalID(capability))
	switch {
	case known == nil && strings.HasPrefix(capability, "store."):
		return fcp.Errorf(fcp.CodeInvalidArgument, "the store has no capability %.80q", capability).
			WithNext("say --capability " + orList(engine.StoreCapabilities()) + "; operations of a connector need the connector's own capability")
	case known == nil || operation == authority.AnyOperation || slices.Contains(known, fcp.CanonicalID(operation)):
		return nil
	}
	return fcp.Errorf(fcp.CodeInvalidArgument, "%s has no operation %.80q, so permitting it would permit nothing", capability, operation).
		WithNext("permit " + orList(known) + ", or * for every one; operations of a connector need --capability")
}

// checkCapabilities refuses patterns of capabilities that match none: an operation
// in the place of its capability, and what begins as the store's own and is not.
func checkCapabilities(patterns authority.Patterns) error {
	own := engine.StoreCapabilities()
	for _, p := range patterns {
		for _, c := range own {
			if slices.Contains(engine.CapabilityOperations(c), fcp.CanonicalID(p)) {
				return fcp.Errorf(fcp.CodeInvalidArgument, "%s is an operation, wanted is a capability", p).WithNext("say --allow " + c.String() + ", the capability of that operation")
			}
		}
		if strings.HasPrefix(string(p), "store.") && !slices.ContainsFunc(own, func(c fcp.CanonicalID) bool { return p.Match(c.String()) }) {
			return fcp.Errorf(fcp.CodeInvalidArgument, "the store has no capability %.80q", string(p)).WithNext("say --allow " + orList(own))
		}
	}
	return nil
}

// orList is "a, b or c".
func orList[T ~string](list []T) string {
	out := ""
	for i, x := range list {
		switch {
		case i == 0:
		case i == len(list)-1:
			out += " or "
		default:
			out += ", "
		}
		out += string(x)
	}
	return out
}

func completeOperations(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	var out []string
	for _, o := range engine.StoreOperations() {
		out = append(out, o.String())
	}
	return out, cobra.ShellCompDirectiveNoFileComp
}

// rights are the rights that the flags name; one that nothing could ever use is an
// error.
func (o *scopeFlags) rights() (out []authority.Right, err error) {
	for _, op := range o.operations {
		if err := checkOperation(o.capability, op); err != nil {
			return nil, err
		}
		out = append(out, authority.Right{Capability: fcp.CanonicalID(o.capability), Operation: op})
	}
	return out, nil
}

func (o *scopeFlags) constraints() authority.Constraints {
	return authority.Constraints{ResourceAllow: o.names(o.resources), ResourceDeny: o.names(o.deny), MaxCalls: o.calls, MaxBytes: o.bytes,
		IdempotencyKey: o.idempotency}
}

// names turns prefixes of names into resources; those of other capabilities are
// taken as they are.
func (o *scopeFlags) names(prefixes []string) (out []string) {
	for _, p := range prefixes {
		if p != authority.AnyResource && o.capability == string(engine.StoreCapability) {
			p = engine.ResourceOf(p)
		}
		out = append(out, p)
	}
	return out
}

// nameOf is the inverse of engine.ResourceOf.
func nameOf(resource string) string {
	if name, err := url.PathUnescape(resource); err == nil {
		return name
	}
	return resource
}

func namesOf(resources []string) []string {
	out := make([]string, len(resources))
	for i := range resources {
		out[i] = nameOf(resources[i])
	}
	return out
}

// scopeView is what a grant or token permits, as JSON.
type scopeView struct {
	Principal  string   `json:"principal"`
	Rights     []string `json:"rights"` // capability and operation
	Resources  []string `json:"resources"`
	Deny       []string `json:"deny,omitempty"`
	MaxCalls   uint32   `json:"max_calls,omitempty"`
	MaxBytes   uint64   `json:"max_bytes,omitempty"`
	Idempotent string   `json:"idempotency_key,omitempty"`
	From       string   `json:"from"`
	Until      string   `json:"until"`
}

func viewScope(principal fcp.CanonicalID, rights []authority.Right, c *authority.Constraints, from, until time.Time) scopeView {
	v := scopeView{Principal: principal.String(), Rights: []string{}, Resources: namesOf(c.ResourceAllow), Deny: namesOf(c.ResourceDeny),
		MaxCalls: c.MaxCalls, MaxBytes: c.MaxBytes, Idempotent: c.IdempotencyKey, From: secondsText(from), Until: secondsText(until)}
	for _, r := range rights {
		v.Rights = append(v.Rights, r.Capability.String()+" "+r.Operation)
	}
	return v
}

func secondsText(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05Z") }

func (v *scopeView) fields() []field {
	out := []field{{"principal", v.Principal}, {"permits", strings.Join(v.Rights, ", ")}, {"on", strings.Join(v.Resources, ", ")}}
	if len(v.Deny) > 0 {
		out = append(out, field{"but not on", strings.Join(v.Deny, ", ")})
	}
	if v.MaxCalls > 0 {
		out = append(out, field{"calls", decimal(uint64(v.MaxCalls))})
	}
	if v.MaxBytes > 0 {
		out = append(out, field{"bytes", decimal(v.MaxBytes)})
	}
	return append(out, field{"from", v.From}, field{"until", v.Until})
}

// grantLine is the command that makes a grant.
func (a *app) grantLine(g *authority.GrantSpec) string {
	args := []string{"cap", "grant", g.Principal.String(), "--identity", "FILE", "--zone", g.Zone.String()}
	if len(g.Rights) > 0 && g.Rights[0].Capability != engine.StoreCapability {
		args = append(args, "--capability", g.Rights[0].Capability.String())
	}
	for _, r := range g.Rights {
		args = append(args, "--allow", r.Operation)
	}
	for _, r := range g.Constraints.ResourceAllow {
		args = append(args, "--resource", nameOf(r))
	}
	if n := g.Constraints.MaxCalls; n > 0 {
		args = append(args, "--calls", decimal(uint64(n)))
	}
	if n := g.Constraints.MaxBytes; n > 0 {
		args = append(args, "--bytes", decimal(n))
	}
	if k := g.Constraints.IdempotencyKey; k != "" {
		args = append(args, "--idempotency-key", k)
	}
	return a.command(append(args, "--for", g.NotAfter.Sub(g.NotBefore).String())...)
}

// grantView is one grant as JSON.
type grantView struct {
	Ref  string     `json:"ref,omitempty"`
	Zone fcp.ZoneID `json:"zone"`
	scopeView
	Issuer    string      `json:"issuer,omitempty"`
	State     string      `json:"state,omitempty"` // active, not yet, expired, revoked
	RevokedBy string      `json:"revoked_by,omitempty"`
	DryRun    bool        `json:"dry_run,omitempty"`
	Planned   []eventView `json:"planned,omitempty"` // what was appended, or would be
}

type grantOptions struct {
	scopeFlags
	zone     *zoneFlag
	identity *identityOptions
	devices  devicesFlag
	dryRun   bool
}

func (a *app) capGrantCommand() *cobra.Command {
	o := &grantOptions{}
	cmd := &cobra.Command{
		Use: "grant PRINCIPAL", Short: "Sign what somebody may do", Args: args(1, 1),
		Long: `grant signs, as the owner, what a principal may do with which names, and for how
long. Nothing is permitted that is not said. What the grant needs besides and is
not there yet is signed with it: an attestation of this node, its right to mint,
and the binding of the principal to the devices it may act from.`,
		Example: "  fcpctl cap grant agent:notes --identity ~/fcp-identity --allow object.get,object.put --resource notes/ --for 8h",
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(o.operations) == 0 || len(o.resources) == 0 {
				return usagef("say both; see `"+cmd.CommandPath()+" --help`", "a grant needs --allow and --resource: what is left out is not permitted")
			}
			return a.withStore(cmd.Context(), openMode(!o.dryRun), func(e *engine.Engine) error { return a.grant(cmd.Context(), e, o, args[0]) })
		},
	}
	o.zone = zoneOption(cmd)
	o.identity = identityFlags(cmd, "identity file of the owner")
	o.add(cmd, "8h, 30d; default 1h")
	cmd.Flags().Var(&o.devices, "device", "device it may be used from, by name or id (default this one); may be repeated")
	_ = cmd.RegisterFlagCompletionFunc("device", a.completeDevices)
	dryRunFlag(cmd, &o.dryRun)
	return cmd
}

// ownerFor opens the identity file that a command of the owner needs.
func (a *app) ownerFor(o *identityOptions, what string) (*authority.OwnerKey, error) {
	if o.path == "" {
		return nil, fcp.Errorf(fcp.CodeUnauthorized, "%s is signed by the owner", what).WithNext("name the identity file with --identity FILE")
	}
	return a.loadOwner(o)
}

func (a *app) grant(ctx context.Context, e *engine.Engine, o *grantOptions, principal string) error {
	owner, err := a.ownerFor(o.identity, "a grant")
	if err != nil {
		return err
	}
	defer owner.Wipe()
	rights, err := o.rights()
	if err != nil {
		return err
	}
	devices, err := a.writers(e, o.devices)
	if err != nil {
		return err
	}
	now := a.now().Truncate(time.Second)
	life := time.Hour
	if o.life.set {
		life = o.life.Duration
	}
	spec := authority.GrantSpec{Zone: fcp.ZoneID(*o.zone), Principal: fcp.CanonicalID(principal), Rights: rights, Constraints: o.constraints(),
		NotBefore: now, NotAfter: now.Add(life)}
	got, err := e.Entitle(ctx, owner, engine.EntitleRequest{GrantSpec: spec, Devices: devices, DryRun: o.dryRun})
	if err != nil {
		return err
	}
	v := grantView{Ref: hashText(got.Grant), Zone: spec.Zone, scopeView: viewScope(spec.Principal, spec.Rights, &spec.Constraints, spec.NotBefore, spec.NotAfter),
		DryRun: o.dryRun, Planned: viewActs(got.Planned)}
	if o.dryRun && a.flags.format == formatTable {
		return a.printPlanned(v.Planned)
	}
	fields := append([]field{{"grant", v.Ref}, {"zone", v.Zone.String()}}, v.fields()...)
	if !o.dryRun {
		fields = append(fields, field{"next", a.command("cap", "mint", v.Ref[:16], "--zone", v.Zone.String(), "--key", "KEYFILE", "--out", "TOKENFILE")})
	}
	return a.answer("Grant", e.Position(), v, v.Ref, fields...)
}

// viewActs shows governance events, whose Key is their zone.
func viewActs(planned []engine.PlannedEvent) (out []eventView) {
	for _, p := range planned {
		out = append(out, eventView{Zone: fcp.ZoneID(p.Key), Plane: p.Plane, Kind: p.Kind})
	}
	return out
}

func (a *app) capListCommand() *cobra.Command {
	var zone string
	cmd := &cobra.Command{
		Use: "ls", Short: "The grants", Args: args(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withStore(cmd.Context(), reading, func(e *engine.Engine) error { return a.listGrants(e, zone) })
		},
	}
	cmd.Flags().StringVar(&zone, "zone", "", "this zone only")
	_ = cmd.RegisterFlagCompletionFunc("zone", completeZones)
	return cmd
}

func (a *app) listGrants(e *engine.Engine, zone string) error {
	zones := e.Zones()
	if zone != "" {
		id, err := fcp.ParseZoneID(zone)
		if err != nil {
			return err
		}
		zones = []fcp.ZoneID{id}
	}
	l := a.list("Grant", e.Position(), "GRANT", "ZONE", "PRINCIPAL", "STATE", "UNTIL", "PERMITS", "ON")
	for _, z := range zones {
		grants, err := e.Grants(z)
		if err != nil {
			return err
		}
		for i := range grants {
			v := a.viewGrant(&grants[i])
			if err := l.add(v, v.Ref, a.short(v.Ref), v.Zone.String(), v.Principal, v.State, v.Until, strings.Join(v.Rights, ", "), strings.Join(v.Resources, ", ")); err != nil {
				return err
			}
		}
	}
	return l.end(e.Position())
}

func (a *app) viewGrant(g *engine.GrantState) grantView {
	s := &g.Spec
	v := grantView{Ref: g.Ref.String(), Zone: s.Zone, scopeView: viewScope(s.Principal, s.Rights, &s.Constraints, s.NotBefore, s.NotAfter),
		Issuer: fcp.KidOf(g.Issuer[:]).String(), State: "active"}
	switch now := a.now(); {
	case g.Revoked != nil:
		v.State, v.RevokedBy = "revoked", g.Revoked.Ref().String()
	case !now.Before(s.NotAfter):
		v.State = "expired"
	case now.Before(s.NotBefore):
		v.State = "not yet"
	}
	return v
}

// findGrant finds a grant by the first digits of its ref.
func (a *app) findGrant(e *engine.Engine, zone fcp.ZoneID, prefix string) (*engine.GrantState, error) {
	ref, err := a.findGrantRef(api.Local{Engine: e}, zone, prefix)
	if err != nil {
		return nil, err
	}
	grants, err := e.Grants(zone)
	if err != nil {
		return nil, err
	}
	return &grants[slices.IndexFunc(grants, func(g engine.GrantState) bool { return g.Ref == ref })], nil
}

func (a *app) findGrantRef(s api.Store, zone fcp.ZoneID, prefix string) (fcp.Hash, error) {
	if len(prefix) < engine.MinHashPrefix || strings.Trim(prefix, "0123456789abcdef") != "" {
		return fcp.Hash{}, fcp.Errorf(fcp.CodeInvalidArgument, "%.80q is not %d or more hex digits of a grant", prefix, engine.MinHashPrefix).
			WithNext("list the grants with `" + a.command("cap", "ls") + "`")
	}
	grants, err := s.Grants(zone)
	if err != nil {
		return fcp.Hash{}, err
	}
	grants = slices.DeleteFunc(grants, func(ref fcp.Hash) bool { return !strings.HasPrefix(ref.String(), prefix) })
	switch len(grants) {
	case 0:
		return fcp.Hash{}, fcp.Errorf(fcp.CodeNotFound, "no grant %s in %s", prefix, zone).WithNext("list the grants with `" + a.command("cap", "ls") + "`")
	case 1:
		return grants[0], nil
	}
	return fcp.Hash{}, fcp.Errorf(fcp.CodeGuess, "%d grants begin with %s", len(grants), prefix)
}

type mintOptions struct {
	scopeFlags
	zone     *zoneFlag
	key, out string
	audience string
	instance string
	depth    uint64
	holder   string
	dryRun   bool
}

func (a *app) capMintCommand() *cobra.Command {
	o := &mintOptions{}
	cmd := &cobra.Command{
		Use: "mint GRANT", Short: "Make a token from a grant", Args: args(1, 1),
		Long: `mint makes a token from a grant with this node's issuance key. It makes a key for
the holder, writes it to --key, and the token to --out; neither file is ever written
over, shown or logged. What is not said is the grant's own.`,
		Example:           "  fcpctl cap mint 3f1c9d2a --key notes.key --out notes.token --for 10m --depth 1",
		ValidArgsFunction: a.completeGrants,
		RunE: func(cmd *cobra.Command, args []string) error {
			if o.key == "" || o.out == "" {
				return usagef("see `"+cmd.CommandPath()+" --help`", "--key and --out name the two files to write")
			}
			return a.withStore(cmd.Context(), reading, func(e *engine.Engine) error { return a.mint(e, o, args[0]) })
		},
	}
	o.zone = zoneOption(cmd)
	o.add(cmd, "10m, 8h; at most 24h; default the grant's end")
	f := cmd.Flags()
	f.StringVar(&o.key, "key", "", "file to write the holder's new key to")
	f.StringVar(&o.out, "out", "", "file to write the token to")
	f.StringVar(&o.audience, "audience", "", "connector it is for (default the store itself)")
	f.StringVar(&o.instance, "instance", "", "and its instance")
	f.Uint64Var(&o.depth, "depth", 0, "how often the holder may narrow it")
	f.StringVar(&o.holder, "holder", "", "device it is used from, by name or id (default this one)")
	_ = cmd.RegisterFlagCompletionFunc("holder", a.completeDevices)
	dryRunFlag(cmd, &o.dryRun)
	return cmd
}

func (a *app) mint(e *engine.Engine, o *mintOptions, grant string) error {
	g, err := a.findGrant(e, fcp.ZoneID(*o.zone), grant)
	if err != nil {
		return err
	}
	rights, err := o.rights()
	if err != nil {
		return err
	}
	q := engine.MintRequest{Zone: g.Spec.Zone, Grant: g.Ref, Rights: rights, Audience: fcp.CanonicalID(o.audience), Instance: fcp.CanonicalID(o.instance),
		For: o.life.Duration, Depth: o.depth}
	if o.holder != "" {
		m, err := a.findDevice(e, o.holder)
		if err != nil {
			return err
		}
		q.Holder = m.Writer
	}
	c := o.narrowed(g.Spec.Constraints)
	q.Constraints = &c
	err = a.writeToken(o.key, o.out, o.dryRun, func(k authority.HolderPublic) (*authority.Chain, error) {
		q.Confirm = k
		return e.MintFrom(q)
	}, e.Position())
	if authority.ReasonOf(err) == authority.ReasonNotContained {
		err = advise(err, fcp.CodeDenied, "permit no more than the grant in `"+a.command("cap", "ls")+"`, or have the owner grant more")
	}
	return err
}

// narrowed is what the flags say, and what they do not say as it was.
func (o *scopeFlags) narrowed(c authority.Constraints) authority.Constraints {
	said := o.constraints()
	if len(said.ResourceAllow) > 0 {
		c.ResourceAllow = said.ResourceAllow
	}
	c.ResourceDeny = append(slices.Clone(c.ResourceDeny), said.ResourceDeny...)
	if said.MaxCalls > 0 {
		c.MaxCalls = said.MaxCalls
	}
	if said.MaxBytes > 0 {
		c.MaxBytes = said.MaxBytes
	}
	if said.IdempotencyKey != "" {
		c.IdempotencyKey = said.IdempotencyKey
	}
	return c
}

// writeToken makes a holder's key and a token for it. The token is made once before
// anything is written, so that a refusal leaves no file.
func (a *app) writeToken(keyFile, out string, dryRun bool, make func(authority.HolderPublic) (*authority.Chain, error), asOf uint64) error {
	trial, err := authority.NewHolderKey(a.random())
	if err != nil {
		return err
	}
	defer trial.Wipe()
	chain, err := make(trial.Public())
	if err != nil {
		return err
	}
	if !dryRun {
		k, err := keystore.CreateHolder(keystore.OS{}, keyFile, a.random())
		if err != nil {
			return err
		}
		defer k.Wipe()
		if chain, err = make(k.Public()); err != nil {
			return err
		}
		if err := keystore.CreateToken(keystore.OS{}, out, chain); err != nil {
			return err
		}
	}
	if err := a.printToken(chain, out, dryRun, asOf); err != nil {
		return err
	}
	if dryRun {
		a.note("dry run: nothing was written")
	}
	return nil
}
