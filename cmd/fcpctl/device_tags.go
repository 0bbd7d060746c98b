package main

import (
	"context"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"fcp"
	"fcp/engine"
	"fcp/node/placement"
)

// tagOptions say what a device is.
type tagOptions struct {
	class, site string
	tags        []string
}

func (o *tagOptions) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&o.class, "class", "", "kind of device: how long it may be away before its symbols are made again (server and nas 10 minutes, laptop 3 days, phone 7 days)")
	f.StringVar(&o.site, "site", "", "where it stands: devices of one site fail together")
	f.StringSliceVar(&o.tags, "tag", nil, "further tags, for placements and policies")
	_ = cmd.RegisterFlagCompletionFunc("class", func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return []string{string(placement.ClassLaptop), string(placement.ClassPhone), string(placement.ClassServer), string(placement.ClassNAS)}, cobra.ShellCompDirectiveNoFileComp
	})
}

// apply returns the tags of a device after what the flags say.
func (o *tagOptions) apply(have []string) ([]string, error) {
	if !placement.Class(o.class).Valid() {
		return nil, fcp.Errorf(fcp.CodeInvalidArgument, "there is no device class %.40q", o.class).WithNext("write laptop, phone, server or nas")
	}
	out := slices.Clone(have)
	set := func(prefix, value string) {
		if value != "" {
			out = append(slices.DeleteFunc(out, func(t string) bool { return strings.HasPrefix(t, prefix) }), prefix+value)
		}
	}
	set(placement.TagClass, o.class)
	set(placement.TagSite, o.site)
	out = sortedOnce(append(out, o.tags...))
	for _, t := range out {
		if _, err := fcp.ParseCanonicalID(t); err != nil {
			return nil, fcp.Wrap(fcp.CodeInvalidArgument, err, "a tag of the device")
		}
	}
	if len(out) == 0 {
		return nil, nil
	}
	return out, nil
}

func (a *app) deviceSetCommand() *cobra.Command {
	var (
		identity *identityOptions
		o        tagOptions
		name     string
		untag    []string
		dryRun   bool
	)
	cmd := &cobra.Command{
		Use: "set NAME|ID", Short: "Say what a device is: its class, where it stands, its name", Args: args(1, 1),
		Long: `set has the owner enroll a device again, under the same keys, with another class, site,
name or other tags. What is not said stays. Grace and failure domains follow the newest
enrollment on every device.`,
		Example:           "  fcpctl device set cellar --class nas --site home --identity ~/fcp-identity",
		ValidArgsFunction: a.completeDevices,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withStore(cmd.Context(), openMode(!dryRun), func(e *engine.Engine) error {
				m, err := a.findDevice(e, args[0])
				if err != nil {
					return err
				}
				have := slices.DeleteFunc(slices.Clone(m.Tags), func(t string) bool { return slices.Contains(untag, t) })
				tags, err := o.apply(have)
				if err != nil {
					return err
				}
				return a.describeDevice(cmd.Context(), e, identity, m, name, tags, dryRun)
			})
		},
	}
	identity = identityFlags(cmd, "identity file of the owner")
	o.flags(cmd)
	cmd.Flags().StringVar(&name, "name", "", "another name for people")
	cmd.Flags().StringSliceVar(&untag, "untag", nil, "tags that it has no more")
	dryRunFlag(cmd, &dryRun)
	return cmd
}

func (a *app) describeDevice(ctx context.Context, e *engine.Engine, identity *identityOptions, m *engine.Member, name string, tags []string, dryRun bool) error {
	owner, err := a.ownerFor(identity, "an enrollment")
	if err != nil {
		return err
	}
	defer owner.Wipe()
	if err := e.Genesis().CheckOwner(owner.Public()); err != nil {
		return err
	}
	if !dryRun {
		if err := e.DescribeDevice(ctx, owner, m.Writer, name, tags); err != nil {
			return err
		}
	}
	now := *m
	now.Tags = tags
	if name != "" {
		now.Name = name
	}
	v := a.viewDevice(e, &now)
	v.DryRun = dryRun
	err = a.record("Device", e.Position(), v, v.Device, field{"device", v.Device}, field{"name", v.Name}, field{"tags", strings.Join(v.Tags, ",")})
	if err == nil && dryRun {
		a.note("dry run: nothing was written")
	}
	return err
}
