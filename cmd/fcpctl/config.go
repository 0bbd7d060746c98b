package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"github.com/tailscale/hujson"

	"fcp"
)

// The settings file is HuJSON (JSON with comments and trailing commas):
//
//	{
//	  "context": "home",            // used when neither --context nor FCP_CONTEXT is given
//	  "contexts": {
//	    "home": {"dir": "/srv/fcp", "keep": 7},
//	  },
//	  "flags": {"color": "never"},  // for every context
//	}
//
// The keys of a context and of "flags" are names of flags. A flag on the command
// line wins over its variable, that over the context, that over "flags".

// maxConfig bounds the settings file, in bytes.
const maxConfig = 1 << 20

// settings are what the file says, each value with the line it stands on.
type settings struct {
	path     string
	context  string
	contexts map[string]map[string]setting
	flags    map[string]setting
}

type setting struct {
	value string
	line  int
}

// notInFile are flags that a file must not set: yes is said each time, and a
// passphrase's place belongs to the identity on the command line.
var notInFile = []string{"yes", "dry-run", "help", "config", "context", "version"}

func (a *app) configPath() string {
	if a.flags.config != "" {
		return a.flags.config
	}
	return a.defaultPath("XDG_CONFIG_HOME", ".config", "fcp", "config.hujson")
}

// loadSettings reads the settings file. That none is there is an error only when
// one was named.
func (a *app) loadSettings(known func(flag string) bool) (*settings, error) {
	path := a.configPath()
	f, err := os.Open(path)
	if absent(err) && a.flags.config == "" {
		return &settings{path: path}, nil
	}
	if err != nil {
		return nil, inputError(err, "the settings file")
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxConfig+1))
	if err != nil {
		return nil, inputError(err, "the settings file")
	}
	if len(b) > maxConfig {
		return nil, fcp.Errorf(fcp.CodeTooLarge, "the settings file %s", path)
	}
	return readSettings(path, b, known)
}

// readSettings reads the text of a settings file. Errors name file and line.
func readSettings(path string, text []byte, known func(flag string) bool) (*settings, error) {
	r := settingsReader{path: path, text: text, known: known}
	root, err := hujson.Parse(text)
	if err != nil {
		return nil, fcp.Errorf(fcp.CodeInvalidArgument, "%s: %w", path, err).WithNext("mend that line, or move the file away")
	}
	s := &settings{path: path, contexts: map[string]map[string]setting{}}
	err = r.object(root, "the file", func(name string, v hujson.Value) error {
		switch name {
		case "context":
			w, err := r.scalar(v)
			s.context = w.value
			return err
		case "flags":
			s.flags, err = r.flags(v, "flags")
			return err
		case "contexts":
			return r.object(v, "contexts", func(name string, v hujson.Value) (err error) {
				s.contexts[name], err = r.flags(v, "context "+name)
				return err
			})
		}
		return r.bad(v, "unknown key %q; there are context, contexts and flags", name)
	})
	if err == nil && s.context != "" && s.contexts[s.context] == nil {
		err = fcp.Errorf(fcp.CodeInvalidArgument, "%s: there is no context %q", path, s.context).WithNext("name one of its contexts, or leave \"context\" out")
	}
	return s, err
}

type settingsReader struct {
	path  string
	text  []byte
	known func(flag string) bool
}

func (r *settingsReader) line(v hujson.Value) int {
	return 1 + bytes.Count(r.text[:min(v.StartOffset, len(r.text))], []byte("\n"))
}

func (r *settingsReader) bad(v hujson.Value, format string, args ...any) error {
	return fcp.Errorf(fcp.CodeInvalidArgument, "%s:%d: %s", r.path, r.line(v), fmt.Sprintf(format, args...)).
		WithNext("mend that line; names of flags are those of `fcpctl COMMAND --help` without the dashes")
}

// object calls fn for each member of an object, and refuses a name given twice.
func (r *settingsReader) object(v hujson.Value, what string, fn func(name string, v hujson.Value) error) error {
	o, ok := v.Value.(*hujson.Object)
	if !ok {
		return r.bad(v, "%s is not an object", what)
	}
	seen := map[string]bool{}
	for _, m := range o.Members {
		name := m.Name.Value.(hujson.Literal).String()
		if seen[name] {
			return r.bad(m.Name, "%q is given twice", name)
		}
		seen[name] = true
		m.Value.StartOffset = m.Name.StartOffset // what is wrong is found where its name stands
		if err := fn(name, m.Value); err != nil {
			return err
		}
	}
	return nil
}

func (r *settingsReader) flags(v hujson.Value, what string) (map[string]setting, error) {
	out := map[string]setting{}
	return out, r.object(v, what, func(name string, v hujson.Value) error {
		if slices.Contains(notInFile, name) {
			return r.bad(v, "--%s cannot be set in a file", name)
		}
		if !r.known(name) {
			return r.bad(v, "unknown key %q: no command has a flag --%s", name, name)
		}
		w, err := r.scalar(v)
		out[name] = w
		return err
	})
}

func (r *settingsReader) scalar(v hujson.Value) (setting, error) {
	l, ok := v.Value.(hujson.Literal)
	if !ok || l.Kind() == 'n' {
		return setting{}, r.bad(v, "not a text, a number, true or false")
	}
	w := setting{value: string(l), line: r.line(v)}
	if l.Kind() == '"' {
		w.value = l.String()
	}
	return w, nil
}

// lookup returns what the file says of a flag in a context.
func (s *settings) lookup(context, flag string) (setting, bool) {
	if w, ok := s.contexts[context][flag]; ok {
		return w, true
	}
	w, ok := s.flags[flag]
	return w, ok
}

// allFlags reports whether any command under root has a flag.
func allFlags(root *cobra.Command) func(string) bool {
	names := map[string]bool{}
	var walk func(cmd *cobra.Command)
	walk = func(cmd *cobra.Command) {
		note := func(f *pflag.Flag) { names[f.Name] = true }
		cmd.Flags().VisitAll(note)
		cmd.PersistentFlags().VisitAll(note)
		for _, c := range cmd.Commands() {
			walk(c)
		}
	}
	walk(root)
	return func(name string) bool { return names[name] }
}

// bindSettings gives each flag that neither the command line nor a variable set
// the value of the context, else of the file.
func (a *app) bindSettings(cmd *cobra.Command) error {
	s, err := a.loadSettings(allFlags(cmd.Root()))
	if err != nil {
		return err
	}
	context := a.flags.context
	if context == "" {
		context = s.context
	} else if s.contexts[context] == nil {
		return fcp.Errorf(fcp.CodeInvalidArgument, "there is no context %q in %s", context, s.path).WithNext("see `fcpctl context ls`, or make one with `fcpctl context set " + quote(context) + " dir=DIR`")
	}
	a.flags.context = context
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		w, ok := s.lookup(context, f.Name)
		if !ok || f.Changed || err != nil {
			return
		}
		if setErr := cmd.Flags().Set(f.Name, w.value); setErr != nil {
			err = fcp.Errorf(fcp.CodeInvalidArgument, "%s:%d: %w", s.path, w.line, setErr).WithNext("set it to a value that --" + f.Name + " takes")
		}
	})
	return err
}

// contextView is a context as JSON.
type contextView struct {
	Context string            `json:"context"`
	Current bool              `json:"current"`
	Flags   map[string]string `json:"flags"`
}

func (a *app) contextCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "context", Short: "Settings by name: ls, set, use, rm"}
	group(cmd)
	cmd.AddCommand(a.contextLsCommand(), a.contextSetCommand(), a.contextUseCommand(), a.contextRmCommand())
	return cmd
}

func (a *app) contextLsCommand() *cobra.Command {
	return &cobra.Command{
		Use: "ls", Short: "List the contexts of the settings file", Args: args(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := a.loadSettings(allFlags(cmd.Root()))
			if err != nil {
				return err
			}
			l := a.list("Context", 0, "CONTEXT", "CURRENT", "FLAGS")
			for _, name := range slices.Sorted(maps.Keys(s.contexts)) {
				v := contextView{name, name == a.flags.context, map[string]string{}}
				var words []string
				for _, k := range slices.Sorted(maps.Keys(s.contexts[name])) {
					v.Flags[k] = s.contexts[name][k].value
					words = append(words, k+"="+v.Flags[k])
				}
				mark := ""
				if v.Current {
					mark = "current"
				}
				if err := l.add(v, name, name, mark, strings.Join(words, " ")); err != nil {
					return err
				}
			}
			return l.close()
		},
	}
}

func (a *app) contextSetCommand() *cobra.Command {
	return &cobra.Command{
		Use: "set NAME FLAG=VALUE...", Short: "Make a context, or change one", Args: args(2, -1),
		Example: "  fcpctl context set home dir=/srv/fcp keep=7",
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.editSettings(cmd, func(root *hujson.Value) error {
				var flags []patchFlag
				for _, w := range args[1:] {
					k, v, ok := strings.Cut(w, "=")
					if !ok {
						return usagef("write FLAG=VALUE, as dir=/srv/fcp", "%q", w)
					}
					flags = append(flags, patchFlag{k, v})
				}
				if root.Find("/contexts") == nil {
					if err := patch(root, "/contexts", json.RawMessage("{}")); err != nil {
						return err
					}
				}
				at := "/contexts/" + pointer(args[0])
				if root.Find(at) == nil {
					if err := patch(root, at, json.RawMessage("{}")); err != nil {
						return err
					}
				}
				for _, f := range flags {
					if err := patch(root, at+"/"+pointer(f.name), f.value); err != nil {
						return err
					}
				}
				return nil
			})
		},
	}
}

type patchFlag struct{ name, value string }

func (a *app) contextUseCommand() *cobra.Command {
	return &cobra.Command{
		Use: "use NAME", Short: "Make a context the one that counts when none is named", Args: args(1, 1), ValidArgsFunction: a.completeContexts,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.editSettings(cmd, func(root *hujson.Value) error { return patch(root, "/context", args[0]) })
		},
	}
}

func (a *app) contextRmCommand() *cobra.Command {
	return &cobra.Command{
		Use: "rm NAME", Short: "Remove a context from the settings file", Args: args(1, 1), ValidArgsFunction: a.completeContexts,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.editSettings(cmd, func(root *hujson.Value) error {
				if root.Find("/contexts/"+pointer(args[0])) == nil {
					return fcp.Errorf(fcp.CodeNotFound, "there is no context %q", args[0]).WithNext("see `fcpctl context ls`")
				}
				if c := root.Find("/context"); c != nil {
					if l, ok := c.Value.(hujson.Literal); ok && l.Kind() == '"' && l.String() == args[0] {
						if err := root.Patch([]byte(`[{"op":"remove","path":"/context"}]`)); err != nil {
							return err
						}
					}
				}
				p, err := marshalJSON([]map[string]string{{"op": "remove", "path": "/contexts/" + pointer(args[0])}})
				if err != nil {
					return err
				}
				return root.Patch(p)
			})
		},
	}
}

// pointer escapes one part of an RFC 6901 pointer.
func pointer(s string) string {
	return strings.ReplaceAll(strings.ReplaceAll(s, "~", "~0"), "/", "~1")
}

func patch(root *hujson.Value, path string, value any) error {
	p, err := marshalJSON([]map[string]any{{"op": "add", "path": path, "value": value}})
	if err != nil {
		return err
	}
	return root.Patch(p)
}

// editSettings changes the file and keeps its comments. What would not be read
// again is not written.
func (a *app) editSettings(cmd *cobra.Command, change func(root *hujson.Value) error) error {
	path := a.configPath()
	old, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		old, err = []byte("{\n}\n"), nil
	}
	if err != nil {
		return inputError(err, "the settings file")
	}
	root, err := hujson.Parse(old)
	if err != nil {
		return fcp.Errorf(fcp.CodeInvalidArgument, "%s: %w", path, err)
	}
	if err := change(&root); err != nil {
		return err
	}
	root.Format()
	text := root.Pack()
	s, err := readSettings(path, text, allFlags(cmd.Root()))
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return inputError(err, "the directory of the settings file")
	}
	temp := path + ".new"
	if err := os.WriteFile(temp, text, 0o600); err != nil {
		return inputError(err, "the settings file")
	}
	if err := os.Rename(temp, path); err != nil {
		return inputError(errors.Join(err, os.Remove(temp)), "the settings file")
	}
	v := settingsView{Config: path, Context: s.context, Contexts: slices.Sorted(maps.Keys(s.contexts))}
	if v.Contexts == nil {
		v.Contexts = []string{}
	}
	return a.record("Settings", 0, v, path, field{"settings", path}, field{"context", s.context}, field{"contexts", strings.Join(v.Contexts, " ")})
}

// settingsView is the settings file as JSON.
type settingsView struct {
	Config   string   `json:"config"`
	Context  string   `json:"context,omitempty"`
	Contexts []string `json:"contexts"`
}

func (a *app) completeContexts(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	if a.bindEnvironment(cmd) != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	s, err := a.loadSettings(allFlags(cmd.Root()))
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return slices.Sorted(maps.Keys(s.contexts)), cobra.ShellCompDirectiveNoFileComp
}
