package main

import (
	"bufio"
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
)

// noGolden are commands whose data is not one JSON form of their own.
var noGolden = map[string]string{
	"fcpctl completion": "scripts for shells",
	"fcpctl help":       "text",
	"fcpctl exit-codes": "text",
	"fcpctl demo":       "its steps differ from run to run; demo.txtar looks at them",
	"fcpctl bench":      "its figures differ from run to run; tools.txtar looks at them",
	"fcpctl bugreport":  "one text; doctor.txtar looks at it",
	"fcpctl log follow": "an endless stream of what log tail shows",
}

// TestEveryCommandHasAGoldenJSON fails for a command that no script runs with
// -o json or -o ndjson and compares with a golden part.
func TestEveryCommandHasAGoldenJSON(t *testing.T) {
	compared := map[string]bool{}
	root := func() *cobra.Command {
		a := &app{now: time.Now, lookupEnv: func(string) (string, bool) { return "", false }}
		return a.rootCommand()
	}()
	scripts, err := filepath.Glob("testdata/script/*.txtar")
	if err != nil || len(scripts) == 0 {
		t.Fatal(err)
	}
	for _, path := range scripts {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		last := ""
		for lines := bufio.NewScanner(bytes.NewReader(b)); lines.Scan(); {
			words := strings.Fields(lines.Text())
			switch {
			case len(words) > 1 && words[0] == "cmp" && strings.HasPrefix(words[1], "std"):
				compared[last] = true
			case strings.Contains(lines.Text(), "fcpctl"):
				last = ""
				if strings.Contains(lines.Text(), "json") {
					last = commandOf(root, words)
				}
			}
		}
	}
	var walk func(cmd *cobra.Command)
	walk = func(cmd *cobra.Command) {
		if _, ok := noGolden[cmd.CommandPath()]; ok || cmd.Hidden {
			return
		}
		if len(cmd.Commands()) == 0 && !compared[cmd.CommandPath()] {
			t.Errorf("no script compares the JSON of `%s` with a golden", cmd.CommandPath())
		}
		for _, c := range cmd.Commands() {
			walk(c)
		}
	}
	walk(root)
}

// commandOf finds which command a line of a script runs.
func commandOf(root *cobra.Command, words []string) string {
	cmd := root
	for _, w := range words {
		for _, c := range cmd.Commands() {
			if c.Name() == w {
				cmd = c
				break
			}
		}
	}
	return cmd.CommandPath()
}
