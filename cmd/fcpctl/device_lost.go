package main

import (
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"fcp"
	"fcp/authority"
	"fcp/cmd/internal/daemon"
	"fcp/engine"
	"fcp/node/api"
)

// lossView is what a loss did, as JSON.
type lossView struct {
	Device   string           `json:"device"`
	Name     string           `json:"name"`
	Rotated  []fcp.ZoneID     `json:"rotated"` // zones with new keys
	Revoked  []string         `json:"revoked"` // refs of the revocations
	Feeds    int              `json:"feeds"`   // cut where they stand here
	Secrets  []lostSecretView `json:"secrets"` // of which it had a share
	Settled  []fcp.ZoneID     `json:"settled"` // zones with a new checkpoint of the members that are left
	Repaired *repairedView    `json:"repaired,omitempty"`
	// Of each other device: after how many milliseconds the last of the revocations was
	// there; of those that it has not reached nothing.
	Arrived map[string]float64 `json:"arrived_ms,omitempty"`
	Missing string             `json:"missing,omitempty"` // whom the revocations did not reach in time
	DryRun  bool               `json:"dry_run,omitempty"`
}

type lostSecretView struct {
	Name     string     `json:"name"`
	Zone     fcp.ZoneID `json:"zone"`
	Reshared bool       `json:"reshared"`
	Version  uint64     `json:"version"` // of the sharing in force
	Why      string     `json:"why,omitempty"`
	Next     string     `json:"next"`
}

type repairedView struct {
	Segments int `json:"segments"`
	Left     int `json:"left"` // that could not be repaired now
}

type lossOptions struct {
	identity    *identityOptions
	reason      string
	from        []string
	wait        time.Duration
	yes, dryRun bool
}

func (a *app) deviceLostCommand() *cobra.Command {
	o := &lossOptions{}
	cmd := &cobra.Command{
		Use: "lost NAME|ID", Short: "Take a lost device out: revoke it, rotate its keys, share secrets again, repair", Args: args(1, 1),
		Long: `lost revokes a device in every zone and cuts its feeds where they stand here: its honest
past stays valid, and nothing that a finder writes counts. Every zone key that it had
is replaced. Secrets of which it had a share are shared again without it, as far as
enough shares are in reach (this device's own, and those of the devices that fcpd
reaches or of --from); the others are named with what to do. Where fcpd runs, the
symbols that it held are made again at once, and the answer says after what time each
other device had the revocation. Every device shows an alert.`,
		Example:           "  fcpctl device lost laptop --identity ~/fcp-identity --reason 'left in the train' --yes",
		ValidArgsFunction: a.completeDevices,
		RunE:              func(cmd *cobra.Command, args []string) error { return a.deviceLost(cmd.Context(), o, args[0]) },
	}
	o.identity = identityFlags(cmd, "identity file of the owner")
	cmd.Flags().StringVar(&o.reason, "reason", "", "your words, for whoever asks why")
	cmd.Flags().DurationVar(&o.wait, "wait", 10*time.Second, "how long to wait until every device has the revocation; needs fcpd")
	fromOption(cmd, &o.from)
	yesFlag(cmd, &o.yes)
	dryRunFlag(cmd, &o.dryRun)
	return cmd
}

// deviceLost revokes first. Where fcpd runs, it has the store again after that and
// gathers the shares of what was shared with the device over the mesh.
func (a *app) deviceLost(ctx context.Context, o *lossOptions, name string) error {
	owner, err := a.ownerFor(o.identity, "a loss")
	if err != nil {
		return err
	}
	defer owner.Wipe()
	l := &loss{app: a, o: o, owner: owner}
	if err := a.withStore(ctx, openMode(!o.dryRun), func(e *engine.Engine) error { return l.takeOut(ctx, e, name) }); err != nil {
		return err
	}
	if o.dryRun {
		return a.printLoss(&l.view, l.asOf)
	}
	r, err := a.daemon(ctx)
	if len(l.shared) > 0 && err == nil {
		if r != nil {
			l.gather(ctx, r)
		}
		err = a.withStore(ctx, writing, func(e *engine.Engine) error { return l.reshare(ctx, e, l.near) })
	}
	if err == nil && r != nil {
		err = a.afterLoss(ctx, r, o.wait, &l.view)
	}
	return errors.Join(err, a.printLoss(&l.view, l.asOf))
}

// loss is the loss of a device on its way through the commands.
type loss struct {
	*app
	o      *lossOptions
	owner  *authority.OwnerKey
	device *engine.Member
	view   lossView
	asOf   uint64

	shared []engine.SecretState         // still to be shared anew
	near   gathered                     // what rebuilds them
	why    map[authority.SecretID]error // of those that were not gathered
}

// takeOut does what is done in the store alone.
func (l *loss) takeOut(ctx context.Context, e *engine.Engine, name string) (err error) {
	if l.device, err = l.findDevice(e, name); err != nil {
		return err
	}
	m, v := l.device, &l.view
	*v = lossView{Device: m.Writer.String(), Name: m.Name, Rotated: []fcp.ZoneID{}, Revoked: []string{}, Secrets: []lostSecretView{}, Settled: []fcp.ZoneID{}, DryRun: l.o.dryRun}
	defer func() { l.asOf = e.Position() }()
	if l.o.dryRun {
		return nil
	}
	if err := l.confirm(l.o.yes, "this takes "+m.Name+" out for good."); err != nil {
		return err
	}
	r, err := e.DeviceLost(ctx, l.owner, m.Writer, l.o.reason)
	if err != nil {
		return err
	}
	v.Rotated, v.Feeds = append(v.Rotated, r.Zones...), r.Feeds
	for _, h := range r.Revoked {
		v.Revoked = append(v.Revoked, h.String())
	}
	pid, err := daemon.Process(l.flags.dir)
	switch {
	case err != nil:
		return err
	case pid != 0 && len(l.o.from) == 0:
		l.shared, err = e.SharedWith(m.Writer)
	default:
		err = l.reshareFrom(ctx, e)
	}
	if err != nil {
		return err
	}
	settled, err := e.SettleAfterLoss(ctx, l.owner)
	v.Settled = append(v.Settled, settled...)
	return err
}

// gather has fcpd gather the shares of what is to be shared anew.
func (l *loss) gather(ctx context.Context, r *api.Remote) {
	l.near, l.why = gathered{}, map[authority.SecretID]error{}
	for _, s := range l.shared {
		if err := l.gatherFor(ctx, r, l.owner, s.Zone, hex.EncodeToString(s.ID[:]), l.near); err != nil {
			l.why[s.ID] = err
		}
	}
}

// reshareFrom takes shares from the stores in other directories, whose daemons step
// aside meanwhile.
func (l *loss) reshareFrom(ctx context.Context, e *engine.Engine) (err error) {
	for _, dir := range l.o.from {
		release, err := l.borrow(ctx, dir)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, release()) }()
	}
	stores, err := l.openSources(ctx, e, l.o.from, false)
	if err != nil {
		return err
	}
	return stores.close(l.reshare(ctx, e, stores))
}

// reshare shares secrets anew without the device.
func (l *loss) reshare(ctx context.Context, e *engine.Engine, sources engine.ShareSource) error {
	secrets, err := e.ReshareAfterLoss(ctx, l.owner, l.device.Writer, sources)
	l.asOf = e.Position()
	if err != nil {
		return err
	}
	for _, s := range secrets {
		rotate := l.command("secret", "put", "--rotate", s.Before.Name, "FILE", "--identity", "FILE")
		x := lostSecretView{Name: s.Before.Name, Zone: s.Before.Zone, Reshared: s.Reshared, Version: s.Version,
			Next: "if " + l.device.Name + " may have learned it, give it another value: " + rotate}
		if s.Err != nil {
			x.Why = cmp.Or(l.why[s.Before.ID], s.Err).Error()
			x.Next = "when more of the devices that hold a share are there: " + l.command("secret", "reshare", s.Before.Name, "--identity", "FILE") +
				"; or give it another value: " + rotate
		}
		l.view.Secrets = append(l.view.Secrets, x)
	}
	return nil
}

// afterLoss has the running node repair, and waits for the others to hear of it.
func (a *app) afterLoss(ctx context.Context, r *api.Remote, patience time.Duration, v *lossView) error {
	waiting, stop := context.WithTimeout(ctx, patience)
	defer stop()
	for _, text := range v.Revoked {
		ref, err := fcp.ParseHash(text)
		if err != nil {
			return err
		}
		if err := r.Wait(waiting, api.WaitRevocation, ref); err != nil {
			if ctx.Err() != nil || !errors.Is(err, fcp.CodeTimeout) {
				return err
			}
			v.Missing = err.Error()
			break
		}
	}
	st, err := r.Client().Status(ctx)
	if err != nil {
		return err
	}
	v.Arrived = map[string]float64{}
	seen := map[string]int{}
	for _, arrival := range st.Arrivals {
		for _, ref := range v.Revoked {
			if arrival.Ref != ref {
				continue
			}
			for name, ms := range arrival.Seen {
				v.Arrived[name] = max(v.Arrived[name], ms)
				seen[name]++
			}
		}
	}
	for name, n := range seen {
		if n < len(v.Revoked) {
			delete(v.Arrived, name)
		}
	}
	delete(v.Arrived, v.Name)
	steps, err := r.Client().Repair(ctx, false, false, false)
	if err != nil {
		return err
	}
	v.Repaired = &repairedView{}
	for _, s := range steps {
		if s.Done {
			v.Repaired.Segments++
		} else {
			v.Repaired.Left++
		}
	}
	return nil
}

func (a *app) printLoss(v *lossView, asOf uint64) error {
	fields := []field{{"device", v.Device}, {"name", v.Name}, {"revoked in", decimal(uint64(len(v.Revoked))) + " zones"},
		{"feeds cut", decimal(uint64(v.Feeds))}, {"new keys for", joinZones(v.Rotated)}}
	for _, s := range v.Secrets {
		how := fmt.Sprintf("%s in %s has new shares, version %d", s.Name, s.Zone, s.Version)
		if !s.Reshared {
			how = fmt.Sprintf("%s in %s has NO new shares: %s", s.Name, s.Zone, s.Why)
		}
		fields = append(fields, field{"secret", how}, field{"next", s.Next})
	}
	if len(v.Settled) > 0 {
		fields = append(fields, field{"settled", joinZones(v.Settled)})
	}
	if v.Repaired != nil {
		fields = append(fields, field{"repaired", fmt.Sprintf("%d segments here, %d left to the next rounds", v.Repaired.Segments, v.Repaired.Left)},
			field{"arrived", arrivedText(v.Arrived)})
	}
	if v.Missing != "" {
		fields = append(fields, field{"not yet", v.Missing})
	}
	return a.answer("Loss", asOf, v, v.Device, fields...)
}

// alertFor is how long status shows the loss of a device.
const alertFor = 7 * 24 * time.Hour

// freshAlert is what status says of the last loss of a device.
func (a *app) freshAlert(list []engine.Alert) (string, bool) {
	for _, x := range list {
		if a.now().Sub(x.At) < alertFor {
			return "ALERT: " + alertText(&x) + ", see `" + a.command("why", x.Device.String()[:16]) + "`", true
		}
	}
	return "", false
}

func alertText(x *engine.Alert) string {
	name := x.Name
	if name == "" {
		name = x.Device.String()[:16]
	}
	s := name + " was declared lost at " + secondsText(x.At)
	if x.Reason != "" {
		s += ": " + x.Reason
	}
	return s
}

// alertView is the loss of a device as JSON.
type alertView struct {
	Device     string `json:"device"`
	Name       string `json:"name,omitempty"`
	Lost       string `json:"lost"` // when the owner said so
	Reason     string `json:"reason"`
	Revocation string `json:"revocation"`
	Secrets    string `json:"next"`
}

// whyAlert explains the loss of a device, if that is what is asked for.
func (a *app) whyAlert(ctx context.Context, e api.Store, what string) (found bool, err error) {
	o, err := e.Overview(ctx, false)
	if err != nil {
		return false, err
	}
	for _, x := range o.Alerts {
		digits := len(what) >= engine.MinHashPrefix
		if x.Name != what && !(digits && (strings.HasPrefix(x.Device.String(), what) || strings.HasPrefix(x.Ref.String(), what))) {
			continue
		}
		v := alertView{Device: x.Device.String(), Name: x.Name, Lost: secondsText(x.At), Reason: x.Reason, Revocation: x.Ref.String(),
			Secrets: "see which secrets it had a share of with " + a.command("secret", "ls")}
		err := a.record("Alert", e.Position(), v, v.Device, field{"alert", alertText(&x)}, field{"device", v.Device}, field{"revocation", v.Revocation},
			field{"means", "its keys count no more, its feeds are cut where they stood, the keys of its zones are new, and its symbols are made again"},
			field{"next", v.Secrets})
		if err == nil {
			a.answered(e.Position())
		}
		return true, err
	}
	return false, nil
}
