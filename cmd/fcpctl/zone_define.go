package main

import (
	"bytes"
	"context"
	"encoding/json"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"fcp"
	"fcp/authority"
	"fcp/engine"
)

// definedZoneView is one zone as JSON.
type definedZoneView struct {
	Zone            fcp.ZoneID `json:"zone"`
	Name            string     `json:"name"`
	Integrity       uint8      `json:"integrity"`
	Confidentiality uint8      `json:"confidentiality"`
	Parent          fcp.ZoneID `json:"parent,omitempty"`
	Version         uint64     `json:"version"`        // of the definition
	Policy          uint64     `json:"policy_version"` // 0: no policy, which restricts nothing
	SymbolPort      uint16     `json:"symbol_port,omitempty"`
	ControlPort     uint16     `json:"control_port,omitempty"`
	Halted          string     `json:"halted,omitempty"` // why nothing is decided in it
	DryRun          bool       `json:"dry_run,omitempty"`
}

func viewDefined(f *engine.ZoneFacts) definedZoneView {
	v := definedZoneView{Zone: f.Zone, Integrity: f.Levels.Integrity, Confidentiality: f.Levels.Confidentiality}
	if d := f.Definition; d != nil {
		s := d.Spec()
		v.Name, v.Parent, v.Version, v.SymbolPort, v.ControlPort = s.Name, s.Parent, s.Version, s.SymbolPort, s.ControlPort
	}
	if f.Policy != nil {
		v.Policy = f.Policy.Number()
	}
	if f.Halted != nil {
		v.Halted = f.Halted.Error()
	}
	return v
}

func (a *app) zoneListCommand() *cobra.Command {
	return &cobra.Command{
		Use: "ls", Short: "The zones, their levels and what governs them", Args: args(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withStore(cmd.Context(), reading, func(e *engine.Engine) error {
				l := a.list("Zone", e.Position(), "ZONE", "INTEGRITY", "CONFIDENTIALITY", "VERSION", "POLICY", "PARENT")
				for _, z := range e.Zones() {
					f, err := e.ZoneFacts(z)
					if err != nil {
						return err
					}
					v := viewDefined(f)
					if err := l.add(v, v.Zone.String(), v.Zone.String(), decimal(uint64(v.Integrity)), decimal(uint64(v.Confidentiality)), decimal(v.Version),
						decimal(v.Policy), v.Parent.String()); err != nil {
						return err
					}
				}
				return l.end(e.Position())
			})
		},
	}
}

type defineOptions struct {
	identity             *identityOptions
	name, parent         string
	integrity            uint8
	confidentiality      uint8
	symbolPort, ctrlPort uint16
	dryRun               bool
}

func (a *app) zoneDefineCommand() *cobra.Command {
	o := &defineOptions{}
	cmd := &cobra.Command{
		Use: "define ZONE", Short: "Make a zone, or the next version of one", Args: args(1, 1),
		Long: `define signs what a zone is: its levels, its parent, its ports. A new zone gets keys of
its own. A zone that is there gets a new version; what is not said stays.`,
		Example: "  fcpctl zone define z:photos --identity ~/fcp-identity --parent z:private --integrity 60 --confidentiality 80",
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withStore(cmd.Context(), openMode(!o.dryRun), func(e *engine.Engine) error { return a.defineZone(cmd, e, o, args[0]) })
		},
		ValidArgsFunction: completeZones,
	}
	o.identity = identityFlags(cmd, "identity file of the owner")
	f := cmd.Flags()
	f.StringVar(&o.name, "name", "", "name to show (default the id)")
	f.StringVar(&o.parent, "parent", "", "zone whose levels it never exceeds")
	f.Uint8Var(&o.integrity, "integrity", 0, "integrity, 0 to 100")
	f.Uint8Var(&o.confidentiality, "confidentiality", 0, "confidentiality, 0 to 100")
	f.Uint16Var(&o.symbolPort, "symbol-port", 0, "UDP port of symbols; 0 for each node's own choice")
	f.Uint16Var(&o.ctrlPort, "control-port", 0, "port of control traffic; 0 for each node's own choice")
	_ = cmd.RegisterFlagCompletionFunc("parent", completeZones)
	dryRunFlag(cmd, &o.dryRun)
	return cmd
}

func (a *app) defineZone(cmd *cobra.Command, e *engine.Engine, o *defineOptions, zone string) error {
	id, err := fcp.ParseZoneID(zone)
	if err != nil {
		return err
	}
	owner, err := a.ownerFor(o.identity, "a zone")
	if err != nil {
		return err
	}
	defer owner.Wipe()
	spec := authority.ZoneSpec{ID: id, Name: strings.TrimPrefix(id.String(), "z:")}
	if f, err := e.ZoneFacts(id); err == nil && f.Definition != nil {
		spec = f.Definition.Spec()
	}
	said := cmd.Flags().Changed
	if said("name") {
		spec.Name = o.name
	}
	if said("parent") {
		spec.Parent = fcp.ZoneID(o.parent)
	}
	if said("integrity") {
		spec.Levels.Integrity = o.integrity
	}
	if said("confidentiality") {
		spec.Levels.Confidentiality = o.confidentiality
	}
	if said("symbol-port") {
		spec.SymbolPort = o.symbolPort
	}
	if said("control-port") {
		spec.ControlPort = o.ctrlPort
	}
	v := definedZoneView{Zone: id, Name: spec.Name, Integrity: spec.Levels.Integrity, Confidentiality: spec.Levels.Confidentiality, Parent: spec.Parent,
		Version: spec.Version + 1, SymbolPort: spec.SymbolPort, ControlPort: spec.ControlPort, DryRun: o.dryRun}
	if o.dryRun {
		if err := e.Genesis().CheckOwner(owner.Public()); err != nil {
			return err
		}
	} else {
		if err := e.DefineZone(cmd.Context(), owner, spec); err != nil {
			return err
		}
		f, err := e.ZoneFacts(id)
		if err != nil {
			return err
		}
		v = viewDefined(f)
	}
	return a.answer("Zone", e.Position(), v, id.String(), field{"zone", id.String()}, field{"name", v.Name}, field{"integrity", decimal(uint64(v.Integrity))},
		field{"confidentiality", decimal(uint64(v.Confidentiality))}, field{"parent", v.Parent.String()}, field{"version", decimal(v.Version)})
}

// policyRulesView are the rules of a policy as JSON, read and written.
type policyRulesView struct {
	PrincipalAllow   authority.Patterns `json:"principal_allow,omitempty"`
	PrincipalDeny    authority.Patterns `json:"principal_deny,omitempty"`
	ConnectorAllow   authority.Patterns `json:"connector_allow,omitempty"`
	ConnectorDeny    authority.Patterns `json:"connector_deny,omitempty"`
	CapabilityAllow  authority.Patterns `json:"capability_allow,omitempty"`
	CapabilityDeny   authority.Patterns `json:"capability_deny,omitempty"`
	PrincipalRules   []principalRule    `json:"principal_rules,omitempty"`
	FlowRules        []flowRule         `json:"flow_rules,omitempty"`
	MaxAgeSeconds    uint32             `json:"max_age_seconds,omitempty"`
	DegradedMode     bool               `json:"degraded_mode,omitempty"`
	RiskyOverride    bool               `json:"risky_override,omitempty"`
	MaxFaults        uint8              `json:"max_faults,omitempty"`
	DegradedMinNodes uint8              `json:"degraded_min_nodes,omitempty"`
	Placement        *placementView     `json:"placement,omitempty"` // left out in a file of rules: as it is
}

type principalRule struct {
	Principal authority.Pattern `json:"principal"`
	MaxTier   authority.Tier    `json:"max_tier"`
}

type flowRule struct {
	From   authority.Pattern `json:"from"`
	To     authority.Pattern `json:"to"`
	Forbid bool              `json:"forbid"`
}

func viewRules(r authority.PolicyRules) policyRulesView {
	v := policyRulesView{PrincipalAllow: r.Principals.Allow, PrincipalDeny: r.Principals.Deny, ConnectorAllow: r.Connectors.Allow, ConnectorDeny: r.Connectors.Deny,
		CapabilityAllow: r.Capabilities.Allow, CapabilityDeny: r.Capabilities.Deny, MaxAgeSeconds: uint32(r.MaxAge / time.Second),
		DegradedMode: r.DegradedMode, RiskyOverride: r.RiskyOverride, MaxFaults: r.MaxFaults, DegradedMinNodes: r.DegradedMinNodes, Placement: viewPlacement(r.Placement)}
	for _, x := range r.PrincipalRules {
		v.PrincipalRules = append(v.PrincipalRules, principalRule(x))
	}
	for _, x := range r.FlowRules {
		v.FlowRules = append(v.FlowRules, flowRule(x))
	}
	return v
}

func (v *policyRulesView) rules() authority.PolicyRules {
	r := authority.PolicyRules{Principals: authority.Lists{Allow: v.PrincipalAllow, Deny: v.PrincipalDeny},
		Connectors:   authority.Lists{Allow: v.ConnectorAllow, Deny: v.ConnectorDeny},
		Capabilities: authority.Lists{Allow: v.CapabilityAllow, Deny: v.CapabilityDeny}, MaxAge: time.Duration(v.MaxAgeSeconds) * time.Second,
		DegradedMode: v.DegradedMode, RiskyOverride: v.RiskyOverride, MaxFaults: v.MaxFaults, DegradedMinNodes: v.DegradedMinNodes, Placement: (*authority.PlacementRules)(v.Placement)}
	for _, x := range v.PrincipalRules {
		r.PrincipalRules = append(r.PrincipalRules, authority.PrincipalRule(x))
	}
	for _, x := range v.FlowRules {
		r.FlowRules = append(r.FlowRules, authority.FlowRule(x))
	}
	return r
}

// policyView is a zone's policy as JSON.
type policyView struct {
	Zone     fcp.ZoneID      `json:"zone"`
	Version  uint64          `json:"version"` // 0: none, which restricts nothing
	Restores uint64          `json:"restores,omitempty"`
	Ref      string          `json:"ref,omitempty"`
	Rules    policyRulesView `json:"rules"`
	DryRun   bool            `json:"dry_run,omitempty"`
}

type policyOptions struct {
	identity *identityOptions
	file     string
	rollback uint64
	dryRun   bool
}

func (a *app) zonePolicyCommand() *cobra.Command {
	o := &policyOptions{}
	cmd := &cobra.Command{
		Use: "policy ZONE", Short: "Show a zone's policy, set the next one, or go back to an earlier one", Args: args(1, 1),
		Long: `policy shows the rules in force. --set FILE puts the rules of a JSON file, in the form
that -o json shows under "rules", in force as the next version; --rollback N those of
an earlier version. A key that is not known is an error.`,
		Example: "  fcpctl zone policy z:work --set rules.json --identity ~/fcp-identity",
		RunE: func(cmd *cobra.Command, args []string) error {
			if o.file != "" && o.rollback != 0 {
				return usagef("say one of them", "--set and --rollback exclude each other")
			}
			change := (o.file != "" || o.rollback != 0) && !o.dryRun
			return a.withStore(cmd.Context(), openMode(change), func(e *engine.Engine) error { return a.policy(cmd.Context(), e, o, args[0]) })
		},
		ValidArgsFunction: completeZones,
	}
	o.identity = identityFlags(cmd, "identity file of the owner")
	cmd.Flags().StringVar(&o.file, "set", "", "file with the rules to put in force, - for stdin")
	cmd.Flags().Uint64Var(&o.rollback, "rollback", 0, "put the rules of this version in force again")
	dryRunFlag(cmd, &o.dryRun)
	return cmd
}

func (a *app) policy(ctx context.Context, e *engine.Engine, o *policyOptions, zone string) error {
	id, err := fcp.ParseZoneID(zone)
	if err != nil {
		return err
	}
	f, err := e.ZoneFacts(id)
	if err != nil {
		return err
	}
	v := policyView{Zone: id, Rules: viewRules(f.Rules()), DryRun: o.dryRun}
	p := f.Policy
	if o.file != "" || o.rollback != 0 {
		if p, err = a.changePolicy(ctx, e, f, o, &v); err != nil {
			return err
		}
	}
	if p != nil {
		s := p.Spec()
		v.Version, v.Restores, v.Ref, v.Rules = p.Number(), s.Restores, p.Ref().String(), viewRules(s.PolicyRules)
	}
	text, err := marshalJSON(v.Rules)
	if err != nil {
		return err
	}
	return a.answer("Policy", e.Position(), v, v.Ref, field{"zone", id.String()}, field{"version", decimal(v.Version)}, field{"ref", v.Ref}, field{"rules", string(text)})
}

// changePolicy returns the new policy; with a dry run nil, and the rules in v.
func (a *app) changePolicy(ctx context.Context, e *engine.Engine, f *engine.ZoneFacts, o *policyOptions, v *policyView) (*authority.Policy, error) {
	owner, err := a.ownerFor(o.identity, "a policy")
	if err != nil {
		return nil, err
	}
	defer owner.Wipe()
	if err := e.Genesis().CheckOwner(owner.Public()); err != nil {
		return nil, err
	}
	var spec authority.PolicySpec
	if o.file != "" {
		var rules policyRulesView
		if err := a.readRules(o.file, &rules); err != nil {
			return nil, err
		}
		if rules.Placement == nil {
			rules.Placement = viewPlacement(f.Rules().Placement)
		}
		spec, err = f.Policies.Next(f.Zone, rules.rules())
	} else {
		spec, err = f.Policies.Rollback(f.Zone, o.rollback)
	}
	switch {
	case err != nil:
		return nil, err
	case o.dryRun:
		_, err := authority.SignPolicy(a.now(), owner, spec)
		v.Version, v.Restores, v.Rules = spec.Version, spec.Restores, viewRules(spec.PolicyRules)
		return nil, err
	case o.file != "":
		return e.SetPolicy(ctx, owner, f.Zone, spec.PolicyRules)
	}
	return e.RollbackPolicy(ctx, owner, f.Zone, o.rollback)
}

// maxRules bounds a file of rules, in bytes.
const maxRules = 1 << 20

func (a *app) readRules(path string, v *policyRulesView) error {
	b, err := a.readInput(path, maxRules, "the rules")
	if err != nil {
		return err
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		line := 1 + bytes.Count(b[:min(int(d.InputOffset()), len(b))], []byte("\n"))
		return fcp.Errorf(fcp.CodeInvalidArgument, "the rules, near line %d: %w", line, err)
	}
	if d.More() {
		return fcp.Errorf(fcp.CodeInvalidArgument, "more than one value in the file of rules")
	}
	return nil
}
