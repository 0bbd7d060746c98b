package daemon

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/pflag"

	"fcp"
	"fcp/node"
	"fcp/node/tailnet"
)

// Tailnet says how the daemon joins a Tailscale network. The zero value is no tailnet:
// loopback and LAN.
type Tailnet struct {
	Hostname string   // in the tailnet; empty: no tailnet
	KeyFile  string   // holds an auth key, for the first start; without one a person logs in where the log says
	Control  string   // URL of the control server; empty: Tailscale's
	Tags     []string // to ask for
}

func (t *Tailnet) flags(f *pflag.FlagSet) {
	f.StringVar(&t.Hostname, "tailnet", "", "join a Tailscale network under this hostname (default none: loopback and LAN)")
	f.StringVar(&t.KeyFile, "tailnet-key", "", "file with a Tailscale auth key, for the first start")
	f.StringVar(&t.Control, "tailnet-control", "", "URL of the control server (default Tailscale's)")
	f.StringArrayVar(&t.Tags, "tailnet-tag", nil, "tag to ask for, such as tag:fcp-private; may be repeated")
}

// maxAuthKey limits the file of an auth key, in bytes.
const maxAuthKey = 4 << 10

// joinTailnet joins the tailnet that the flags or the hints name; nil without one.
func (d *running) joinTailnet(ctx context.Context) (*tailnet.Network, error) {
	t := &d.o.Tailnet
	if t.Hostname == "" {
		t.Hostname, t.Control = d.hints.Tailnet, d.hints.TailnetControl
	}
	if t.Hostname == "" {
		return nil, nil
	}
	d.hints.Tailnet, d.hints.TailnetControl = t.Hostname, t.Control
	o := tailnet.Options{Dir: filepath.Join(d.o.Dir, "tailnet"), Hostname: t.Hostname, ControlURL: t.Control, Tags: t.Tags, Logger: d.logger}
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, fcp.Wrap(fcp.CodeDisk, err, "make the directory of the tailnet's state")
	}
	if t.KeyFile != "" {
		b, err := os.ReadFile(t.KeyFile)
		if err == nil && len(b) > maxAuthKey {
			err = fmt.Errorf("it has %d bytes", len(b))
		}
		if err != nil {
			return nil, fcp.Wrap(fcp.CodeInvalidArgument, err, "read the auth key in %s", t.KeyFile)
		}
		o.AuthKey = strings.TrimSpace(string(b))
		clear(b)
	}
	return tailnet.Open(ctx, o)
}

// useTailnet has a node use the tailnet: it listens on the port of all nodes there, or
// on the one of --listen, and finds its peers by itself. Tags and
// the zones of the store.
func (d *running) useTailnet(o *node.Options, zones []fcp.ZoneID) {
	if d.tailnet == nil {
		return
	}
	d.tailnet.SetZones(zones)
	o.Network = d.tailnet
	if o.Listen = d.o.Listen; o.Listen == "" {
		o.Listen = fmt.Sprint(":", tailnet.DefaultPort)
	}
}
