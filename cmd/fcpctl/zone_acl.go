package main

import (
	"encoding/json"

	"github.com/spf13/cobra"

	"fcp/engine"
	"fcp/node/tailnet"
)

// aclFile is a Tailscale policy file: who may own the tags, and which tag reaches
// which on which ports.
type aclFile struct {
	TagOwners map[string][]string `json:"tagOwners"`
	Grants    []aclGrant          `json:"grants"`
}

type aclGrant struct {
	Src []string `json:"src"`
	Dst []string `json:"dst"`
	IP  []string `json:"ip"`
}

func (a *app) zoneACLCommand() *cobra.Command {
	var owner string
	cmd := &cobra.Command{
		Use: "acl", Short: "Write the Tailscale policy file for the zones", Args: args(0, 0),
		Long: `acl writes a Tailscale policy file: one tag for each zone, and each tag reaches itself
on the zone's own two ports and nothing else. A zone that has no ports of its own is
left out and named: nothing can be gated by a port that each node chooses.`,
		Example: "  fcpctl zone acl > policy.json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withStore(cmd.Context(), reading, func(e *engine.Engine) error { return a.acl(e, owner) })
		},
	}
	cmd.Flags().StringVar(&owner, "tag-owner", "autogroup:admin", "who may give a device the tags")
	return cmd
}

func (a *app) acl(e *engine.Engine, owner string) error {
	file := aclFile{map[string][]string{}, []aclGrant{}}
	for _, z := range e.Zones() {
		f, err := e.ZoneFacts(z)
		if err != nil {
			return err
		}
		v := viewDefined(f)
		if v.SymbolPort == 0 || v.ControlPort == 0 {
			a.note("left out: %s has no ports; `%s`", z, a.command("zone", "define", z.String(), "--identity", "FILE", "--symbol-port", "PORT", "--control-port", "PORT"))
			continue
		}
		tag := tailnet.TagOf(z)
		file.TagOwners[tag] = []string{owner}
		control := decimal(uint64(v.ControlPort))
		file.Grants = append(file.Grants, aclGrant{[]string{tag}, []string{tag}, []string{"udp:" + decimal(uint64(v.SymbolPort)), "udp:" + control, "tcp:" + control}})
	}
	if a.flags.format.structured() {
		return a.record("TailscalePolicy", e.Position(), file, "")
	}
	b, err := json.MarshalIndent(file, "", "  ")
	if err == nil {
		_, err = a.out.Write(append(b, '\n'))
	}
	return err
}
