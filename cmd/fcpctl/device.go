package main

import (
	"bytes"
	"cmp"
	"context"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"fcp"
	"fcp/authority"
	"fcp/engine"
)

func (a *app) deviceCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "device", Short: "Devices: enroll one, say what it is, declare one lost"}
	group(cmd)
	cmd.AddCommand(a.deviceListCommand(), a.deviceEnrollCommand(), a.deviceSetCommand(), a.deviceLostCommand())
	return cmd
}

// deviceView is one device as JSON.
type deviceView struct {
	Device   string       `json:"device"`
	Name     string       `json:"name"`
	Enrolled string       `json:"enrolled,omitempty"`
	State    string       `json:"state"` // this, member, revoked
	Tags     []string     `json:"tags,omitempty"`
	Dir      string       `json:"dir,omitempty"`
	Zones    []fcp.ZoneID `json:"zones,omitempty"`
	DryRun   bool         `json:"dry_run,omitempty"`
}

func (a *app) viewDevice(e *engine.Engine, m *engine.Member) deviceView {
	v := deviceView{Device: m.Writer.String(), Name: m.Name, Enrolled: secondsText(m.Enrolled), State: "member", Tags: m.Tags}
	switch {
	case m.Revoked:
		v.State = "revoked"
	case m.Writer == e.Node().Writer():
		v.State = "this"
	}
	return v
}

func (a *app) deviceListCommand() *cobra.Command {
	return &cobra.Command{
		Use: "ls", Short: "The devices that were enrolled, by name", Args: args(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withStore(cmd.Context(), reading, func(e *engine.Engine) error {
				members, err := e.Members()
				if err != nil {
					return err
				}
				slices.SortFunc(members, func(x, y engine.Member) int {
					return cmp.Or(cmp.Compare(x.Name, y.Name), bytes.Compare(x.Writer[:], y.Writer[:]))
				})
				l := a.list("Device", e.Position(), "DEVICE", "NAME", "ENROLLED", "STATE", "TAGS")
				for i := range members {
					v := a.viewDevice(e, &members[i])
					if err := l.add(v, v.Device, a.short(v.Device), v.Name, v.Enrolled, v.State, strings.Join(v.Tags, ",")); err != nil {
						return err
					}
				}
				return l.end(e.Position())
			})
		},
	}
}

type enrollOptions struct {
	identity *identityOptions
	to       string
	zones    []string
	tags     tagOptions
	dryRun   bool
}

func (a *app) deviceEnrollCommand() *cobra.Command {
	o := &enrollOptions{}
	cmd := &cobra.Command{
		Use: "enroll NAME", Short: "Make the store of another device, with keys of its own", Args: args(1, 1),
		Long: `enroll makes keys for a new device, has the owner enroll it, seals the keys of the
zones to it, and writes its store, still without events, to --to. Move that directory
to the device; it catches up when it meets this one. --class and --site say how long it
may be away and what fails together with it; ` + "`device set`" + ` changes them.`,
		Example: "  fcpctl device enroll laptop --to /media/stick/fcp --identity ~/fcp-identity --zone z:private\n  fcpctl device enroll nas --class nas --site home --to /mnt/nas/fcp --identity ~/fcp-identity",
		RunE: func(cmd *cobra.Command, args []string) error {
			if o.to == "" {
				return usagef("see `"+cmd.CommandPath()+" --help`", "--to names the directory of the new device's store")
			}
			return a.withStore(cmd.Context(), openMode(!o.dryRun), func(e *engine.Engine) error { return a.enroll(cmd.Context(), e, o, args[0]) })
		},
	}
	o.identity = identityFlags(cmd, "identity file of the owner")
	cmd.Flags().StringVar(&o.to, "to", "", "new or empty directory for the device's store")
	cmd.Flags().StringSliceVar(&o.zones, "zone", nil, "zones whose keys it gets (default every zone)")
	_ = cmd.RegisterFlagCompletionFunc("zone", completeZones)
	_ = cmd.MarkFlagDirname("to")
	o.tags.flags(cmd)
	dryRunFlag(cmd, &o.dryRun)
	return cmd
}

func (a *app) enroll(ctx context.Context, e *engine.Engine, o *enrollOptions, name string) error {
	owner, err := a.ownerFor(o.identity, "an enrollment")
	if err != nil {
		return err
	}
	defer owner.Wipe()
	if err := e.Genesis().CheckOwner(owner.Public()); err != nil {
		return err
	}
	zones := e.Zones()
	if len(o.zones) > 0 {
		zones = []fcp.ZoneID{fcp.ZoneOwner} // without it a device knows neither members nor revocations
		for _, z := range o.zones {
			id, err := fcp.ParseZoneID(z)
			if err != nil {
				return err
			}
			if id != fcp.ZoneOwner {
				zones = append(zones, id)
			}
		}
	}
	if entries, err := os.ReadDir(o.to); err == nil && len(entries) > 0 {
		return fcp.Errorf(fcp.CodeNotEmpty, "%s", o.to)
	}
	tags, err := o.tags.apply(nil)
	if err != nil {
		return err
	}
	node, err := authority.NewNodeKeys(a.random())
	if err != nil {
		return err
	}
	defer node.Wipe()
	v := deviceView{Device: node.Writer().String(), Name: name, State: "member", Tags: tags, Dir: o.to, Zones: zones, DryRun: o.dryRun}
	if o.dryRun {
		v.Device = ""
	} else if err := a.enrollAndJoin(ctx, e, a.flags.dir, owner, node, o.to, name, zones, tags); err != nil {
		return err
	}
	err = a.record("Device", e.Position(), v, v.Device, field{"device", v.Device}, field{"name", name}, field{"store", o.to}, field{"zones", joinZones(zones)})
	if err == nil && o.dryRun {
		a.note("dry run: nothing was written; the device would get other keys")
	}
	return err
}

// enrollAndJoin enrolls a device in the store of e, which is in the directory via, and makes
// the device's own in dir.
func (a *app) enrollAndJoin(ctx context.Context, e *engine.Engine, via string, owner *authority.OwnerKey, node *authority.NodeKeys, dir, name string, zones []fcp.ZoneID, tags []string) error {
	hybrid, err := node.Hybrid()
	if err != nil {
		return err
	}
	manifests, err := e.Enroll(ctx, engine.EnrollOptions{Owner: owner, Node: node.Public(), Hybrid: hybrid, Name: name, Zones: zones, Tags: tags})
	if err != nil {
		return err
	}
	genesis, err := e.GenesisBytes()
	if err != nil {
		return err
	}
	if err := engine.Join(ctx, dir, engine.JoinOptions{Environment: a.environment(), Node: node, Genesis: genesis, Manifests: manifests}); err != nil {
		return err
	}
	return a.writeInvitation(e, via, dir, node.Writer())
}

// findDevice finds a device by its name or the first digits of its id.
func (a *app) findDevice(e *engine.Engine, what string) (*engine.Member, error) {
	members, err := e.Members()
	if err != nil {
		return nil, err
	}
	var found []*engine.Member
	for i := range members {
		m := &members[i]
		if m.Name == what || len(what) >= engine.MinHashPrefix && strings.HasPrefix(m.Writer.String(), what) {
			found = append(found, m)
		}
	}
	switch len(found) {
	case 0:
		return nil, fcp.Errorf(fcp.CodeNotFound, "no device %.40q was enrolled", what).WithNext("list the devices with `" + a.command("device", "ls") + "`")
	case 1:
		return found[0], nil
	}
	return nil, fcp.Errorf(fcp.CodeGuess, "%d devices are called %.40q", len(found), what).WithNext("name one by its id, see `" + a.command("device", "ls") + "`")
}
