package main

import (
	"runtime"
	"runtime/debug"
	"strconv"

	"github.com/spf13/cobra"

	"fcp/engine"
)

// buildInfo is what `fcpctl version` says, as JSON.
type buildInfo struct {
	Version string `json:"version"`
	Commit  string `json:"commit,omitempty"`
	Go      string `json:"go"`
	System  string `json:"system"`
	Format  int    `json:"format"` // of a store directory
}

func buildView() buildInfo {
	v := buildInfo{Version: "(devel)", Go: runtime.Version(), System: runtime.GOOS + "/" + runtime.GOARCH, Format: engine.Format}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return v
	}
	if info.Main.Version != "" {
		v.Version = info.Main.Version
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			v.Commit = s.Value
		}
	}
	return v
}

func (a *app) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Version of this program and of the formats it knows", Args: args(0, 0),
		RunE: func(*cobra.Command, []string) error {
			v := buildView()
			fields := []field{{"fcpctl", v.Version}, {"go", v.Go}, {"store format", strconv.Itoa(v.Format)}}
			if v.Commit != "" {
				fields = append(fields, field{"commit", v.Commit})
			}
			return a.record("Build", 0, v, v.Version, fields...)
		},
	}
}
