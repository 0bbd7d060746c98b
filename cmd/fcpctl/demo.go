package main

import "github.com/spf13/cobra"

func (a *app) demoCommand() *cobra.Command {
	return &cobra.Command{Use: "demo", Short: "Show it at work", Args: args(0, 1),
		RunE: func(*cobra.Command, []string) error { return usagef("", "not in this build") }}
}
