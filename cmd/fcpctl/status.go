package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

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
	Dir         string      `json:"dir"`
	Format      int         `json:"format"`
	Owner       string      `json:"owner"`
	Writer      string      `json:"writer"`
	Device      string      `json:"device"`
	Incarnation string      `json:"incarnation"`
	Position    uint64      `json:"position"`
	Applied     uint64      `json:"applied"`
	Flushed     uint64      `json:"flushed"`
	Zones       []zoneView  `json:"zones"`
	Feeds       []feedView  `json:"feeds"`
	Segments    int         `json:"segments"`
	Unsealed    uint64      `json:"unsealed"` // events a seal would seal
	StateRoot   string      `json:"state_root,omitempty"`
	Health      string      `json:"health"`             // ok, or what weighs most
	Findings    []checkView `json:"findings,omitempty"` // as doctor has them, the gravest first
	Next        string      `json:"next"`
	Mesh        *meshView   `json:"mesh,omitempty"` // only when fcpd runs
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
	found, wrong := a.ailments(s, v.Mesh)
	v.Findings, v.Next = found, a.nextStep(&v, found)
	if len(found) > 0 {
		v.Health = found[0].What
	}
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
	fields = append(fields, field{"health", v.Health})
	for i := 1; i < len(found); i++ {
		fields = append(fields, field{"and", found[i].What})
	}
	fields = append(fields, field{"next", v.Next})
	if err := a.record("Status", v.Applied, v, v.Dir, fields...); err != nil {
		return err
	}
	a.answered(v.Applied)
	if wrong != nil {
		return &exitError{wrong, exitFindings}
	}
	return nil
}

// ailments returns what is not as it should be, the gravest first, and the error of what
// keeps the store from being written.
func (a *app) ailments(s *api.Overview, mesh *meshView) (found []checkView, wrong error) {
	if wrong = s.Doubt; wrong != nil {
		found = append(found, checkView{"log", "wrong", "read-only: " + fcp.CodeOf(wrong).Sentence(), "restore from a backup: `" + restoreCommand + "`"})
	}
	space := a.checkSpace(s.Full)
	full := errors.Is(space.err, fcp.CodeDiskFull)
	if full || space.Result == "warning" { // a file system that cannot say is taken to have room
		found = append(found, space.checkView)
	}
	if full && wrong == nil {
		wrong = advise(space.err, fcp.CodeDiskFull, space.Fix)
	}
	if alert, ok := a.freshAlert(s.Alerts); ok {
		found = append(found, checkView{"devices", "warning", alert, ""})
	}
	if mesh != nil {
		found = append(found, a.checkMesh(mesh)...)
	}
	return found, wrong
}

// checkMesh returns what is not well with the other members, as far as it is known.
func (a *app) checkMesh(v *meshView) []checkView {
	awaited := v.names(func(m *api.Member) bool { return m.Awaited })
	switch {
	case len(awaited) > 0:
		return []checkView{{"mesh", "warning", "not known yet: fcpd has not met " + strings.Join(awaited, ", ") + " since it opened the store, and the coverage is of who is there",
			"look again in a moment: `" + a.command("status") + "`"}}
	case v.Segments > 0 && v.Survives < 0:
		return []checkView{{"mesh", "warning", "something cannot be rebuilt from who is there", a.command("node", "health")}}
	}
	return nil
}

// nextStep is the one thing to do next.
func (a *app) nextStep(v *statusView, found []checkView) string {
	for i := range found {
		if found[i].Fix != "" {
			return found[i].Fix
		}
	}
	data := uint64(0)
	for _, z := range v.Zones {
		data += z.Data
	}
	switch {
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
