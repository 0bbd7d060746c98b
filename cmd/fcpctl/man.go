package main

import (
	"os"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

// manView says what was written, as JSON.
type manView struct {
	Dir   string `json:"dir"`
	Pages int    `json:"pages"`
}

func (a *app) manCommand() *cobra.Command {
	return &cobra.Command{
		Use: "man DIR", Short: "Write the manual pages, one per command", Args: args(1, 1),
		Long: "man writes fcpctl.1, fcpctl-object-put.1 and so on into DIR, which is made when it is\nnot there. Install them below a man1 directory of your MANPATH.",
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := os.MkdirAll(args[0], 0o755); err != nil {
				return inputError(err, "the directory of the pages")
			}
			root := cmd.Root()
			root.DisableAutoGenTag = true // pages of the same build are the same
			if err := doc.GenManTree(root, &doc.GenManHeader{Title: "FCPCTL", Section: "1", Source: "fcpctl " + buildView().Version, Manual: "FCP"}, args[0]); err != nil {
				return inputError(err, "the pages")
			}
			pages, err := os.ReadDir(args[0])
			if err != nil {
				return inputError(err, "the pages")
			}
			v := manView{args[0], len(pages)}
			return a.record("Man", 0, v, v.Dir, field{"pages", decimal(uint64(v.Pages))}, field{"directory", v.Dir})
		},
	}
}
