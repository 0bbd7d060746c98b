package main

import (
	"cmp"

	"github.com/spf13/pflag"

	"fcp/cmd/internal/daemon"
)

// tailnetOptions say which Tailscale network the nodes of this machine join. The zero
// value is none, or the one that they were in.
type tailnetOptions struct {
	hostname string // of the first node; the others are HOSTNAME-n2, ...
	key      string // file
	control  string // URL
}

func (o *tailnetOptions) flags(f *pflag.FlagSet) {
	f.StringVar(&o.hostname, "tailnet", "", "join a Tailscale network under this hostname, and find the other devices there; further nodes are HOSTNAME-n2, ...")
	o.keyFlag(f)
	f.StringVar(&o.control, "tailnet-control", "", "URL of the control server (default Tailscale's)")
}

func (o *tailnetOptions) keyFlag(f *pflag.FlagSet) {
	f.StringVar(&o.key, "tailnet-key", "", "file with a Tailscale auth key, for the first start of a node")
}

// asFlags are the options as they are given on a command line.
func (o *tailnetOptions) asFlags() (out []string) {
	if o.hostname != "" {
		out = append(out, "--tailnet", o.hostname)
	}
	if o.control != "" {
		out = append(out, "--tailnet-control", o.control)
	}
	return append(out, o.keyAsFlags()...)
}

func (o *tailnetOptions) keyAsFlags() []string {
	if o.key == "" {
		return nil
	}
	return []string{"--tailnet-key", o.key}
}

// forNode are the flags of the daemon of a node of this machine; first are the hints of
// the first one.
func (o *tailnetOptions) forNode(first *daemon.Hints, name string) []string {
	n := tailnetOptions{hostname: cmp.Or(o.hostname, first.Tailnet), key: o.key, control: cmp.Or(o.control, first.TailnetControl)}
	if n.hostname == "" {
		return nil
	}
	if len(first.Nodes) > 0 && name != first.Nodes[0].Name {
		n.hostname += "-" + name
	}
	return n.asFlags()
}
