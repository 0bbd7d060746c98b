package main

import (
	"context"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"fcp"
	"fcp/node/api"
)

func (a *app) statusCommand() *cobra.Command {
	var root bool
	cmd := &cobra.Command{
		Use: "status", Short: "What is in the store, and what to do next", Args: args(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withAny(cmd.Context(), reading, func(e api.Store) error { return a.printStatus(cmd.Context(), e, root) })
		},
	}
	cmd.Flags().BoolVar(&root, "root", false, "the state root too, which takes longer in a large store")
	return cmd
}

type zoneView struct {
	Zone    fcp.ZoneID `json:"zone"`
	HasKeys bool       `json:"has_keys"`
	Control uint64     `json:"control"`
	Data    uint64     `json:"data"`
}

// statusView is the state of a store as JSON.
type statusView struct {
	Dir         string     `json:"dir"`
	Format      int        `json:"format"`
	Owner       string     `json:"owner"`
	Writer      string     `json:"writer"`
	Device      string     `json:"device"`
	Incarnation string     `json:"incarnation"`
	Position    uint64     `json:"position"`
	Applied     uint64     `json:"applied"`
	Flushed     uint64     `json:"flushed"`
	Zones       []zoneView `json:"zones"`
	Feeds       []feedView `json:"feeds"`
	Segments    int        `json:"segments"`
	Unsealed    uint64     `json:"unsealed"` // events a seal would seal
	StateRoot   string     `json:"state_root,omitempty"`
	Health      string     `json:"health"`
	Next        string     `json:"next"`
	Mesh        *meshView  `json:"mesh,omitempty"` // only when fcpd runs
}

func (a *app) printStatus(ctx context.Context, e api.Store, root bool) error {
	s, err := e.Overview(ctx, root)
	if err != nil {
		return err
	}
	v := statusView{Dir: s.Dir, Format: s.Format, Owner: fcp.KidOf(s.Owner[:]).String(), Writer: s.Writer.String(), Device: s.Device,
		Incarnation: incarnationText(s.Incarnation), Position: s.Position, Applied: s.Applied, Flushed: s.Flushed, Segments: s.Segments, Health: "ok"}
	var control, data uint64
	keys := 0
	for _, z := range s.Zones {
		v.Zones = append(v.Zones, zoneView{z.Zone, z.HasKeys, z.Control, z.Data})
		control, data = control+z.Control, data+z.Data
		if z.HasKeys {
			keys++
		}
	}
	for i := range s.Feeds {
		v.Feeds = append(v.Feeds, viewFeed(&s.Feeds[i]))
	}
	v.Unsealed = s.Unsealed
	if root {
		v.StateRoot = s.StateRoot.String()
	}
	if s.Mesh != nil {
		v.Mesh = viewMesh(s.Mesh)
	}
	if alert, ok := a.freshAlert(s.Alerts); ok {
		v.Health = alert
	}
	doubt := s.Doubt
	if doubt != nil {
		v.Health = "read-only: " + fcp.CodeOf(doubt).Sentence()
	}
	v.Next = a.nextStep(&v, doubt != nil)
	fields := []field{
		{"store", fmt.Sprintf("%s (format %d)", v.Dir, v.Format)},
		{"owner", v.Owner},
		{"node", fmt.Sprintf("%s, writer %.12s, incarnation %s", v.Device, v.Writer, v.Incarnation)},
		{"position", fmt.Sprintf("%d, on disk; state at %d, saved as of %d", v.Position, v.Applied, v.Flushed)},
		{"zones", fmt.Sprintf("%d, keys for %d", len(v.Zones), keys)},
		{"events", fmt.Sprintf("%d control, %d data", control, data)},
		{"segments", fmt.Sprintf("%d sealed, %d events open", v.Segments, v.Unsealed)},
	}
	if root {
		fields = append(fields, field{"state root", v.StateRoot})
	}
	if v.Mesh != nil {
		fields = slices.DeleteFunc(fields, func(f field) bool { return f.name == "events" || f.name == "owner" }) // ten lines are enough
		fields = append(fields, v.Mesh.fields()...)
	}
	fields = append(fields, field{"health", v.Health}, field{"next", v.Next})
	if err := a.record("Status", v.Applied, v, v.Dir, fields...); err != nil {
		return err
	}
	a.answered(v.Applied)
	if doubt != nil {
		return &exitError{doubt, exitFindings}
	}
	return nil
}

// nextStep is the one thing to do next.
func (a *app) nextStep(v *statusView, doubt bool) string {
	data := uint64(0)
	for _, z := range v.Zones {
		data += z.Data
	}
	switch {
	case doubt:
		return "restore from a backup: `" + restoreCommand + "`"
	case v.Position <= a.founding(v):
		return a.command("object", "put", "KEY", "PATH")
	case v.Unsealed > 0:
		return a.command("backup", "create", "BACKUP")
	}
	return a.command("verify")
}

// founding is how many events a store has that nobody wrote anything to: none of
// them is in the private zone's names, so it is told by what the zones began with.
func (a *app) founding(v *statusView) uint64 {
	return uint64(len(v.Zones))*3 + uint64(len(fcp.BuiltinSchemas())) + 1
}
