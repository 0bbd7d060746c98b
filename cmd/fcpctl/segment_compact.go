package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"fcp"
	"fcp/engine"
)

// compactView is the outcome of a compaction, or its plan, as JSON.
type compactView struct {
	DryRun   bool              `json:"dry_run"`
	Events   uint64            `json:"events"`   // whose bodies are dropped
	Bytes    uint64            `json:"bytes"`    // of those bodies
	Replaced int               `json:"replaced"` // segments
	Into     int               `json:"into"`     // segments in their place
	Before   uint64            `json:"before"`   // bytes of the replaced segments
	After    uint64            `json:"after,omitempty"`
	Trimmed  uint64            `json:"trimmed,omitempty"` // history entries below the horizon
	Capped   bool              `json:"capped"`
	Zones    []compactZoneView `json:"zones"`
	Millis   int64             `json:"elapsed_ms"`
}

type compactZoneView struct {
	Zone       fcp.ZoneID       `json:"zone"`
	Skipped    string           `json:"skipped,omitempty"`
	Checkpoint uint64           `json:"retention_mark,omitempty"` // number
	WaitsFor   []string         `json:"waits_for,omitempty"`      // devices that acknowledged no newer mark
	Horizon    uint64           `json:"horizon,omitempty"`        // first position that can be read afterwards
	HorizonAt  string           `json:"horizon_at,omitempty"`
	Versions   uint64           `json:"versions"` // that stay
	Segments   int              `json:"segments"`
	Garbage    uint64           `json:"garbage"` // bytes that nothing keeps
	Runs       []compactRunView `json:"runs,omitempty"`
}

type compactRunView struct {
	First    uint64   `json:"first"`
	Last     uint64   `json:"last"`
	Events   uint64   `json:"events"`
	Bytes    uint64   `json:"bytes"`
	Segments []string `json:"segments"`
}

func viewCompact(r *engine.CompactResult) compactView {
	v := compactView{DryRun: r.DryRun, Events: r.Events, Bytes: r.Bytes, Replaced: r.Segments, Into: r.Into, Before: r.Before, After: r.After,
		Trimmed: r.Trimmed, Capped: r.Capped, Zones: []compactZoneView{}, Millis: r.Elapsed.Milliseconds()}
	for _, z := range r.Zones {
		zv := compactZoneView{Zone: z.Zone, Skipped: z.Skipped, Checkpoint: z.Checkpoint, WaitsFor: z.WaitsFor, Horizon: z.Horizon, Versions: z.Versions, Segments: z.Segments, Garbage: z.Garbage}
		if z.Horizon > 0 {
			zv.HorizonAt = timeText(z.HorizonAt)
		}
		for _, run := range z.Runs {
			rv := compactRunView{First: run.First, Last: run.Last, Events: run.Events, Bytes: run.Bytes}
			for _, id := range run.Segments {
				rv.Segments = append(rv.Segments, id.String())
			}
			zv.Runs = append(zv.Runs, rv)
		}
		v.Zones = append(v.Zones, zv)
	}
	return v
}

func (a *app) segmentCompactCommand() *cobra.Command {
	var (
		o      engine.CompactOptions
		zone   string
		grace  ageFlag
		dryRun bool
	)
	cmd := &cobra.Command{
		Use: "compact", Aliases: []string{"gc"}, Short: "Give back the space of what nothing keeps", Args: args(0, 0),
		Long: `compact copies what is kept out of segments that are partly garbage and drops the
rest: bodies of versions that were replaced or removed longer ago than the zone's
history, and of uploads that never came to a name. Names, events and every proof
stay. It needs a retention mark that the owner signed at least a day ago (see
` + "`fcpctl zone retain`" + `) and that every device of the zone acknowledged, those
declared lost aside; without one it drops nothing and says for whom it waits. Afterwards reads as of
positions below the horizon fail and name it. --dry-run says exactly what would go.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if zone != "" {
				id, err := fcp.ParseZoneID(zone)
				if err != nil {
					return err
				}
				o.Zones = []fcp.ZoneID{id}
			}
			o.DryRun, o.Grace = dryRun, grace.Duration
			return a.withStore(cmd.Context(), openMode(!dryRun), func(e *engine.Engine) error { return a.compact(cmd.Context(), e, o) })
		},
	}
	f := cmd.Flags()
	f.StringVar(&zone, "zone", "", "this zone only")
	_ = cmd.RegisterFlagCompletionFunc("zone", completeZones)
	f.Uint64Var(&o.MaxBytes, "max-bytes", 0, "drop at most so many bytes (default a quarter of all bodies, at least 64 MiB)")
	f.IntVar(&o.MinGarbage, "min-garbage", 25, "rewrite segments that are garbage to so many percent")
	f.Var(&grace, "grace", "how old a retention mark must be; at least a day")
	dryRunFlag(cmd, &dryRun)
	return cmd
}

func (a *app) compact(ctx context.Context, e *engine.Engine, o engine.CompactOptions) error {
	p := a.progress("compact", inBytes)
	o.Progress = tellEngine(p)
	r, err := e.Compact(ctx, o)
	p.done()
	if err != nil {
		return err
	}
	v := viewCompact(&r)
	would := ""
	if r.DryRun {
		would = "would be "
	}
	fields := []field{
		{would + "dropped", fmt.Sprintf("%d bodies, %d bytes", v.Events, v.Bytes)},
		{would + "replaced", fmt.Sprintf("%d segments of %d bytes, by %d", v.Replaced, v.Before, v.Into)},
	}
	for _, z := range v.Zones {
		if len(z.WaitsFor) > 0 && z.Skipped == "" {
			fields = append(fields, field{z.Zone.String(), "a newer retention mark waits for " + strings.Join(z.WaitsFor, ", ")})
		}
		switch {
		case z.Skipped != "":
			fields = append(fields, field{z.Zone.String(), "skipped: " + z.Skipped})
		case z.Horizon > 0:
			fields = append(fields, field{z.Zone.String(), fmt.Sprintf("retention mark %d, horizon at position %d (%s)", z.Checkpoint, z.Horizon, z.HorizonAt)})
		default:
			fields = append(fields, field{z.Zone.String(), fmt.Sprintf("retention mark %d, nothing worth a rewrite, %d bytes of garbage", z.Checkpoint, z.Garbage)})
		}
	}
	if err := a.record("Compaction", e.Position(), v, decimal(v.Bytes), fields...); err != nil {
		return err
	}
	if v.Capped {
		a.note("the cap was reached: there is more; run it again, or raise --max-bytes")
	}
	if r.DryRun {
		a.note("dry run: nothing was written")
	}
	a.answered(e.Position(), fmt.Sprintf("%d ms", v.Millis))
	return nil
}
