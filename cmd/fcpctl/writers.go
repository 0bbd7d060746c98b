package main

import (
	"crypto/rand"
	"io"
	"slices"

	"github.com/spf13/cobra"

	"fcp"
	"fcp/engine"
)

// random is where keys and ids of this process come from.
func (a *app) random() io.Reader { return rand.Reader }

// devicesFlag is a list of devices, each by its name or the first digits of its id.
type devicesFlag []string

func (v *devicesFlag) Type() string   { return "DEVICE" }
func (v *devicesFlag) String() string { return "" }

func (v *devicesFlag) Set(s string) error {
	*v = append(*v, s)
	return nil
}

// writers finds the devices of a list, in its order and each once.
func (a *app) writers(e *engine.Engine, devices []string) (out []fcp.WriterID, err error) {
	for _, name := range devices {
		m, err := a.findDevice(e, name)
		if err != nil {
			return nil, err
		}
		if !slices.Contains(out, m.Writer) {
			out = append(out, m.Writer)
		}
	}
	return out, nil
}

// complete offers what a store that can be opened has, and nothing otherwise.
func (a *app) complete(cmd *cobra.Command, fn func(e *engine.Engine) []string) ([]string, cobra.ShellCompDirective) {
	var out []string
	a.guessing = true
	if err := a.bindEnvironment(cmd); err == nil {
		_ = a.withStore(cmd.Context(), reading, func(e *engine.Engine) error {
			out = fn(e)
			return nil
		})
	}
	return out, cobra.ShellCompDirectiveNoFileComp
}

func (a *app) completeDevices(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	return a.complete(cmd, func(e *engine.Engine) (out []string) {
		members, _ := e.Members()
		for i := range members {
			id := members[i].Writer.String()
			if m, err := a.findDevice(e, members[i].Name); err == nil && m.Writer == members[i].Writer {
				out = append(out, m.Name+"\t"+id[:16])
			} else {
				out = append(out, id+"\t"+members[i].Name)
			}
		}
		return out
	})
}

func (a *app) completeGrants(cmd *cobra.Command, given []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(given) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return a.complete(cmd, func(e *engine.Engine) (out []string) {
		for _, z := range e.Zones() {
			grants, _ := e.Grants(z)
			for i := range grants {
				out = append(out, grants[i].Ref.String()[:16]+"\t"+grants[i].Spec.Principal.String())
			}
		}
		return out
	})
}

func (a *app) completeRefusals(cmd *cobra.Command, given []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(given) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return a.complete(cmd, func(e *engine.Engine) (out []string) {
		_ = e.EachDecision(func(r *engine.RefusalRecord) error {
			out = append(out, r.Request().String()[:16]+"\t"+string(r.Reason()))
			return nil
		})
		return out
	})
}
