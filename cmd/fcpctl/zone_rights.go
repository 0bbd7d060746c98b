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

func sortedOnce(list []string) []string {
	out := slices.Clone(list)
	slices.Sort(out)
	return slices.Compact(out)
}

func oneOf(s string, list []string) bool { return slices.Contains(list, s) }

func (a *app) zoneIssuersCommand() *cobra.Command {
	o := &act{noun: "an issuer set", what: "issuers"}
	var (
		id        string
		members   devicesFlag
		allow     []string
		threshold uint8
		life      ageFlag
	)
	cmd := a.signCommand(&cobra.Command{
		Use: "issuers ZONE", Short: "Say which devices may mint tokens, for what", Args: args(1, 1),
		Long: `issuers signs the next version of an issuer set: the devices that may mint tokens of a
zone, and for which capabilities. The version before counts no more.`,
		Example: "  fcpctl zone issuers z:work --member laptop --allow 'mail.*' --identity ~/fcp-identity",
	}, o, func(cmd *cobra.Command, e *engine.Engine, owner *authority.OwnerKey, args []string) (zone fcp.ZoneID, ref fcp.Hash, err error) {
		if zone, err = fcp.ParseZoneID(args[0]); err != nil {
			return zone, ref, err
		}
		if len(members) == 0 || len(allow) == 0 {
			return zone, ref, usagef("see `"+cmd.CommandPath()+" --help`", "--member names the devices and --allow what they may mint for")
		}
		writers, err := a.writers(e, members)
		if err != nil {
			return zone, ref, err
		}
		if err := checkCapabilities(patternsOf(allow)); err != nil {
			return zone, ref, err
		}
		from := a.now().Truncate(time.Second)
		spec := authority.IssuerSetSpec{Zone: zone, ID: fcp.CanonicalID(id), Threshold: threshold, From: from}
		if life.set {
			spec.Until = from.Add(life.Duration)
		}
		slices.SortFunc(writers, func(x, y fcp.WriterID) int { return slices.Compare(x[:], y[:]) })
		for _, w := range writers {
			spec.Issuers = append(spec.Issuers, authority.IssuerSpec{Writer: w, Allow: patternsOf(allow)})
		}
		if o.dryRun {
			spec.Version = 1
			_, err = authority.SignIssuerSet(owner, spec)
			return zone, ref, err
		}
		if err = e.DefineIssuers(cmd.Context(), owner, spec); err != nil {
			return zone, ref, err
		}
		f, err := e.ZoneFacts(zone)
		if err != nil {
			return zone, ref, err
		}
		if latest, ok := f.Issuers.Latest(spec.ID); ok {
			ref = latest.Ref()
		}
		return zone, ref, nil
	})
	f := cmd.Flags()
	f.StringVar(&id, "id", "issuers:default", "name of the set")
	f.Var(&members, "member", "device that may mint, by name or id; may be repeated")
	f.StringSliceVar(&allow, "allow", nil, "capabilities, each a name or a prefix and *")
	f.Uint8Var(&threshold, "threshold", 1, "how many members must sign")
	f.Var(&life, "for", "how long it holds (default without end)")
	_ = cmd.RegisterFlagCompletionFunc("member", a.completeDevices)
	cmd.ValidArgsFunction = completeZones
	return cmd
}

func (a *app) zoneRoleCommand() *cobra.Command {
	o := &act{noun: "a role", what: "role"}
	var (
		allow []string
		tier  string
	)
	cmd := a.signCommand(&cobra.Command{
		Use: "role ZONE ROLE", Short: "Say what holders of a role may reach at most", Args: args(2, 2),
		Long: `role signs the next version of a role: the capabilities that its holders reach at most,
and up to which tier. A role grants nothing by itself. As soon as a zone has roles, a
principal without one reaches nothing in it.`,
		Example: "  fcpctl zone role z:work role:reader --allow 'mail.*' --max-tier safe --identity ~/fcp-identity",
	}, o, func(cmd *cobra.Command, e *engine.Engine, owner *authority.OwnerKey, args []string) (zone fcp.ZoneID, ref fcp.Hash, err error) {
		if zone, err = fcp.ParseZoneID(args[0]); err != nil {
			return zone, ref, err
		}
		if err := checkCapabilities(patternsOf(allow)); err != nil {
			return zone, ref, err
		}
		spec := authority.RoleSpec{Zone: zone, ID: fcp.CanonicalID(args[1]), Capabilities: patternsOf(allow), MaxTier: authority.Tier(tier)}
		if o.dryRun {
			spec.Version = 1
			_, err = authority.SignRole(a.now(), owner, spec)
			return zone, ref, err
		}
		ref, err = e.DefineRole(cmd.Context(), owner, spec)
		return zone, ref, err
	})
	cmd.Flags().StringSliceVar(&allow, "allow", nil, "capabilities, each a name or a prefix and *")
	cmd.Flags().StringVar(&tier, "max-tier", string(authority.TierSafe), "safe, risky, dangerous or critical")
	cmd.ValidArgsFunction = completeZones
	return cmd
}

func (a *app) zoneAssignCommand() *cobra.Command {
	o := &act{noun: "a role assignment", what: "assignment"}
	var life ageFlag
	cmd := a.signCommand(&cobra.Command{
		Use: "assign ZONE PRINCIPAL ROLE", Short: "Give a principal a role", Args: args(3, 3),
		Long: `assign signs that a principal has a role of the zone. The role must have been defined
before, with zone role: an assignment of any other would give nothing.`,
		Example: "  fcpctl zone assign z:work user:alice role:reader --for 90d --identity ~/fcp-identity",
	}, o, func(cmd *cobra.Command, e *engine.Engine, owner *authority.OwnerKey, args []string) (zone fcp.ZoneID, ref fcp.Hash, err error) {
		if zone, err = fcp.ParseZoneID(args[0]); err != nil {
			return zone, ref, err
		}
		if err := a.checkRole(e, zone, args[2]); err != nil {
			return zone, ref, err
		}
		spec := authority.AssignmentSpec{Zone: zone, Principal: fcp.CanonicalID(args[1]), Role: fcp.CanonicalID(args[2]), From: a.now().Truncate(time.Second)}
		if life.set {
			spec.Until = spec.From.Add(life.Duration)
		}
		if o.dryRun {
			_, err = authority.SignAssignment(owner, spec)
			return zone, ref, err
		}
		ref, err = e.AssignRole(cmd.Context(), owner, spec)
		return zone, ref, err
	})
	cmd.Flags().Var(&life, "for", "how long it holds (default without end)")
	cmd.ValidArgsFunction = completeZones
	return cmd
}

// checkRole refuses a role that the zone does not have.
func (a *app) checkRole(e *engine.Engine, zone fcp.ZoneID, role string) error {
	anchors, err := e.Anchors(zone)
	if err != nil {
		return err
	}
	var known []string
	for i := range anchors {
		if anchors[i].What == "role" {
			known = append(known, anchors[i].Name)
		}
	}
	known = sortedOnce(known)
	if oneOf(role, known) {
		return nil
	}
	there := "it has none"
	if len(known) > 0 {
		there = "it has " + strings.Join(known, ", ")
	}
	return fcp.Errorf(fcp.CodeNotFound, "%s has no role %.80q, so nobody can be given it; %s", zone, role, there).
		WithNext("define it first: `" + a.command("zone", "role", zone.String(), role, "--allow", "CAPABILITY", "--identity", "FILE") + "`")
}
