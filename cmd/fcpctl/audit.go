package main

import (
	"cmp"
	"context"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"fcp"
	"fcp/authority"
	"fcp/engine"
)

func (a *app) auditCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "audit", Short: "The audit trail: what was used, refused, revoked, changed"}
	group(cmd)
	cmd.AddCommand(a.auditTailCommand(), a.auditVerifyCommand(), a.auditHeadsCommand())
	return cmd
}

// auditView is one audit entry as JSON.
type auditView struct {
	Position  uint64     `json:"position"`
	Zone      fcp.ZoneID `json:"zone"`
	Type      string     `json:"type"`
	Actor     string     `json:"actor"`
	Connector string     `json:"connector,omitempty"`
	Operation string     `json:"operation,omitempty"`
	Reason    string     `json:"reason,omitempty"`
	Token     string     `json:"token,omitempty"` // ref of the last token of the chain
	Request   string     `json:"request,omitempty"`
	Result    string     `json:"result,omitempty"`
	Occurred  string     `json:"occurred"`
	Device    string     `json:"device"` // in whose feed it is
}

func viewAudit(r *engine.AuditRecord) auditView {
	return auditView{r.Position, r.Zone, string(r.Type), r.Actor, r.Connector.String(), r.Operation.String(), string(r.Reason), hashText(r.Token),
		hashText(r.Request), hashText(r.Result), secondsText(r.At), r.Writer.String()}
}

func (a *app) auditTailCommand() *cobra.Command {
	var zone, typ string
	var last int
	cmd := &cobra.Command{
		Use: "tail", Short: "The last audit entries", Args: args(0, 0),
		Example: "  fcpctl audit tail --type capability.denied -n 5",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if typ != "" && !slices.Contains(authority.AuditTypes(), authority.AuditType(typ)) {
				return fcp.Errorf(fcp.CodeInvalidArgument, "there are no audit entries of type %.40q", typ).WithNext("one of: " + strings.Join(auditTypes(), ", "))
			}
			return a.withStore(cmd.Context(), reading, func(e *engine.Engine) error { return a.auditTail(e, zone, typ, last) })
		},
	}
	f := cmd.Flags()
	f.StringVar(&zone, "zone", "", "this zone only")
	_ = cmd.RegisterFlagCompletionFunc("zone", completeZones)
	f.StringVar(&typ, "type", "", "entries of this type only")
	_ = cmd.RegisterFlagCompletionFunc("type", cobra.FixedCompletions(auditTypes(), cobra.ShellCompDirectiveNoFileComp))
	f.IntVarP(&last, "last", "n", 20, "how many; 0 for all")
	return cmd
}

func auditTypes() (out []string) {
	for _, t := range authority.AuditTypes() {
		out = append(out, string(t))
	}
	slices.Sort(out)
	return out
}

func (a *app) auditTail(e *engine.Engine, zone, typ string, last int) error {
	zones := e.Zones()
	if zone != "" {
		id, err := fcp.ParseZoneID(zone)
		if err != nil {
			return err
		}
		zones = []fcp.ZoneID{id}
	}
	var all []auditView
	for _, z := range zones {
		err := e.EachAudit(z, func(r *engine.AuditRecord) error {
			if typ == "" || string(r.Type) == typ {
				all = append(all, viewAudit(r))
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	slices.SortFunc(all, func(x, y auditView) int { return cmp.Compare(x.Position, y.Position) })
	if last > 0 && len(all) > last {
		all = all[len(all)-last:]
	}
	l := a.list("AuditEntry", e.Position(), "POSITION", "TIME", "ZONE", "TYPE", "ACTOR", "OPERATION", "REASON", "REQUEST")
	for _, v := range all {
		if err := l.add(v, v.Type, decimal(v.Position), v.Occurred, v.Zone.String(), v.Type, v.Actor, v.Operation, v.Reason, a.short(v.Request)); err != nil {
			return err
		}
	}
	return l.end(e.Position())
}

// auditReportView is what `audit verify` found, as JSON.
type auditReportView struct {
	Feeds    int              `json:"feeds"`
	Events   uint64           `json:"events"`
	Entries  uint64           `json:"entries"`
	Heads    int              `json:"heads"`
	Findings []auditFaultView `json:"findings"`
}

type auditFaultView struct {
	Code string `json:"code"`
	What string `json:"what"`
}

func (a *app) auditVerifyCommand() *cobra.Command {
	return &cobra.Command{
		Use: "verify", Short: "Check that no feed was written anew behind a head that somebody signed", Args: args(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withStore(cmd.Context(), reading, func(e *engine.Engine) error { return a.auditVerify(cmd.Context(), e) })
		},
	}
}

func (a *app) auditVerify(ctx context.Context, e *engine.Engine) error {
	r, err := e.VerifyAudit(ctx)
	if err != nil {
		return err
	}
	v := auditReportView{r.Feeds, r.Events, r.Entries, r.Heads, []auditFaultView{}}
	fields := []field{{"feeds", decimal(uint64(v.Feeds))}, {"events", decimal(v.Events)}, {"audit entries", decimal(v.Entries)}, {"signed heads", decimal(uint64(v.Heads))}}
	for _, f := range r.Findings {
		v.Findings = append(v.Findings, auditFaultView{f.Code.String(), f.What})
		fields = append(fields, field{"finding", f.Code.String() + " " + f.What})
	}
	if err := a.record("AuditReport", e.Position(), v, decimal(v.Entries), fields...); err != nil {
		return err
	}
	a.answered(e.Position())
	if len(r.Findings) > 0 {
		return fcp.Errorf(r.Findings[0].Code, "%d findings in the audit trail", len(r.Findings)).WithNext("keep a copy of the store: it is evidence; then see `" + a.command("log", "verify") + "`")
	}
	return nil
}

// headView is one signed head as JSON.
type headView struct {
	Zone      fcp.ZoneID `json:"zone"`
	Device    string     `json:"device"`
	Seq       uint64     `json:"seq"` // of the last event
	Hash      string     `json:"hash"`
	Root      string     `json:"root"`
	At        string     `json:"at"`
	Witnesses []string   `json:"witnesses"`
}

func viewHead(h *authority.AuditHead) headView {
	s := h.Spec()
	v := headView{s.Feed.Zone, s.Feed.Writer.String(), s.Size, s.Hash.String(), s.Root.String(), secondsText(s.At), []string{}}
	for _, w := range h.Witnesses() {
		v.Witnesses = append(v.Witnesses, w.String())
	}
	return v
}

func (a *app) auditHeadsCommand() *cobra.Command {
	var sign, dryRun bool
	cmd := &cobra.Command{
		Use: "heads", Short: "The signed heads of the feeds, and who witnessed them", Args: args(0, 0),
		Long: `heads lists how far each device's feed had come when it, or a witness, signed for it.
--sign signs the heads of this device's feeds now and puts them on record.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withStore(cmd.Context(), openMode(sign && !dryRun), func(e *engine.Engine) error { return a.auditHeads(cmd.Context(), e, sign, dryRun) })
		},
	}
	cmd.Flags().BoolVar(&sign, "sign", false, "sign the heads of this device's feeds now")
	dryRunFlag(cmd, &dryRun)
	return cmd
}

func (a *app) auditHeads(ctx context.Context, e *engine.Engine, sign, dryRun bool) error {
	if sign && dryRun {
		var planned []eventView
		for _, f := range e.Log().Feeds() {
			if f.Own && f.Feed.Plane == fcp.PlaneControl && f.Seq > 0 {
				planned = append(planned, eventView{Zone: f.Feed.Zone, Plane: fcp.PlaneControl.String(), Kind: fcp.KindAuditHead.String()})
			}
		}
		return a.printPlanned(planned)
	}
	l := a.list("AuditHead", e.Position(), "ZONE", "DEVICE", "SIZE", "TIME", "WITNESSES", "ROOT")
	add := func(h *authority.AuditHead) error {
		v := viewHead(h)
		return l.add(v, v.Hash, v.Zone.String(), a.short(v.Device), decimal(v.Seq), v.At, decimal(uint64(len(v.Witnesses))), a.short(v.Root))
	}
	if sign {
		heads, err := e.RecordHeads(ctx)
		if err != nil {
			return err
		}
		for _, h := range heads {
			if err := add(h); err != nil {
				return err
			}
		}
	} else {
		for _, z := range e.Zones() {
			if err := e.EachHead(z, add); err != nil {
				return err
			}
		}
	}
	return l.end(e.Position())
}
