package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"fcp"
	"fcp/authority"
	"fcp/engine"
)

func (a *app) zoneCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "zone", Short: "Zones: levels, policies, checkpoints, network rules"}
	group(cmd)
	cmd.AddCommand(a.zoneListCommand(), a.zoneDefineCommand(), a.zonePolicyCommand(), a.zonePlacementCommand(), a.zoneACLCommand(), a.zoneRetainCommand(), a.zoneCheckpointCommand(),
		a.zoneAnchorsCommand(), a.zoneRekeyCommand(), a.zoneIssuersCommand(), a.zoneRoleCommand(), a.zoneAssignCommand())
	return cmd
}

// ageFlag is a length of time; days are written with d.
type ageFlag struct {
	time.Duration
	set bool
}

func (v *ageFlag) Type() string { return "AGE" }

func (v *ageFlag) String() string {
	if !v.set {
		return ""
	}
	return ageText(v.Duration)
}

func (v *ageFlag) Set(s string) error {
	d, err := parseAge(s)
	if err != nil {
		return err
	}
	v.Duration, v.set = d, true
	return nil
}

func parseAge(s string) (time.Duration, error) {
	bad := fmt.Errorf("not a length of time like 90d, 36h or 0s")
	if days, ok := strings.CutSuffix(s, "d"); ok {
		n, err := strconv.ParseUint(days, 10, 16)
		if err != nil {
			return 0, bad
		}
		return time.Duration(n) * 24 * time.Hour, nil
	}
	d, err := time.ParseDuration(s)
	if err != nil || d < 0 {
		return 0, bad
	}
	return d, nil
}

func ageText(d time.Duration) string {
	const day = 24 * time.Hour
	if d >= day && d%day == 0 {
		return decimal(uint64(d/day)) + "d"
	}
	return d.String()
}

// objectsFlag is a list of object ids.
type objectsFlag []fcp.ObjectID

func (v *objectsFlag) Type() string   { return "OBJECT" }
func (v *objectsFlag) String() string { return "" }

func (v *objectsFlag) Set(s string) error {
	id, err := fcp.ParseHash(s)
	if err != nil {
		return fmt.Errorf("not the id of an object, which `fcpctl object history -o json` shows")
	}
	*v = append(*v, fcp.ObjectID(id))
	return nil
}

// retentionView is a retention mark as JSON.
type retentionView struct {
	Zone     fcp.ZoneID `json:"zone"`
	Number   uint64     `json:"number"`
	Root     string     `json:"root"`
	Feeds    int        `json:"feeds"`
	History  string     `json:"history"`
	Versions uint64     `json:"versions"`
	Pins     int        `json:"pins"`
	Position uint64     `json:"position,omitempty"`
	DryRun   bool       `json:"dry_run,omitempty"`
}

type retainOptions struct {
	zone     string
	identity *identityOptions
	history  ageFlag
	versions int64
	pin      objectsFlag
	unpin    objectsFlag
	dryRun   bool
}

func (a *app) zoneRetainCommand() *cobra.Command {
	o := &retainOptions{}
	cmd := &cobra.Command{
		Use: "retain", Short: "Sign how far the zones reached and what is to be kept", Args: args(0, 0),
		Long: `retain signs, with the owner's identity, how far each zone reached: a retention mark. It is what
` + "`fcpctl segment compact`" + ` starts from: what nothing needs as of a checkpoint may be
dropped a day after it was signed, and without one nothing is ever dropped. It also
says what is kept besides the present versions; what is not said stays as the
checkpoint before had it (at first: a history of 90 days).`,
		Example: "  fcpctl zone retain --identity ~/fcp-identity --history 30d --versions 3",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withStore(cmd.Context(), openMode(!o.dryRun), func(e *engine.Engine) error { return a.retain(cmd.Context(), e, o) })
		},
	}
	o.identity = identityFlags(cmd, "identity file of the owner")
	f := cmd.Flags()
	f.StringVar(&o.zone, "zone", "", "this zone only")
	_ = cmd.RegisterFlagCompletionFunc("zone", completeZones)
	f.Var(&o.history, "history", "how long replaced and removed versions stay readable (90d, 36h, 0s)")
	f.Int64Var(&o.versions, "versions", -1, "how many of the newest replaced versions of each name stay whatever their age")
	f.Var(&o.pin, "pin", "an object that stays whatever happens to its names; may be repeated")
	f.Var(&o.unpin, "unpin", "an object that need not stay any more; may be repeated")
	dryRunFlag(cmd, &o.dryRun)
	return cmd
}

func (a *app) retain(ctx context.Context, e *engine.Engine, o *retainOptions) error {
	if o.identity.path == "" {
		return fcp.Errorf(fcp.CodeUnauthorized, "what is kept is signed by the owner").WithNext("name the identity file with --identity FILE")
	}
	owner, err := a.loadOwner(o.identity)
	if err != nil {
		return err
	}
	defer owner.Wipe()
	zones := e.Zones()
	if o.zone != "" {
		id, err := fcp.ParseZoneID(o.zone)
		if err != nil {
			return err
		}
		zones = []fcp.ZoneID{id}
	}
	l := a.list("Retention", e.Position(), "ZONE", "NUMBER", "HISTORY", "VERSIONS", "PINS", "ROOT")
	for _, zone := range zones {
		if err := a.retainZone(ctx, e, zone, owner, o, l); err != nil {
			return err
		}
	}
	if err := l.close(); err != nil {
		return err
	}
	if o.dryRun {
		a.note("dry run: nothing was written")
	} else {
		a.note("what nothing needs as of now may be dropped by `%s` a day from now", a.command("segment", "compact"))
	}
	a.answered(e.Position())
	return nil
}

func (a *app) retainZone(ctx context.Context, e *engine.Engine, zone fcp.ZoneID, owner *authority.OwnerKey, o *retainOptions, l *list) error {
	req := engine.CheckpointOptions{Owner: owner, Zones: []fcp.ZoneID{zone}, Pin: o.pin, Unpin: o.unpin, DryRun: o.dryRun}
	if o.history.set || o.versions >= 0 {
		kept, err := e.RetentionOf(zone)
		if err != nil {
			return err
		}
		if o.history.set {
			kept.History = o.history.Duration
		}
		if o.versions >= 0 {
			kept.Versions = uint64(o.versions)
		}
		req.Retention = &kept
	}
	out, err := e.Checkpoint(ctx, req)
	for _, r := range out {
		v := retentionView{r.Zone, r.Seq, r.Root.String(), r.Feeds, ageText(r.Retention.History), r.Retention.Versions, r.Pins, r.Position, o.dryRun}
		if err := l.add(v, v.Zone.String(), v.Zone.String(), decimal(v.Number), v.History, decimal(v.Versions), decimal(uint64(v.Pins)), a.short(v.Root)); err != nil {
			return err
		}
	}
	return err
}
