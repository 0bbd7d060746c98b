package main

import (
	"cmp"
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"fcp"
	"fcp/engine"
	"fcp/node/api"
)

type pinOptions struct {
	zone   *zoneFlag
	device string
	prefix bool
	until  string
	wait   time.Duration
}

func (a *app) pinCommand() *cobra.Command {
	o := &pinOptions{}
	cmd := &cobra.Command{
		Use: "pin KEY|PREFIX/|ZONE", Short: "Keep names whole on a device, so that it reads them with nobody else there", Args: args(1, 1),
		Long: `pin has a device bring the present versions of a name, of all names below PREFIX/, or of a
whole ZONE, and keep them, those that are written later too, until --until or unpin. The
device's fcpd does it, whenever it meets the others. "complete" is what that device said
last, and as of when.`,
		Example:           "  fcpctl pin photos/ --device laptop\n  fcpctl pin z:work --device phone --until 2026-12-24\n  fcpctl pin notes/today --wait 1m\n  fcpctl pin ls",
		ValidArgsFunction: a.completeKeys,
		RunE:              func(cmd *cobra.Command, args []string) error { return a.setPin(cmd.Context(), o, args[0], false) },
	}
	o.flags(cmd)
	cmd.Flags().StringVar(&o.until, "until", "", "a time, or how long from now (12h, 90m); without it until unpin")
	cmd.Flags().DurationVar(&o.wait, "wait", 0, "wait so long until the device says that all is there")
	cmd.AddCommand(a.pinLsCommand())
	return cmd
}

func (o *pinOptions) flags(cmd *cobra.Command) {
	o.zone = zoneOption(cmd)
	cmd.Flags().StringVar(&o.device, "device", "", "name of the device (default this one)")
	cmd.Flags().BoolVar(&o.prefix, "prefix", false, "all names that begin so, also when it does not end in /")
}

func (a *app) unpinCommand() *cobra.Command {
	o := &pinOptions{}
	cmd := &cobra.Command{
		Use: "unpin KEY|PREFIX/|ZONE", Short: "Take a pin back", Args: args(1, 1),
		Long: "unpin takes a pin back. What is on the device stays there until it is in the way.",
		RunE: func(cmd *cobra.Command, args []string) error { return a.setPin(cmd.Context(), o, args[0], true) },
	}
	o.flags(cmd)
	return cmd
}

// scope says what an argument of pin means.
func (o *pinOptions) scope(what string) (p engine.Pin) {
	p = engine.Pin{Zone: fcp.ZoneID(*o.zone), Key: what, Prefix: o.prefix || strings.HasSuffix(what, "/")}
	if z := fcp.ZoneID(what); z.Valid() && !p.Prefix {
		p.Zone, p.Key, p.Prefix = z, "", true
	}
	p.Zone = cmp.Or(p.Zone, engine.DefaultZone)
	return p
}

func (a *app) setPin(ctx context.Context, o *pinOptions, what string, off bool) error {
	p := o.scope(what)
	p.Off = off
	if o.until != "" {
		until, err := a.futureTime(o.until)
		if err != nil {
			return err
		}
		p.Until = until
	}
	return a.withAny(ctx, writing, func(s api.Store) error {
		set, err := s.SetPin(ctx, p, o.device)
		if err != nil {
			return err
		}
		if o.wait > 0 {
			if err := a.awaitPinned(ctx, s, o.wait, &set); err != nil {
				return err
			}
		}
		rows, err := s.Pins()
		if err != nil {
			return err
		}
		row := api.PinRow{Name: o.device}
		row.Pin = set
		for _, r := range rows {
			if r.Zone == set.Zone && r.Key == set.Key && r.Prefix == set.Prefix && r.Device == set.Device {
				row = r
			}
		}
		v := viewPin(&row)
		return a.record("Pin", s.Position(), v, v.what(), field{"pinned", v.what()}, field{"zone", v.Zone.String()}, field{"device", v.Name},
			field{"until", v.Until}, field{"state", v.stateText()})
	})
}

// futureTime reads a time to come, or how long it is until then.
func (a *app) futureTime(s string) (time.Time, error) {
	now := a.now()
	if d, err := time.ParseDuration(s); err == nil && d > 0 {
		return now.Add(d), nil
	}
	for _, layout := range []string{time.RFC3339, time.DateOnly} {
		if t, err := time.Parse(layout, s); err == nil {
			if !t.After(now) {
				return t, fcp.Errorf(fcp.CodeInvalidArgument, "%s is over", s)
			}
			return t, nil
		}
	}
	return now, fcp.Errorf(fcp.CodeInvalidArgument, "%.40q is no time", s).WithNext("give one like 12h, 2026-12-24 or 2026-12-24T18:00:00Z")
}

func (a *app) awaitPinned(ctx context.Context, s api.Store, patience time.Duration, p *engine.Pin) error {
	r, ok := s.(*api.Remote)
	if !ok {
		return fcp.Errorf(fcp.CodeInvalidArgument, "--wait: no fcpd runs, so nothing is brought yet").
			WithNext("the pin is made; start the daemon with `" + a.command("up") + "`")
	}
	waiting, stop := context.WithTimeout(ctx, patience)
	defer stop()
	return r.WaitPinned(waiting, p.Zone, p.Key, p.Prefix)
}

// pinView is a pin as JSON.
type pinView struct {
	Zone    fcp.ZoneID `json:"zone"`
	Key     string     `json:"key"`
	Prefix  bool       `json:"prefix"`
	Device  string     `json:"device"`
	Name    string     `json:"name"`
	Until   string     `json:"until,omitempty"`
	Number  uint64     `json:"number"`
	State   string     `json:"state"`                // complete, partial, unknown: the device did not say, off
	At      string     `json:"as_of_time,omitempty"` // when the device said so
	Names   uint64     `json:"names"`                // under it
	Whole   uint64     `json:"whole"`                // of them, that are whole there
	Bytes   uint64     `json:"bytes"`                // of their payload
	Missing uint64     `json:"missing_bytes"`        // that are to be brought
}

func viewPin(r *api.PinRow) *pinView {
	v := &pinView{Zone: r.Zone, Key: r.Key, Prefix: r.Prefix, Device: r.Device.String(), Name: r.Name, Number: r.Number,
		State: "unknown", Names: r.Names, Whole: r.Whole, Bytes: r.Bytes, Missing: r.Missing}
	if !r.Until.IsZero() {
		v.Until = secondsText(r.Until)
	}
	switch {
	case r.Off:
		v.State = "off"
	case r.Complete():
		v.State = "complete"
	case r.Told:
		v.State = "partial"
	}
	if r.Told {
		v.At = timeText(r.At)
	}
	return v
}

// what is the pin as it was given.
func (v *pinView) what() string {
	switch {
	case v.Prefix && v.Key == "":
		return v.Zone.String()
	case v.Prefix && !strings.HasSuffix(v.Key, "/"):
		return v.Key + "*"
	}
	return v.Key
}

func (v *pinView) stateText() string {
	switch v.State {
	case "complete":
		return fmt.Sprintf("complete on %s as of %s, %d names", v.Name, v.At, v.Names)
	case "partial":
		return fmt.Sprintf("%d of %d names as of %s, %s to come", v.Whole, v.Names, v.At, sizeText(v.Missing))
	case "off":
		return "taken back"
	}
	return v.Name + " has not said how it stands"
}

func (a *app) pinLsCommand() *cobra.Command {
	return &cobra.Command{
		Use: "ls", Short: "The pins, by zone, name and device, and how each stands", Args: args(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withAny(cmd.Context(), reading, func(s api.Store) error {
				rows, err := s.Pins()
				if err != nil {
					return err
				}
				l := a.list("Pin", s.Position(), "WHAT", "ZONE", "DEVICE", "UNTIL", "STATE")
				for i := range rows {
					v := viewPin(&rows[i])
					if err := l.add(v, v.what(), v.what(), v.Zone.String(), v.Name, v.Until, v.stateText()); err != nil {
						return err
					}
				}
				return l.end(s.Position())
			})
		},
	}
}
