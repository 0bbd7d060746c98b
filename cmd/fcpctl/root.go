package main

import (
	"cmp"
	"errors"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

const rootLong = `fcpctl works on a store: a log of events, and objects with all their versions.

  fcpctl init --identity FILE          make a store
  fcpctl object put KEY PATH           write a version of an object
  fcpctl object get KEY                read it; --at for the past
  fcpctl status                        what is there, and what to do next

Every flag has an environment variable: --dir is FCP_DIR, --expect is FCP_EXPECT.
A flag wins over its variable, that over the settings file (fcpctl context --help).
Exit codes: fcpctl help exit-codes.`

func (a *app) rootCommand() *cobra.Command {
	a.flags = global{format: formatTable, color: "auto"}
	root := &cobra.Command{
		Use: "fcpctl", Short: "The command line of a store", Long: rootLong,
		SilenceErrors: true, SilenceUsage: true,
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error { return a.bindEnvironment(cmd) },
	}
	group(root)
	f := root.PersistentFlags()
	f.StringVar(&a.flags.dir, "dir", "", "directory of the store (default $XDG_DATA_HOME/fcp)")
	f.StringVar(&a.flags.node, "node", "", "the store of the node of this `NAME`, one of up --nodes")
	f.VarP(&a.flags.format, "output", "o", "how data is printed")
	f.Var(&a.flags.color, "color", "when to use colour")
	f.BoolVarP(&a.flags.quiet, "quiet", "q", false, "no notes and no progress on stderr")
	f.BoolVar(&a.flags.fresh, "fresh", false, "read only when every other device is there and all that it told of is here")
	f.DurationVar(&a.flags.staleness, "max-staleness", 0, "read only when every other device was there within this time")
	f.StringVar(&a.flags.config, "config", "", "settings file (default $XDG_CONFIG_HOME/fcp/config.hujson)")
	f.StringVar(&a.flags.context, "context", "", "settings to use, by name")
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		if n := (*strconv.NumError)(nil); errors.As(err, &n) {
			before, _, _ := strings.Cut(err.Error(), ": strconv.")
			err = errors.New(before + ": not a number that it takes")
		}
		return usagef("see `"+cmd.CommandPath()+" --help`", "%w", err)
	})
	root.AddCommand(a.initCommand(), a.statusCommand(), a.objectCommand(), a.logCommand(), a.segmentCommand(), a.zoneCommand(), a.projCommand(),
		a.replayCommand(), a.proveCommand(), a.verifyCommand(), a.backupCommand(), a.restoreCommand(), a.demoCommand(), a.demoLoadCommand(), a.versionCommand(),
		a.contextCommand(), a.doctorCommand(), a.bugreportCommand(), a.manCommand(), a.benchCommand(), a.tortureCommand(),
		&cobra.Command{Use: "exit-codes", Short: "What the exit codes mean", Long: exitPage()})
	root.AddCommand(a.capCommand(), a.whyCommand(), a.auditCommand(), a.deviceCommand(),
		a.upCommand(), a.downCommand(), a.joinCommand(), a.nodeCommand(), a.waitCommand(), a.repairCommand(), a.fcpdCommand(), a.secretCommand(), a.ownerCommand(),
		a.leaseCommand(), a.stateCommand(), a.pinCommand(), a.unpinCommand(), a.packCommand(), a.stageCommand())
	root.InitDefaultHelpFlag() // now, so that `fcpctl --help exit-codes` knows it takes no value
	root.CompletionOptions.DisableDescriptions = false
	_ = root.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(formats, cobra.ShellCompDirectiveNoFileComp))
	_ = root.RegisterFlagCompletionFunc("color", cobra.FixedCompletions(colors, cobra.ShellCompDirectiveNoFileComp))
	_ = root.RegisterFlagCompletionFunc("context", a.completeContexts)
	_ = root.MarkPersistentFlagDirname("dir")
	return root
}

// group makes cmd a noun: alone it shows its help, and an unknown verb is a usage
// error with the nearest ones.
func group(cmd *cobra.Command) {
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return nil
		}
		next := "see `" + cmd.CommandPath() + " --help`"
		cmd.SuggestionsMinimumDistance = min(2, len(args[0])/3+1) // short words are near to everything
		if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
			for i := range near {
				near[i] = "`" + cmd.CommandPath() + " " + near[i] + "`"
			}
			next = "did you mean " + strings.Join(near, " or ") + "?"
		}
		return usagef(next, "there is no command %q behind %s", args[0], cmd.CommandPath())
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
}

// args wants between low and high arguments; high -1 is no limit.
func args(low, high int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) >= low && (high < 0 || len(args) <= high) {
			return nil
		}
		return usagef("see `"+cmd.CommandPath()+" --help`", "%d arguments; wanted is: %s", len(args), cmd.UseLine())
	}
}

// environmentName is the variable of a flag: FCP_ and its name.
func environmentName(flag string) string {
	return "FCP_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// bindEnvironment gives each flag that was not on the command line the value of
// its variable, else of the settings file, and works out the store's directory.
func (a *app) bindEnvironment(cmd *cobra.Command) (err error) {
	a.flags.dirGiven = cmd.Flags().Changed("dir")
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		v, ok := a.lookupEnv(environmentName(f.Name))
		if f.Changed || !ok || v == "" || err != nil || f.Name == "help" {
			return
		}
		if setErr := cmd.Flags().Set(f.Name, v); setErr != nil {
			err = usagef("set it to a value that --"+f.Name+" takes, or unset it", "the environment variable %s: %w", environmentName(f.Name), setErr)
		}
	})
	if err == nil {
		err = a.bindSettings(cmd)
	}
	if a.flags.dir == "" {
		a.flags.dir = a.defaultPath("XDG_DATA_HOME", ".local/share", "fcp")
	}
	a.bound = err == nil
	if err == nil && a.flags.node != "" {
		a.flags.dir, err = a.nodeDir(a.flags.node)
	}
	return err
}

// guessFormat looks for the output format on a command line that could not be read to
// its end, so that a program gets the error in the form it asked for.
func (a *app) guessFormat(args []string) {
	asked, _ := a.lookupEnv(environmentName("output"))
	for i, arg := range args {
		if arg == "--" {
			break
		}
		next := strings.Join(args[i+1:min(i+2, len(args))], "")
		if v, ok := strings.CutPrefix(arg, "--output"); ok && (v == "" || v[0] == '=') {
			asked = cmp.Or(strings.TrimPrefix(v, "="), next)
		} else if v, ok := strings.CutPrefix(arg, "-o"); ok {
			asked = cmp.Or(strings.TrimPrefix(v, "="), next)
		}
	}
	if f := formatFlag(asked); f.structured() {
		a.flags.format = f
	}
}

// homeless is the directory of whoever has none: below what is no directory nothing is,
// and nothing can be made. The working directory is never taken in its place.
const homeless = "/dev/null/no-HOME-is-set"

// defaultPath is a path under a directory of the XDG base directory specification.
func (a *app) defaultPath(variable, fallback string, name ...string) string {
	base, _ := a.lookupEnv(variable)
	if !filepath.IsAbs(base) {
		home, _ := a.lookupEnv("HOME")
		if !filepath.IsAbs(home) {
			home = homeless
		}
		base = filepath.Join(home, fallback)
	}
	return filepath.Join(append([]string{base}, name...)...)
}
