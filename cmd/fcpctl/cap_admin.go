package main

import (
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"fcp"
	"fcp/authority"
	"fcp/engine"
)

// refOfNew returns the ref of the anchor of a kind that was not there before.
func refOfNew(e *engine.Engine, zone fcp.ZoneID, what string, do func() error) (fcp.Hash, error) {
	refs := func() (map[fcp.Hash]bool, error) {
		anchors, err := e.Anchors(zone)
		out := map[fcp.Hash]bool{}
		for i := range anchors {
			if anchors[i].What == what {
				out[anchors[i].Ref] = true
			}
		}
		return out, err
	}
	before, err := refs()
	if err != nil {
		return fcp.Hash{}, err
	}
	if err := do(); err != nil {
		return fcp.Hash{}, err
	}
	after, err := refs()
	for ref := range after {
		if !before[ref] {
			return ref, err
		}
	}
	return fcp.Hash{}, err
}

func (a *app) capBindCommand() *cobra.Command {
	o := &act{noun: "a binding", what: "binding"}
	var (
		zone    *zoneFlag
		devices devicesFlag
		allow   []string
		life    ageFlag
	)
	cmd := a.signCommand(&cobra.Command{
		Use: "bind PRINCIPAL", Short: "Say from which devices a principal may act", Args: args(1, 1),
		Long: `bind signs from which devices a principal may use which capabilities of a zone. cap
grant binds what a grant needs; this is for more devices or a longer time.`,
		Example: "  fcpctl cap bind user:alice --device laptop --allow 'mail.*' --for 90d --identity ~/fcp-identity",
	}, o, func(cmd *cobra.Command, e *engine.Engine, owner *authority.OwnerKey, args []string) (fcp.ZoneID, fcp.Hash, error) {
		id := fcp.ZoneID(*zone)
		if len(allow) == 0 {
			return id, fcp.Hash{}, usagef("see `"+cmd.CommandPath()+" --help`", "--allow names the capabilities")
		}
		writers, err := a.writers(e, devices)
		if err != nil {
			return id, fcp.Hash{}, err
		}
		if err := checkCapabilities(patternsOf(allow)); err != nil {
			return id, fcp.Hash{}, err
		}
		now := a.now().Truncate(time.Second)
		spec := authority.BindingSpec{Principal: fcp.CanonicalID(args[0]), Devices: writers, Zones: []fcp.ZoneID{id}, Capabilities: patternsOf(allow), NotBefore: now,
			NotAfter: now.Add(30 * 24 * time.Hour)}
		if life.set {
			spec.NotAfter = now.Add(life.Duration)
		}
		if len(spec.Devices) == 0 {
			spec.Devices = []fcp.WriterID{e.Node().Writer()}
		}
		if o.dryRun {
			_, err := authority.SignBinding(now, owner, spec)
			return id, fcp.Hash{}, err
		}
		ref, err := refOfNew(e, id, "binding", func() error { return e.BindPrincipal(cmd.Context(), owner, spec) })
		return id, ref, err
	})
	zone = zoneOption(cmd)
	f := cmd.Flags()
	f.Var(&devices, "device", "device he may act from, by name or id (default this one); may be repeated")
	f.StringSliceVar(&allow, "allow", nil, "capabilities, each a name or a prefix and *")
	f.Var(&life, "for", "how long it holds (default 30d)")
	_ = cmd.RegisterFlagCompletionFunc("device", a.completeDevices)
	return cmd
}

// delegable are the actions that the owner can delegate.
var delegable = []string{string(authority.ActionApprove), string(authority.ActionAttest), string(authority.ActionGrant), string(authority.ActionRevoke), string(authority.ActionRole)}

func (a *app) capDelegateCommand() *cobra.Command {
	o := &act{noun: "a delegation", what: "delegation"}
	var (
		zone    *zoneFlag
		actions []string
		life    ageFlag
	)
	cmd := a.signCommand(&cobra.Command{
		Use: "delegate DEVICE", Short: "Let a device act for the owner, within limits", Args: args(1, 1),
		Long: `delegate signs that a device may act for the owner in a zone: grant, revoke (what it
may grant), approve, attest (renew attestations; in z:owner) or role (assign roles).
It ends after 90 days at the latest. cap withdraw takes it back.`,
		Example: "  fcpctl cap delegate nas --action grant,revoke --zone z:work --for 30d --identity ~/fcp-identity",
	}, o, func(cmd *cobra.Command, e *engine.Engine, owner *authority.OwnerKey, args []string) (fcp.ZoneID, fcp.Hash, error) {
		id := fcp.ZoneID(*zone)
		if len(actions) == 0 {
			return id, fcp.Hash{}, usagef("say any of "+strings.Join(delegable, ", "), "--action names what the device may do")
		}
		m, err := a.findDevice(e, args[0])
		if err != nil {
			return id, fcp.Hash{}, err
		}
		from := a.now().Truncate(time.Second)
		spec := authority.DelegationSpec{Admin: m.Keys.Signing, Zones: authority.Patterns{authority.Pattern(id)}, From: from, Until: from.Add(30 * 24 * time.Hour)}
		if life.set {
			spec.Until = from.Add(life.Duration)
		}
		for _, x := range sortedOnce(actions) {
			if !oneOf(x, delegable) {
				return id, fcp.Hash{}, usagef("say any of "+strings.Join(delegable, ", "), "--action %q", x)
			}
			spec.Actions = append(spec.Actions, authority.Action(x))
		}
		if o.dryRun {
			_, err := authority.SignDelegation(owner, spec)
			return id, fcp.Hash{}, err
		}
		ref, err := refOfNew(e, id, "delegation", func() error { return e.Delegate(cmd.Context(), owner, spec) })
		return id, ref, err
	})
	zone = zoneOption(cmd)
	cmd.Flags().StringSliceVar(&actions, "action", nil, "grant, revoke, approve, attest, role")
	cmd.Flags().Var(&life, "for", "how long it holds, at most 90d (default 30d)")
	_ = cmd.RegisterFlagCompletionFunc("action", cobra.FixedCompletions(delegable, cobra.ShellCompDirectiveNoFileComp))
	cmd.ValidArgsFunction = a.completeDevices
	return cmd
}

func (a *app) capWithdrawCommand() *cobra.Command {
	o := &act{noun: "a revocation"}
	var (
		zone   *zoneFlag
		reason string
	)
	cmd := a.signCommand(&cobra.Command{
		Use: "withdraw REF", Short: "Take back a delegation, binding, attestation or role assignment", Args: args(1, 1),
		Long: `withdraw signs that an anchor which ` + "`fcpctl zone anchors`" + ` lists counts no more. What a
withdrawn admin granted ends with it; what it revoked stays revoked.`,
		Example: "  fcpctl cap withdraw 3f1c9d2a --zone z:work --reason 'left the team' --identity ~/fcp-identity",
	}, o, func(cmd *cobra.Command, e *engine.Engine, owner *authority.OwnerKey, args []string) (fcp.ZoneID, fcp.Hash, error) {
		id := fcp.ZoneID(*zone)
		x, err := a.findAnchor(e, id, args[0])
		if err != nil {
			return id, fcp.Hash{}, err
		}
		o.what = x.What
		if x.Scope() == "" {
			return id, fcp.Hash{}, fcp.Errorf(fcp.CodeInvalidArgument, "the %s %s cannot be withdrawn", x.What, x.Name).WithNext("sign its next version")
		}
		in := fcp.ZoneOwner // where delegations, attestations and bindings are
		if x.Scope() == authority.RevokeRole {
			in = id
		}
		spec := authority.RevocationSpec{Zone: in, Scope: x.Scope(), Targets: []fcp.Hash{x.Ref}, Reason: reason}
		if o.dryRun {
			_, err := authority.Revoke(a.now(), owner, spec)
			return id, x.Ref, err
		}
		_, err = e.Revoke(cmd.Context(), owner, spec)
		return id, x.Ref, err
	})
	zone = zoneOption(cmd)
	cmd.Flags().StringVar(&reason, "reason", "", "your words, for whoever asks why")
	return cmd
}

// findAnchor finds an anchor by the first digits of its ref.
func (a *app) findAnchor(e *engine.Engine, zone fcp.ZoneID, prefix string) (*engine.Anchor, error) {
	anchors, err := e.Anchors(zone)
	if err != nil {
		return nil, err
	}
	if len(prefix) < engine.MinHashPrefix || strings.Trim(prefix, "0123456789abcdef") != "" {
		return nil, fcp.Errorf(fcp.CodeInvalidArgument, "%.80q is not %d or more hex digits of an anchor", prefix, engine.MinHashPrefix)
	}
	anchors = slices.DeleteFunc(anchors, func(x engine.Anchor) bool { return !strings.HasPrefix(x.Ref.String(), prefix) })
	switch len(anchors) {
	case 0:
		return nil, fcp.Errorf(fcp.CodeNotFound, "no anchor %s in %s", prefix, zone).WithNext("list them with `" + a.command("zone", "anchors", zone.String()) + "`")
	case 1:
		return &anchors[0], nil
	}
	return nil, fcp.Errorf(fcp.CodeGuess, "%d anchors begin with %s", len(anchors), prefix)
}

// approvalView is one approval as JSON.
type approvalView struct {
	ID     string     `json:"id,omitempty"`
	Ref    string     `json:"ref,omitempty"`
	Zone   fcp.ZoneID `json:"zone"`
	Kind   string     `json:"kind"`
	Until  string     `json:"until"`
	DryRun bool       `json:"dry_run,omitempty"`
}

type approveOptions struct {
	identity        *identityOptions
	zone            *zoneFlag
	life            ageFlag
	reason          string
	operation       string
	provenance      string
	integrity       uint8
	from            string
	objects         objectsFlag
	confidentiality uint8
	connector       string
	method          string
	request, input  string
	dryRun          bool
}

func (a *app) capApproveCommand() *cobra.Command {
	o := &approveOptions{}
	cmd := &cobra.Command{
		Use: "approve elevation|declassification|execution", Short: "Permit once, for a short time, what the levels or an operation ask an approval for", Args: args(1, 1),
		Long: `approve signs an approval in the zone where the operation runs. elevation: data with
this provenance may drive one operation (--operation, --provenance, --integrity).
declassification: these objects may come here from a more confidential zone (--from,
--object, --confidentiality). execution: an operation of a connector may run
(--connector, --method, and --request or --input-hash to narrow it).
` + "`fcpctl why`" + ` says which one a refused request lacked.`,
		Example:   "  fcpctl cap approve execution --zone z:work --connector fcp.mail:operational:1.0.0 --method mail.send --for 10m --identity ~/fcp-identity",
		ValidArgs: approvalKinds,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkApproval(cmd, args[0]); err != nil {
				return err
			}
			return a.withStore(cmd.Context(), openMode(!o.dryRun), func(e *engine.Engine) error { return a.approve(cmd, e, o, args[0]) })
		},
	}
	o.identity = identityFlags(cmd, "identity file of the owner")
	o.zone = zoneOption(cmd)
	f := cmd.Flags()
	f.Var(&o.life, "for", "how long it holds, at most 24h (default 5m)")
	f.StringVar(&o.reason, "reason", "", "your words, for whoever asks why")
	f.StringVar(&o.operation, "operation", "", "elevation: the operation")
	f.StringVar(&o.provenance, "provenance", "", "elevation: the data's provenance record, 64 hex digits")
	f.Uint8Var(&o.integrity, "integrity", 0, "elevation: up to which level the data counts")
	f.StringVar(&o.from, "from", "", "declassification: the zone that the objects leave")
	f.Var(&o.objects, "object", "declassification: an object; may be repeated")
	f.Uint8Var(&o.confidentiality, "confidentiality", 0, "declassification: down to which level they may go")
	f.StringVar(&o.connector, "connector", "", "execution: the connector")
	f.StringVar(&o.method, "method", "", "execution: the operation, a name or a prefix and *")
	f.StringVar(&o.request, "request", "", "execution: only this request, 64 hex digits")
	f.StringVar(&o.input, "input-hash", "", "execution: only this input, 64 hex digits")
	dryRunFlag(cmd, &o.dryRun)
	return cmd
}

// approvalKinds are the kinds of approvals, approvalFlags what each must say and what
// it may say.
var (
	approvalKinds = []string{string(authority.ApproveElevation), string(authority.ApproveDeclassification), string(authority.ApproveExecution)}
	approvalFlags = map[string]struct{ must, may []string }{
		string(authority.ApproveElevation):        {must: []string{"operation", "provenance"}, may: []string{"integrity"}},
		string(authority.ApproveDeclassification): {must: []string{"from", "object"}, may: []string{"confidentiality"}},
		string(authority.ApproveExecution):        {must: []string{"connector", "method"}, may: []string{"request", "input-hash"}},
	}
)

// checkApproval refuses a kind that there is not, and flags that are missing for one
// or are another's.
func checkApproval(cmd *cobra.Command, kind string) error {
	help := "see `" + cmd.CommandPath() + " --help`"
	if !oneOf(kind, approvalKinds) {
		return usagef("say "+orList(approvalKinds), "%.40q is no kind of approval", kind)
	}
	for _, name := range approvalFlags[kind].must {
		if !cmd.Flags().Changed(name) {
			return usagef(help, "an approval of %s needs --%s", kind, strings.Join(approvalFlags[kind].must, " and --"))
		}
	}
	for _, other := range approvalKinds {
		if other == kind {
			continue
		}
		for _, name := range append(approvalFlags[other].must, approvalFlags[other].may...) {
			if cmd.Flags().Changed(name) {
				return usagef(help, "--%s is for an approval of %s", name, other)
			}
		}
	}
	return nil
}

// scope turns the flags into a scope; what cannot be used the scope's check refuses.
func (o *approveOptions) scope(kind string) (s authority.ApprovalScope, err error) {
	hash := func(text string) (h fcp.Hash) {
		if text != "" && err == nil {
			h, err = fcp.ParseHash(text)
		}
		return h
	}
	s.Kind = authority.ApprovalKind(kind)
	switch s.Kind {
	case authority.ApproveElevation:
		s.Operation, s.Provenance, s.Integrity = fcp.CanonicalID(o.operation), hash(o.provenance), o.integrity
	case authority.ApproveDeclassification:
		s.From, s.To, s.Objects, s.Confidentiality = fcp.ZoneID(o.from), fcp.ZoneID(*o.zone), o.objects, o.confidentiality
	case authority.ApproveExecution:
		s.Connector, s.Method = fcp.CanonicalID(o.connector), authority.Pattern(o.method)
		s.Request, s.InputHash = fcp.ObjectID(hash(o.request)), hash(o.input)
	}
	return s, err
}

func (a *app) approve(cmd *cobra.Command, e *engine.Engine, o *approveOptions, kind string) error {
	owner, err := a.ownerFor(o.identity, "an approval")
	if err != nil {
		return err
	}
	defer owner.Wipe()
	if err := e.Genesis().CheckOwner(owner.Public()); err != nil {
		return err
	}
	scope, err := o.scope(kind)
	if err != nil {
		return err
	}
	life := 5 * time.Minute
	if o.life.set {
		life = o.life.Duration
	}
	now := a.now().Truncate(time.Millisecond)
	spec := authority.ApprovalSpec{Zone: fcp.ZoneID(*o.zone), IssuedAt: now, Expires: now.Add(life), Justification: o.reason, Scope: scope}
	v := approvalView{Zone: spec.Zone, Kind: kind, Until: secondsText(spec.Expires), DryRun: o.dryRun}
	if o.dryRun {
		_, err = authority.SignApproval(a.random(), owner, spec)
	} else {
		var made *authority.Approval
		if made, err = e.Approve(cmd.Context(), owner, spec); err == nil {
			v.ID, v.Ref = made.ID().String(), made.Ref().String()
		}
	}
	if err != nil {
		return err
	}
	err = a.record("Approval", e.Position(), v, v.ID, field{"approval", v.ID}, field{"ref", v.Ref}, field{"zone", v.Zone.String()}, field{"kind", v.Kind}, field{"until", v.Until})
	if err == nil && o.dryRun {
		a.note("dry run: nothing was written")
	}
	return err
}
