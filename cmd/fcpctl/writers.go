package main

import (
	"crypto/rand"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"fcp"
	"fcp/engine"
)

// random is where keys and ids of this process come from.
func (a *app) random() io.Reader { return rand.Reader }

// writersFlag is a list of devices.
type writersFlag []fcp.WriterID

func (v *writersFlag) Type() string   { return "DEVICE" }
func (v *writersFlag) String() string { return "" }

func (v *writersFlag) Set(s string) error {
	id, err := fcp.ParseHash(s)
	if err != nil {
		return fmt.Errorf("not the id of a device, which `fcpctl device ls` shows")
	}
	*v = append(*v, fcp.WriterID(id))
	return nil
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
		for _, m := range members {
			out = append(out, m.Writer.String()+"\t"+m.Name)
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
