package main

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"fcp"
	"fcp/authority"
	"fcp/authority/keystore"
	"fcp/engine"
	"fcp/node/api"
)

// sources are the stores of other devices that are in reach as directories.
type sources struct {
	asker fcp.WriterID
	open  map[fcp.WriterID]*engine.Engine
}

// AskShare implements engine.ShareSource. The session between two directories of one
// machine is this process.
func (s *sources) AskShare(ctx context.Context, device fcp.WriterID, ask []byte) ([]byte, error) {
	e := s.open[device]
	if e == nil {
		return nil, fcp.Errorf(fcp.CodeTimeout, "it is not in reach")
	}
	return e.AnswerShareAsk(ctx, s.asker, ask)
}

// close closes the stores and returns err, or the first fault of closing.
func (s *sources) close(err error) error {
	for _, e := range s.open {
		err = errors.Join(err, e.Close())
	}
	return err
}

func fromOption(cmd *cobra.Command, from *[]string) {
	cmd.Flags().StringArrayVar(from, "from", nil, "directory with the store of another device that holds a share, instead of the mesh; may be repeated")
	_ = cmd.MarkFlagDirname("from")
}

// openSources opens the stores of other devices; they put what they give on record.
func (a *app) openSources(ctx context.Context, e *engine.Engine, dirs []string, dryRun bool) (*sources, error) {
	s := &sources{asker: e.Node().Writer(), open: map[fcp.WriterID]*engine.Engine{}}
	for _, dir := range dirs {
		o, err := engine.Open(ctx, dir, engine.Options{Environment: a.environment(), ReadOnly: dryRun})
		if err != nil {
			return nil, s.close(err)
		}
		w := o.Node().Writer()
		if s.open[w] != nil || w == s.asker || o.Genesis().ID != e.Genesis().ID {
			return nil, s.close(errors.Join(fcp.Errorf(fcp.CodeInvalidArgument, "%s is not the store of another device of this owner, or is named twice", dir), o.Close()))
		}
		s.open[w] = o
	}
	return s, nil
}

// useFlags say who uses a secret and where the shares are.
type useFlags struct {
	zone       *zoneFlag
	identity   *identityOptions
	token, key string
	from       []string
}

func useSecretOptions(cmd *cobra.Command) *useFlags {
	o := &useFlags{zone: zoneOption(cmd), identity: identityFlags(cmd, "identity file of the owner")}
	cmd.Flags().StringVar(&o.token, "token", "", "file with a capability token for secret.use, instead of --identity")
	cmd.Flags().StringVar(&o.key, "key", "", "file with the key of the token's holder")
	fromOption(cmd, &o.from)
	return o
}

// secretUser says who uses a secret: the holder of a token, or the owner, if his key is the
// store's. done wipes the key.
func (a *app) secretUser(o *useFlags, check func(authority.OwnerPublic) error, u *engine.SecretUse) (done func(), err error) {
	if o.token == "" {
		owner, err := a.ownerFor(o.identity, "the use of a secret without a token")
		if err != nil {
			return nil, err
		}
		if err := check(owner.Public()); err != nil {
			owner.Wipe()
			return nil, err
		}
		u.Sign = a.accessSigner(owner)
		return owner.Wipe, nil
	}
	chain, err := keystore.LoadToken(keystore.OS{}, o.token)
	if err != nil {
		return nil, err
	}
	if o.key == "" {
		return nil, usagef("give the file that was written together with the token", "--key names the file with the holder's key")
	}
	holder, err := keystore.LoadHolder(keystore.OS{}, o.key)
	if err != nil {
		return nil, err
	}
	u.Caller = &engine.Caller{Token: chain, Prove: func(c authority.Challenge, leaf, request fcp.Hash) ([]byte, error) {
		return holder.Prove(c, leaf, request), nil
	}}
	return holder.Wipe, nil
}

// accessSigner signs with the owner's key that this device may rebuild a secret once.
func (a *app) accessSigner(owner *authority.OwnerKey) func(*authority.Secret, authority.SecretAccessSpec) ([]byte, error) {
	return func(_ *authority.Secret, spec authority.SecretAccessSpec) ([]byte, error) {
		return authority.SignSecretAccess(a.random(), owner, spec)
	}
}

// useSecret lets fn use the value of a secret, and returns the position after it. Where
// fcpd runs it gathers the shares over the mesh, and goes on while fn runs; with --from it
// steps aside.
func (a *app) useSecret(ctx context.Context, o *useFlags, name, purpose string, fn func(value []byte) error) (asOf uint64, err error) {
	u := engine.SecretUse{Zone: fcp.ZoneID(*o.zone), Name: name, Purpose: purpose}
	if len(o.from) == 0 {
		r, err := a.daemon(ctx)
		if err != nil {
			return 0, err
		}
		if r != nil {
			return a.useSecretMesh(ctx, r, o, u, fn)
		}
	}
	err = a.withStore(ctx, writing, func(e *engine.Engine) error {
		done, err := a.secretUser(o, e.Genesis().CheckOwner, &u)
		if err != nil {
			return err
		}
		defer done()
		stores, err := a.openSources(ctx, e, o.from, false)
		if err != nil {
			return err
		}
		u.Sources = stores
		used, err := e.UseSecret(ctx, u, fn)
		if err = stores.close(err); err != nil {
			return a.refused(advise(err, fcp.CodeNotEnough, "fcpd asks the other devices: `"+a.command("up")+"`, then repeat; or name the store of one that holds a share with --from DIR"))
		}
		members, err := e.Members()
		if err != nil {
			return err
		}
		asOf = e.Position()
		return a.usedSecret(members, asOf, &used)
	})
	return asOf, err
}

func (a *app) useSecretMesh(ctx context.Context, r *api.Remote, o *useFlags, u engine.SecretUse, fn func(value []byte) error) (asOf uint64, err error) {
	done, err := a.secretUser(o, r.CheckOwner, &u)
	if err != nil {
		return 0, err
	}
	defer done()
	shares, used, err := a.gatherShares(ctx, r, u)
	if err != nil {
		return 0, a.refused(err)
	}
	defer shares.Wipe()
	asOf, a.answers = r.Position(), r
	members, err := namedMembers(ctx, r)
	if err != nil {
		return 0, err
	}
	if err := shares.Use(fn); err != nil {
		return 0, err
	}
	return asOf, a.usedSecret(members, asOf, &used)
}

// gatherShares has fcpd gather the shares of a secret, and opens them with this device's
// keys.
func (a *app) gatherShares(ctx context.Context, r *api.Remote, u engine.SecretUse) (*engine.GatheredShares, engine.SecretUsed, error) {
	node, err := engine.LoadNodeKeys(a.flags.dir, a.environment())
	if err != nil {
		return nil, engine.SecretUsed{}, err
	}
	defer node.Wipe()
	return r.GatherShares(ctx, u, node)
}

// namedMembers returns the devices that fcpd knows, with their names alone.
func namedMembers(ctx context.Context, r *api.Remote) (out []engine.Member, err error) {
	st, err := r.Client().Status(ctx)
	if err != nil {
		return nil, err
	}
	for _, m := range st.Members {
		h, err := fcp.ParseHash(m.Writer)
		if err != nil {
			return nil, err
		}
		out = append(out, engine.Member{Writer: fcp.WriterID(h), Name: m.Name})
	}
	return out, nil
}

// gathered are shares that fcpd gathered before it stepped aside, by secret. It is the
// ShareSource of what needs the store for itself.
type gathered map[authority.SecretID]*engine.GatheredShares

// AskShare implements engine.ShareSource.
func (g gathered) AskShare(_ context.Context, device fcp.WriterID, message []byte) ([]byte, error) {
	ask, err := authority.DecodeShareAsk(message)
	if err != nil {
		return nil, err
	}
	if x := g[ask.Secret]; x != nil && x.Sealed(device) != nil {
		return x.Sealed(device), nil
	}
	return nil, fcp.Errorf(fcp.CodeTimeout, "it gave none before")
}

// gatherFor takes the shares of one more secret from fcpd, for the owner.
func (a *app) gatherFor(ctx context.Context, r *api.Remote, owner *authority.OwnerKey, zone fcp.ZoneID, name string, into gathered) error {
	shares, used, err := a.gatherShares(ctx, r, engine.SecretUse{Zone: zone, Name: name, Purpose: "reshare", Sign: a.accessSigner(owner)})
	if err != nil {
		return err
	}
	shares.Wipe() // they are opened again where the value is rebuilt
	into[used.State.ID] = shares
	return nil
}

// usedSecretView is what a use took, as JSON.
type usedSecretView struct {
	Name    string   `json:"name"`
	Version uint64   `json:"version"`
	Devices []string `json:"devices"` // whose shares were taken
	Refused []string `json:"refused,omitempty"`
	Request string   `json:"request"` // under which it is on record
}

// usedSecret says on stderr what was used: stdout is the command's.
func (a *app) usedSecret(members []engine.Member, asOf uint64, u *engine.SecretUsed) error {
	v := usedSecretView{Name: u.State.Name, Version: u.State.Version, Devices: []string{}, Request: fcp.Hash(u.Request).String()}
	for _, m := range members {
		for _, w := range u.Devices {
			if m.Writer == w {
				v.Devices = append(v.Devices, m.Name)
			}
		}
		for _, r := range u.Refused {
			if m.Writer == r.Device {
				v.Refused = append(v.Refused, m.Name)
				a.note("%s gave no share: %v", m.Name, r.Err)
			}
		}
	}
	if a.flags.format.structured() {
		b, err := a.envelope("SecretUse", asOf, v)
		if err == nil {
			_, err = a.stderr.Write(append(b, '\n'))
		}
		return err
	}
	a.note("%s, version %d, from the shares of %s", v.Name, v.Version, strings.Join(v.Devices, ", "))
	a.answered(asOf)
	return nil
}

func (a *app) secretUseCommand() *cobra.Command {
	var (
		o *useFlags
		d descriptor
	)
	cmd := &cobra.Command{
		Use: "use NAME -- COMMAND [ARG...]", Short: "Run a command that reads the secret from stdin or a file descriptor", Args: cobra.ArbitraryArgs,
		Long: `use rebuilds the secret in memory and gives it to a command through a pipe: its stdin,
or with --fd N the file descriptor N, 3 or higher. It is in no argument, variable or file. The use is on record
before, here and on each device that gives its share. Where fcpd runs it asks the devices
over the mesh, and only this process opens what they give. The exit code is the command's own
(128 and the signal's number when one ended it), with FCP-7001 on stderr; every other error
is fcpctl's, and then the command did not run or had ended well.`,
		Example: "  fcpctl secret use api/token --identity ~/fcp-identity -- curl -K -\n  fcpctl secret use db --token agent.token --key agent.key --fd 3 -- psql-with-password-fd 3",
		RunE: func(cmd *cobra.Command, args []string) error {
			if cmd.ArgsLenAtDash() != 1 || len(args) < 2 {
				return usagef("see `"+cmd.CommandPath()+" --help`", "wanted is: %s", cmd.UseLine())
			}
			if err := d.check(); err != nil {
				return err
			}
			_, err := a.useSecret(cmd.Context(), o, args[0], "use", func(value []byte) error { return a.runWith(cmd.Context(), value, int(d), args[1:]) })
			return err
		},
	}
	o = useSecretOptions(cmd)
	cmd.Flags().IntVar((*int)(&d), "fd", 0, "file descriptor that the command reads the secret from")
	return cmd
}

// descriptor is the file descriptor that a command reads a secret from: 0 or 3 to 9.
type descriptor int

func (d descriptor) check() error {
	if d != 0 && (d < 3 || d > 9) {
		return usagef("give 0, or 3 to 9", "--fd %d", int(d))
	}
	return nil
}

// runWith runs a command that reads value from a file descriptor. Its own environment
// and arguments do not have it. A command that fails is FCP-7001, with its exit code.
func (a *app) runWith(ctx context.Context, value []byte, fd int, args []string) error {
	if err := a.out.Flush(); err != nil {
		return err
	}
	r, w, err := os.Pipe()
	if err != nil {
		return fcp.Wrap(fcp.CodeDisk, err, "a pipe to the command")
	}
	c := exec.CommandContext(ctx, args[0], args[1:]...)
	c.Stdout, c.Stderr, c.Stdin = a.stdout, a.stderr, r
	if fd != 0 {
		c.Stdin = a.stdin
		c.ExtraFiles = make([]*os.File, fd-2)
		c.ExtraFiles[fd-3] = r
	}
	if err := c.Start(); err != nil {
		return errors.Join(fcp.Errorf(fcp.CodeNotFound, "the command %s cannot be started", args[0]).WithNext("check its name and that it can be executed"), r.Close(), w.Close())
	}
	err = r.Close()
	// It fits into the pipe (pipe(7)), so this neither blocks nor, when the command
	// does not read all of it, says anything but that.
	_, _ = w.Write(value)
	err = errors.Join(err, w.Close())
	waitErr := c.Wait()
	switch {
	case waitErr == nil:
		return err
	case ctx.Err() != nil:
		return interrupted()
	}
	failed := fcp.Errorf(fcp.CodeExternal, "the command %s: %v", args[0], waitErr).WithNext("look at what the command said")
	code := c.ProcessState.ExitCode()
	if w, ok := c.ProcessState.Sys().(syscall.WaitStatus); ok && w.Signaled() {
		code = 128 + int(w.Signal())
	}
	if code <= 0 { // it ended well, and what it wrote could not be passed on
		return failed
	}
	return &exitError{failed, code}
}
