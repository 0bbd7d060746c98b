package main

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"fcp"
	"fcp/authority"
	"fcp/engine"
	"fcp/node/api"
)

func (a *app) leaseCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "lease", Short: "Who may use a thing until when, under which fence"}
	group(cmd)
	cmd.AddCommand(a.leaseListCommand(), a.leaseShowCommand(), a.leaseTakeCommand(false), a.leaseTakeCommand(true), a.leaseReleaseCommand())
	return cmd
}

// leaseView is one lease as JSON.
type leaseView struct {
	Ref        string      `json:"ref,omitempty"`
	ID         string      `json:"id,omitempty"` // what a connector state names as its lease
	Zone       fcp.ZoneID  `json:"zone"`
	Subject    string      `json:"subject"`
	Purpose    string      `json:"purpose"`
	Holder     string      `json:"holder"`
	Own        bool        `json:"own"`       // held by this device
	LeaseSeq   uint64      `json:"lease_seq"` // the fence
	Checkpoint uint64      `json:"checkpoint"`
	From       string      `json:"from"`
	Until      string      `json:"until"`
	State      string      `json:"state"` // held, expired, released, superseded; planned
	Signers    []string    `json:"signers"`
	Position   uint64      `json:"position,omitempty"`
	DryRun     bool        `json:"dry_run,omitempty"`
	Planned    []eventView `json:"planned,omitempty"`
}

func viewLease(l *authority.UnverifiedLease, own bool, state string) leaseView {
	s := l.Spec()
	return leaseView{Ref: l.Ref().String(), Zone: s.Zone, Subject: s.Subject.String(), Purpose: string(s.Purpose), Holder: s.Holder.String(),
		Own: own, LeaseSeq: uint64(s.Fence), Checkpoint: s.Fence.Checkpoint(), From: secondsText(s.From), Until: secondsText(s.Until),
		State: state, Signers: l.Signers()}
}

// leaseState says what became of a lease. newer: one with a higher fence is there.
func (a *app) leaseState(l *api.Lease, newer bool) string {
	switch {
	case newer:
		return "superseded"
	case l.Released:
		return "released"
	case !a.now().Before(l.Spec().Until):
		return "expired"
	}
	return "held"
}

func (a *app) viewLeaseState(l *api.Lease, newer bool) leaseView {
	v := viewLease(l.UnverifiedLease, l.Own, a.leaseState(l, newer))
	v.ID, v.Position = l.ID.String(), l.Position
	return v
}

func (v *leaseView) fields() []field {
	return []field{{"lease", v.Ref}, {"zone", v.Zone.String()}, {"subject", v.Subject}, {"purpose", v.Purpose}, {"state", v.State}, {"holder", v.Holder},
		{"fence", decimal(v.LeaseSeq)}, {"from", v.From}, {"until", v.Until}, {"signed by", strings.Join(v.Signers, ", ")}}
}

type thingOptions struct {
	zone    *zoneFlag
	purpose string
}

func thingFlags(cmd *cobra.Command) *thingOptions {
	o := &thingOptions{zone: zoneOption(cmd)}
	var purposes []string
	for _, p := range authority.LeasePurposes() {
		purposes = append(purposes, string(p))
	}
	cmd.Flags().StringVar(&o.purpose, "purpose", string(authority.LeaseResource), "what for: "+strings.Join(purposes, ", "))
	_ = cmd.RegisterFlagCompletionFunc("purpose", cobra.FixedCompletions(purposes, cobra.ShellCompDirectiveNoFileComp))
	return o
}

// request names the thing: 64 hex digits are an object id, anything else a name.
func (o *thingOptions) request(subject string) api.LeaseRequest {
	return api.LeaseRequest{Zone: fcp.ZoneID(*o.zone), Purpose: authority.LeasePurpose(o.purpose), Subject: subject}
}

func (a *app) leaseListCommand() *cobra.Command {
	var zone string
	var all bool
	cmd := &cobra.Command{
		Use: "ls", Short: "The leases that this device knows", Args: args(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withAny(cmd.Context(), reading, func(e api.Store) error { return a.listLeases(cmd.Context(), e, zone, all) })
		},
	}
	cmd.Flags().StringVar(&zone, "zone", "", "this zone only")
	_ = cmd.RegisterFlagCompletionFunc("zone", completeZones)
	cmd.Flags().BoolVar(&all, "all", false, "also those that a newer one superseded")
	return cmd
}

func (a *app) listLeases(ctx context.Context, e api.Store, zone string, all bool) error {
	var q api.LeaseRequest
	if zone != "" {
		var err error
		if q.Zone, err = fcp.ParseZoneID(zone); err != nil {
			return err
		}
	}
	var views []leaseView
	var last authority.Thing
	err := e.Leases(ctx, q, func(x *api.Lease) error {
		newer := x.Spec().Thing == last
		last = x.Spec().Thing
		if !newer || all {
			views = append(views, a.viewLeaseState(x, newer))
		}
		return nil
	})
	if err != nil {
		return err
	}
	slices.SortStableFunc(views, func(x, y leaseView) int {
		return cmp.Or(cmp.Compare(x.Zone, y.Zone), cmp.Compare(x.Position, y.Position))
	})
	l := a.list("Lease", e.Position(), "FENCE", "STATE", "UNTIL", "HOLDER", "PURPOSE", "ZONE", "SUBJECT")
	for _, v := range views {
		if err := l.add(v, v.Ref, decimal(v.LeaseSeq), v.State, v.Until, a.short(v.Holder), v.Purpose, v.Zone.String(), a.short(v.Subject)); err != nil {
			return err
		}
	}
	return l.end(e.Position())
}

// leaseShowView is the lease of a thing with what came before, as JSON.
type leaseShowView struct {
	leaseView
	LetThrough uint64      `json:"let_through"` // the highest fence that this device, as the sink, let through to an effect
	Why        string      `json:"why"`         // what the state means for who held it
	Earlier    []leaseView `json:"earlier"`     // the highest fence first
}

func (a *app) leaseShowCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "show SUBJECT", Short: "The lease of a thing, why it is held or lost, and those before it", Args: args(1, 1),
		Long: `show says who has the lease of SUBJECT, and of each earlier one how it ended. SUBJECT
is an object id (64 hex digits) or a name.`,
	}
	o := thingFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return a.withAny(cmd.Context(), reading, func(e api.Store) error { return a.showLease(cmd.Context(), e, o.request(args[0])) })
	}
	return cmd
}

func (a *app) showLease(ctx context.Context, e api.Store, q api.LeaseRequest) error {
	v := leaseShowView{Earlier: []leaseView{}}
	var now *api.Lease
	err := e.Leases(ctx, q, func(x *api.Lease) error {
		if now == nil {
			now, v.leaseView = x, a.viewLeaseState(x, false)
		} else {
			v.Earlier = append(v.Earlier, a.viewLeaseState(x, true))
		}
		return nil
	})
	if err != nil {
		return err
	}
	if now == nil {
		return fcp.Errorf(fcp.CodeNotFound, "no lease of %.40q for %s", q.Subject, q.Purpose).WithNext("see the leases with `fcpctl lease ls --all`")
	}
	through, err := e.LetThrough(ctx, q)
	if err != nil {
		return err
	}
	v.LetThrough = uint64(through)
	switch device := v.Holder[:16]; v.State {
	case "held":
		v.Why = "device " + device + " has it; effects under a fence below " + decimal(v.LeaseSeq) + " are refused"
	case "released":
		v.Why = "device " + device + " gave it back; anybody may acquire it"
	default:
		v.Why = "device " + device + " had it until " + v.Until + "; it alone may renew it before " + secondsText(now.Spec().Until.Add(authority.MaxSkew))
	}
	fields := append(v.fields(), field{"let through", decimal(v.LetThrough)}, field{"why", v.Why})
	for _, x := range v.Earlier {
		fields = append(fields, field{"before", "fence " + decimal(x.LeaseSeq) + ", device " + x.Holder[:16] + ", until " + x.Until})
	}
	return a.answer("LeaseHistory", e.Position(), v, v.Ref, fields...)
}

// leaseTakeCommand is acquire, or renew, which needs the lease.
func (a *app) leaseTakeCommand(renew bool) *cobra.Command {
	life, dryRun := ageFlag{Duration: time.Minute}, false
	cmd := &cobra.Command{
		Use: "acquire SUBJECT", Short: "Get a lease of a thing for this device", Args: args(1, 1),
		Long: `acquire gets this device the lease of SUBJECT: an object id (64 hex digits) or a name.
A quorum of the zone's members signs it: where fcpd runs it asks them over the mesh;
without it there is this device alone, which suffices where it is the only member. The
fence that it prints goes with every effect: a sink refuses lower ones.`,
		Example: "  fcpctl lease acquire mailbox --for 10m",
	}
	if renew {
		cmd.Use, cmd.Short, cmd.Example = "renew SUBJECT", "Get a lease that this device has for longer, under a higher fence", "  fcpctl lease renew mailbox --for 10m"
		cmd.Long = "renew is acquire for who has the lease now; when it was lost it fails, with exit code 8, and takes nothing."
	}
	o := thingFlags(cmd)
	cmd.Flags().Var(&life, "for", "how long, 1s to 24h (default 1m)")
	dryRunFlag(cmd, &dryRun)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		q := o.request(args[0])
		q.For, q.Renew = life.Duration, renew
		if dryRun {
			return a.withStore(cmd.Context(), reading, func(e *engine.Engine) error { return a.planLease(e, &q) })
		}
		return a.withAny(cmd.Context(), writing, func(e api.Store) error {
			l, err := e.AcquireLease(cmd.Context(), q)
			if _, alone := e.(api.Local); alone {
				err = advise(err, fcp.CodeNoQuorum, "fcpd asks the other devices: `"+a.command("up")+"`, then repeat")
			}
			if err != nil {
				return err
			}
			v := a.viewLeaseState(l, false)
			return a.answer("Lease", e.Position(), v, v.Ref, v.fields()...)
		})
	}
	return cmd
}

// planLease says which lease this device would ask for, if it alone were to sign.
func (a *app) planLease(e *engine.Engine, q *api.LeaseRequest) error {
	t, err := e.LeaseThing(q.Zone, q.Purpose, q.Subject)
	if err != nil {
		return err
	}
	if q.Renew {
		if _, err := e.OwnLease(t); err != nil {
			return err
		}
	}
	r, err := e.RequestLease(t, q.For)
	if err != nil {
		return err
	}
	l, err := e.ProposeLease(r, 0)
	if err == nil {
		err = e.JudgeLease(r, l)
	}
	if err != nil {
		return err
	}
	v := viewLease(l, true, "planned")
	v.DryRun, v.Planned = true, []eventView{{Zone: t.Zone, Plane: fcp.PlaneLocal.String(), Kind: fcp.KindLeasePromised.String()},
		{Zone: t.Zone, Plane: fcp.PlaneControl.String(), Kind: fcp.KindLeaseGranted.String()}}
	if a.flags.format == formatTable {
		return a.printPlanned(v.Planned)
	}
	return a.answer("Lease", e.Position(), v, v.Ref, v.fields()...)
}

func (a *app) leaseReleaseCommand() *cobra.Command {
	dryRun, upTo := false, uint64(0)
	cmd := &cobra.Command{
		Use: "release SUBJECT", Short: "Give a lease back, so that others need not wait for its end", Args: args(1, 1),
		Example: "  fcpctl lease release mailbox",
	}
	o := thingFlags(cmd)
	cmd.Flags().Uint64Var(&upTo, "fence", 0, "fail unless this is the fence of the lease")
	dryRunFlag(cmd, &dryRun)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		q := o.request(args[0])
		q.Fence, q.DryRun = authority.Fence(upTo), dryRun
		return a.withAny(cmd.Context(), openMode(!dryRun), func(e api.Store) error {
			l, err := e.ReleaseLease(cmd.Context(), q)
			if err != nil {
				return err
			}
			v := a.viewLeaseState(l, false)
			v.State = "released"
			if v.DryRun = dryRun; dryRun {
				v.Planned = []eventView{{Zone: v.Zone, Plane: fcp.PlaneControl.String(), Kind: fcp.KindLeaseReleased.String()}}
				if a.flags.format == formatTable {
					return a.printPlanned(v.Planned)
				}
			}
			return a.answer("Lease", e.Position(), v, v.Ref, v.fields()...)
		})
	}
	return cmd
}
