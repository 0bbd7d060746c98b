package main

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"fcp"
	"fcp/engine"
)

// zoneFlag is the value of --zone.
type zoneFlag fcp.ZoneID

func (z *zoneFlag) String() string { return string(*z) }
func (z *zoneFlag) Type() string   { return "ZONE" }

func (z *zoneFlag) Set(s string) error {
	id, err := fcp.ParseZoneID(s)
	if err != nil {
		return fmt.Errorf("not a zone id, which looks like z:private")
	}
	*z = zoneFlag(id)
	return nil
}

// zoneOption adds --zone to a command that works in one zone.
func zoneOption(cmd *cobra.Command) *zoneFlag {
	z := zoneFlag(engine.DefaultZone)
	cmd.Flags().Var(&z, "zone", "zone to work in")
	_ = cmd.RegisterFlagCompletionFunc("zone", completeZones)
	return &z
}

func completeZones(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	var out []string
	for _, z := range fcp.StandardZones() {
		out = append(out, z.ID.String())
	}
	return out, cobra.ShellCompDirectiveNoFileComp
}

// atFlag is the value of --at: a position, a time, or how long ago.
type atFlag struct {
	engine.At
	now  func() time.Time
	text string
}

func (v *atFlag) String() string { return v.text }
func (v *atFlag) Type() string   { return "POSITION|TIME" }

var timeLayouts = []string{time.RFC3339Nano, "2006-01-02T15:04:05", "2006-01-02 15:04:05", "2006-01-02T15:04", "2006-01-02 15:04", time.DateOnly}

func (v *atFlag) Set(s string) error {
	at, err := parseAt(s, v.now)
	if err == nil {
		v.At, v.text = at, s
	}
	return err
}

func parseAt(s string, now func() time.Time) (engine.At, error) {
	if n, err := strconv.ParseUint(s, 10, 64); err == nil {
		if n == 0 {
			return engine.At{}, fmt.Errorf("positions begin with 1")
		}
		return engine.At{Position: n}, nil
	}
	if ago, ok := strings.CutPrefix(s, "-"); ok {
		if d, err := time.ParseDuration(ago); err == nil && d >= 0 {
			return engine.At{Time: now().Add(-d)}, nil
		}
	}
	for _, layout := range timeLayouts {
		if t, err := time.ParseInLocation(layout, s, time.Local); err == nil {
			return engine.At{Time: t}, nil
		}
	}
	return engine.At{}, fmt.Errorf("not a position (17), a time (2026-01-31T15:04:05Z, 2026-01-31) or how long ago (-90m)")
}

// atOption adds --at to a command that reads.
func (a *app) atOption(cmd *cobra.Command) *atFlag {
	v := &atFlag{now: a.now}
	cmd.Flags().Var(v, "at", "answer as of this position, time or age (17, 2026-01-31T15:04:05Z, -90m)")
	return v
}

// expectFlag is the value of --expect.
type expectFlag struct {
	engine.Expect
	text string
}

func (v *expectFlag) String() string { return v.text }
func (v *expectFlag) Type() string   { return "absent|GENERATION|HASHPREFIX" }

func (v *expectFlag) Set(s string) error {
	e, err := engine.ParseExpect(s)
	if err != nil {
		return fmt.Errorf("not absent, a generation, or at least %d hex digits of a version's hash", engine.MinHashPrefix)
	}
	v.Expect, v.text = e, s
	return nil
}

// writeOptions are the flags of every command that writes a name.
type writeOptions struct {
	zone        *zoneFlag
	expect      expectFlag
	idempotency string
	dryRun      bool
	durable     durableFlag // of a put
	always      bool        // of a tree: unchanged files too
}

func writeFlags(cmd *cobra.Command) *writeOptions {
	o := &writeOptions{zone: zoneOption(cmd)}
	cmd.Flags().Var(&o.expect, "expect", "write only if this is the current version")
	cmd.Flags().StringVar(&o.idempotency, "idempotency-key", "", "a second write with the same key changes nothing and answers with the first")
	dryRunFlag(cmd, &o.dryRun)
	return o
}

func dryRunFlag(cmd *cobra.Command, v *bool) {
	cmd.Flags().BoolVar(v, "dry-run", false, "write nothing; print what would be written")
}

func timeText(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z") }

// short is a hash on a terminal; data has it in full.
func (a *app) short(hash string) string {
	if a.stdoutTTY && len(hash) > 12 {
		return hash[:12]
	}
	return hash
}

func decimal(n uint64) string { return strconv.FormatUint(n, 10) }

// sizeText is a number of bytes for people: "3.2 MiB".
func sizeText(n uint64) string {
	for _, u := range []struct {
		size uint64
		name string
	}{{1 << 30, "GiB"}, {1 << 20, "MiB"}, {1 << 10, "KiB"}} {
		if n >= u.size {
			return fmt.Sprintf("%.1f %s", float64(n)/float64(u.size), u.name)
		}
	}
	return fmt.Sprintf("%d B", n)
}
