package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"fcp"
	"fcp/node"
	"fcp/node/api"
)

type packOptions struct {
	alone  time.Duration
	budget string
	all    bool
	dryRun bool
	check  bool
}

func (a *app) packCommand() *cobra.Command {
	o := &packOptions{}
	cmd := &cobra.Command{
		Use: "pack", Short: "Make this device ready to be alone: say what it can read then, and bring what is missing", Args: args(0, 0),
		Long: `pack looks at every name that this device knows of and says which it could read with
nobody else there. What is pinned on it, and what it read of late, is wanted: what is
missing of that it brings, the pinned first, as far as --budget goes. It says besides
what does not work alone. --dry-run says what it would bring; --check only looks. Exit
code 11 when something wanted is missing in the end.`,
		Example: "  fcpctl pack --for 12h\n  fcpctl pack --check\n  fcpctl pack --all --budget 20GiB --dry-run",
		RunE:    func(cmd *cobra.Command, _ []string) error { return a.pack(cmd.Context(), o) },
	}
	f := cmd.Flags()
	f.DurationVar(&o.alone, "for", 12*time.Hour, "how long the device will be alone")
	f.StringVar(&o.budget, "budget", "1GiB", "bring at most so many bytes")
	f.BoolVar(&o.all, "all", false, "every name is wanted")
	f.BoolVar(&o.dryRun, "dry-run", false, "say what would be brought, and bring nothing")
	f.BoolVar(&o.check, "check", false, "look only")
	return cmd
}

// parseSize reads a number of bytes: 1048576, 512MiB, 20GiB.
func parseSize(s string) (uint64, error) {
	digits := strings.TrimRight(s, "KMGTiB")
	n, err := strconv.ParseUint(digits, 10, 40)
	unit, ok := map[string]uint64{"": 1, "B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}[s[len(digits):]]
	if err != nil || !ok || n > 1<<60/unit {
		return 0, fcp.Errorf(fcp.CodeInvalidArgument, "%.40q is no number of bytes", s).WithNext("give one like 512MiB or 20GiB")
	}
	return n * unit, nil
}

// packNameView is a name that cannot be read alone, as JSON.
type packNameView struct {
	Zone   fcp.ZoneID `json:"zone"`
	Key    string     `json:"key"`
	Size   uint64     `json:"size"`
	Wanted bool       `json:"wanted"`
	Pinned bool       `json:"pinned"`
	Chosen bool       `json:"to_be_brought"`
}

// packLimitView is something that does not work alone, as JSON.
type packLimitView struct {
	What string `json:"what"`
	Why  string `json:"why"`
}

// packView is what pack found and did, as JSON.
type packView struct {
	Until    string          `json:"until"`
	Names    uint64          `json:"names"`
	Readable uint64          `json:"readable"` // alone
	Bytes    uint64          `json:"bytes"`    // of payload of all names
	Wanted   uint64          `json:"wanted"`   // pinned here, or read of late
	Ready    uint64          `json:"ready"`    // of them, readable alone
	Brought  uint64          `json:"brought_bytes"`
	ToBring  uint64          `json:"to_bring_bytes"` // with --dry-run
	Left     uint64          `json:"left_bytes"`     // of wanted names, over the budget or not to be had
	Missing  []packNameView  `json:"missing"`        // the most wanted first
	Limits   []packLimitView `json:"limits"`         // what else does not work alone
}

func viewPack(r *node.PackReport, dryRun bool) *packView {
	v := &packView{Until: secondsText(r.Until), Names: r.Names, Readable: r.Whole, Bytes: r.Bytes, Wanted: r.Wanted, Ready: r.Ready, Left: r.Left,
		Missing: []packNameView{}, Limits: []packLimitView{}}
	if dryRun {
		v.ToBring = r.Fetch
	} else {
		v.Brought = r.Fetch
	}
	for _, m := range r.Missing {
		v.Missing = append(v.Missing, packNameView{m.Zone, m.Key, m.Size, m.Wanted, m.Pinned, m.Chosen})
	}
	for _, l := range r.Limits {
		v.Limits = append(v.Limits, packLimitView(l))
	}
	return v
}

func (v *packView) fields(dryRun bool) []field {
	out := []field{{"alone until", v.Until},
		{"readable", fmt.Sprintf("%d of %d names", v.Readable, v.Names)},
		{"wanted", fmt.Sprintf("%d of %d names are ready", v.Ready, v.Wanted)}}
	if dryRun {
		out = append(out, field{"to bring", sizeText(v.ToBring)})
	} else {
		out = append(out, field{"brought", sizeText(v.Brought)})
	}
	if v.Left > 0 {
		out = append(out, field{"left out", sizeText(v.Left)})
	}
	for _, m := range v.Missing {
		why := "not wanted"
		switch {
		case m.Chosen && dryRun:
			why = "would be brought"
		case m.Pinned:
			why = "pinned"
		case m.Wanted:
			why = "wanted"
		}
		out = append(out, field{"missing", fmt.Sprintf("%s (%s, %s, %s)", m.Key, m.Zone, sizeText(m.Size), why)})
	}
	for _, l := range v.Limits {
		out = append(out, field{l.What, l.Why})
	}
	return out
}

// remote returns the daemon of the store; a command that cannot do without one says so.
func (a *app) remote(ctx context.Context, what string) (*api.Remote, error) {
	r, err := a.daemon(ctx)
	if err == nil && r == nil {
		err = fcp.Errorf(fcp.CodeDependency, "no fcpd runs on %s, and it is what %s", a.flags.dir, what).WithNext("start it with `" + a.command("up") + "`")
	}
	if r != nil {
		a.answers = r
	}
	return r, err
}

func (a *app) pack(ctx context.Context, o *packOptions) error {
	budget, err := parseSize(o.budget)
	if err != nil {
		return err
	}
	if o.check && o.dryRun {
		return usagef("leave one out", "--check and --dry-run exclude each other")
	}
	if o.alone < 0 {
		return usagef("give a time like 12h", "--for %s", o.alone)
	}
	r, err := a.remote(ctx, "brings things")
	if err != nil {
		return err
	}
	q := node.PackOptions{For: o.alone, Budget: budget, All: o.all, DryRun: o.dryRun || o.check}
	if o.check {
		q.Budget = 0
	}
	report, err := r.Pack(ctx, q)
	if err != nil {
		return err
	}
	v := viewPack(report, o.dryRun)
	if err := a.record("Pack", r.Position(), v, decimal(v.Readable), v.fields(o.dryRun)...); err != nil {
		return err
	}
	a.answered(r.Position())
	if v.Ready < v.Wanted && !o.dryRun {
		return &exitError{fcp.Errorf(fcp.CodeNotEnough, "%d of %d wanted names are not readable alone", v.Wanted-v.Ready, v.Wanted).
			WithNext("give more with --budget, or start the devices that have them: `" + a.command("node", "ls") + "`"), exitFindings}
	}
	return nil
}

func (a *app) stageCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "stage", Short: "Pre-staging: what this device reads often is brought before it is read again",
		Long: `fcpd notes which names are read on this device, at most 4,096 of them, each access
counting half after a week. The record stays on this device; nobody is told. Every ten
minutes what was read most is brought here, as long as the device is not on its battery
and its network is not metered (` + "`fcpctl up --metered`" + `). off forgets the record.`,
	}
	group(cmd)
	cmd.AddCommand(a.stageLsCommand(), a.stageSwitchCommand("on", "Note what is read, and stage by it", true),
		a.stageSwitchCommand("off", "Note nothing, forget what was noted, and stage nothing", false))
	return cmd
}

// accessView is a name that was read, as JSON.
type accessView struct {
	Zone  fcp.ZoneID `json:"zone"`
	Key   string     `json:"key"`
	Score uint64     `json:"score"` // 65536 for each access, half of it after a week
}

func (a *app) stageLsCommand() *cobra.Command {
	return &cobra.Command{
		Use: "ls", Short: "What was read on this device of late, the most wanted first", Args: args(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			r, err := a.remote(cmd.Context(), "notes reads")
			if err != nil {
				return err
			}
			row, err := r.Accesses(cmd.Context())
			if err != nil {
				return err
			}
			l := a.list("Access", r.Position(), "SCORE", "ZONE", "KEY")
			for _, x := range row.List {
				if err := l.add(accessView(x), x.Key, fmt.Sprintf("%.2f", float64(x.Score)/65536), x.Zone.String(), x.Key); err != nil {
					return err
				}
			}
			if err := l.close(); err != nil {
				return err
			}
			if !row.On {
				a.note("pre-staging is off; `%s` switches it on", a.command("stage", "on"))
			}
			return nil
		},
	}
}

// stagingView says whether pre-staging is on, as JSON.
type stagingView struct {
	On bool `json:"on"`
}

func (a *app) stageSwitchCommand(name, short string, on bool) *cobra.Command {
	return &cobra.Command{
		Use: name, Short: short, Args: args(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			r, err := a.remote(cmd.Context(), "notes reads")
			if err != nil {
				return err
			}
			if err := r.SetStaging(cmd.Context(), on); err != nil {
				return err
			}
			return a.record("Staging", r.Position(), stagingView{on}, name, field{"pre-staging", name})
		},
	}
}
