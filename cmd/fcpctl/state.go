package main

import (
	"context"
	"encoding/hex"
	"maps"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"fcp"
	"fcp/authority"
	"fcp/authority/crdt"
	"fcp/engine"
)

func (a *app) stateCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "state", Short: "The state of connectors: one writer under a lease, or a CRDT"}
	group(cmd)
	cmd.AddCommand(a.stateListCommand(), a.stateDefineCommand(), a.stateGetCommand(), a.stateWriteCommand(), a.stateChangeCommand(), a.stateLogCommand(),
		a.stateSnapshotCommand())
	return cmd
}

// stateRootView is the root of a connector's state as JSON.
type stateRootView struct {
	Root      string      `json:"root"` // also the subject of the lease for writing it
	Zone      fcp.ZoneID  `json:"zone"`
	Connector string      `json:"connector"`
	Instance  string      `json:"instance,omitempty"`
	Model     string      `json:"model"`
	CRDT      string      `json:"crdt,omitempty"`
	Schema    uint64      `json:"schema_version"`
	Created   string      `json:"created,omitempty"`
	Device    string      `json:"device,omitempty"` // that defined it
	DryRun    bool        `json:"dry_run,omitempty"`
	Planned   []eventView `json:"planned,omitempty"`
}

func viewRoot(r *engine.StateRoot) stateRootView {
	return stateRootView{Root: r.ID.String(), Zone: r.Zone, Connector: r.Connector.String(), Instance: r.Instance.String(), Model: string(r.Model),
		CRDT: string(r.CRDT), Schema: r.Schema, Created: secondsText(r.At), Device: r.Writer.String()}
}

// stateView is what a connector's state is, as JSON: value for a singleton writer,
// entries, elements or count for a CRDT.
type stateView struct {
	stateRootView
	State    string            `json:"state,omitempty"` // id of the state object
	Prev     string            `json:"prev,omitempty"`
	Number   uint64            `json:"number,omitempty"`
	LeaseSeq uint64            `json:"lease_seq,omitempty"`
	Lease    string            `json:"lease_object_id,omitempty"`
	Holder   string            `json:"holder,omitempty"`
	Updated  string            `json:"updated,omitempty"`
	Value    *[]byte           `json:"value,omitempty"` // base64
	Entries  map[string]string `json:"entries,omitempty"`
	Elements []string          `json:"elements,omitempty"`
	Count    *string           `json:"count,omitempty"` // decimal
	Since    *int              `json:"deltas_since_snapshot,omitempty"`
	OnChain  *bool             `json:"on_chain,omitempty"` // whether the head follows from it
}

func viewState(r *engine.StateRoot, s *engine.StateVersion) stateView {
	return stateView{stateRootView: viewRoot(r), State: s.ID.String(), Prev: hashText(s.Prev), Number: s.Seq, LeaseSeq: uint64(s.Fence),
		Lease: s.Lease.String(), Holder: s.Holder.String(), Updated: secondsText(s.At)}
}

// textOr is bytes as text, or as hex digits behind "hex:" when they are none.
func textOr(b []byte) string {
	if s := string(b); utf8.Valid(b) && !strings.HasPrefix(s, "hex:") {
		return s
	}
	return "hex:" + hex.EncodeToString(b)
}

func viewMerged(r *engine.StateRoot, m *engine.MergedState) stateView {
	v := stateView{stateRootView: viewRoot(r), Since: &m.Since}
	count := ""
	switch s := m.State.(type) {
	case *crdt.LWWMap:
		v.Entries = map[string]string{}
		for _, k := range s.Keys() {
			value, _ := s.Get(k)
			v.Entries[k] = textOr(value)
		}
	case *crdt.ORSet:
		for _, e := range s.Elements() {
			v.Elements = append(v.Elements, textOr(e))
		}
	case *crdt.GCounter:
		count = decimal(s.Value())
	case *crdt.PNCounter:
		count = strconv.FormatInt(s.Value(), 10)
	}
	if count != "" {
		v.Count = &count
	}
	return v
}

func (v *stateView) fields() []field {
	out := []field{{"root", v.Root}, {"zone", v.Zone.String()}, {"connector", v.Connector}, {"model", strings.TrimSpace(v.Model + " " + v.CRDT)}}
	if v.State != "" {
		out = append(out, field{"state", v.State}, field{"number", decimal(v.Number)}, field{"fence", decimal(v.LeaseSeq)}, field{"holder", v.Holder}, field{"updated", v.Updated})
	}
	if v.Count != nil {
		out = append(out, field{"count", *v.Count})
	}
	for _, e := range v.Elements {
		out = append(out, field{"element", e})
	}
	for _, k := range slices.Sorted(maps.Keys(v.Entries)) {
		out = append(out, field{"entry", k + "=" + v.Entries[k]})
	}
	return out
}

type stateOptions struct {
	zone     *zoneFlag
	instance string
}

func stateFlags(cmd *cobra.Command) *stateOptions {
	o := &stateOptions{zone: zoneOption(cmd)}
	cmd.Flags().StringVar(&o.instance, "instance", "", "instance of the connector")
	return o
}

// with runs fn with the state of a connector.
func (o *stateOptions) with(ctx context.Context, a *app, mode openMode, connector string, fn func(e *engine.Engine, r *engine.StateRoot) error) error {
	return a.withStore(ctx, mode, func(e *engine.Engine) error {
		r, err := e.FindState(fcp.ZoneID(*o.zone), fcp.CanonicalID(connector), fcp.CanonicalID(o.instance))
		if err != nil {
			return err
		}
		return fn(e, r)
	})
}

func (a *app) printMerged(e *engine.Engine, r *engine.StateRoot, m *engine.MergedState) error {
	v := viewMerged(r, m)
	return a.answer("State", e.Position(), v, v.Root, v.fields()...)
}

func (a *app) stateListCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "ls", Short: "Which connectors have a state", Args: args(0, 0)}
	zone := zoneOption(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return a.withStore(cmd.Context(), reading, func(e *engine.Engine) error {
			roots, err := e.StateRoots(fcp.ZoneID(*zone))
			if err != nil {
				return err
			}
			l := a.list("StateRoot", e.Position(), "MODEL", "CRDT", "CREATED", "ROOT", "INSTANCE", "CONNECTOR")
			for i := range roots {
				v := viewRoot(&roots[i])
				if err := l.add(v, v.Root, v.Model, v.CRDT, v.Created, a.short(v.Root), v.Instance, v.Connector); err != nil {
					return err
				}
			}
			return l.end(e.Position())
		})
	}
	return cmd
}

func (a *app) stateDefineCommand() *cobra.Command {
	var model, kind string
	var version uint64
	dryRun := false
	cmd := &cobra.Command{
		Use: "define CONNECTOR", Short: "Say how a connector's state may be written", Args: args(1, 1),
		Long: `define makes the root of a connector's state. singleton_writer: one device at a time
writes whole states, under a lease on the root. crdt: every device changes it, and
changes merge. stateless: there is none.`,
		Example: "  fcpctl state define mail:imap --model singleton_writer\n  fcpctl state define mail:labels --model crdt --crdt or_set",
	}
	o := stateFlags(cmd)
	f := cmd.Flags()
	f.StringVar(&model, "model", string(authority.StateSingleton), "singleton_writer, crdt or stateless")
	f.StringVar(&kind, "crdt", "", "lww_map, or_set, g_counter or pn_counter")
	f.Uint64Var(&version, "schema-version", 1, "version of what the connector writes into it")
	dryRunFlag(cmd, &dryRun)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if m := authority.StateModel(model); m != authority.StateSingleton && m != authority.StateStateless && m != authority.StateCRDT ||
			(m == authority.StateCRDT) != crdt.Kind(kind).Valid() || m != authority.StateCRDT && kind != "" {
			return fcp.Errorf(fcp.CodeInvalidArgument, "there is no model %q with the CRDT %q", model, kind).WithNext("see `" + cmd.CommandPath() + " --help` for the models")
		}
		return a.withStore(cmd.Context(), openMode(!dryRun), func(e *engine.Engine) error {
			spec := authority.StateRootSpec{Zone: fcp.ZoneID(*o.zone), Connector: fcp.CanonicalID(args[0]), Instance: fcp.CanonicalID(o.instance),
				Model: authority.StateModel(model), CRDT: crdt.Kind(kind), Schema: version}
			v := stateRootView{Zone: spec.Zone, Connector: args[0], Instance: o.instance, Model: model, CRDT: kind, Schema: version, DryRun: true,
				Planned: []eventView{{Zone: spec.Zone, Plane: fcp.PlaneControl.String(), Kind: fcp.KindStateDefined.String()}}}
			if dryRun {
				spec.At = a.now()
				if _, err := authority.EncodeStateRoot(fcp.WriterOf(e.Signer().Public()), spec); err != nil {
					return err
				}
				if a.flags.format == formatTable {
					return a.printPlanned(v.Planned)
				}
			} else {
				r, err := e.DefineState(cmd.Context(), spec)
				if err != nil {
					return err
				}
				v = viewRoot(r)
			}
			full := stateView{stateRootView: v}
			return a.answer("StateRoot", e.Position(), v, v.Root, full.fields()...)
		})
	}
	return cmd
}

func (a *app) stateGetCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "get CONNECTOR", Short: "A connector's state", Args: args(1, 1),
		Long: "get writes the bytes of a singleton writer's state to stdout, or what a CRDT holds, one fact per line. With -o json it is one object.",
	}
	o := stateFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return o.with(cmd.Context(), a, reading, args[0], func(e *engine.Engine, r *engine.StateRoot) error {
			return a.getState(e, r)
		})
	}
	return cmd
}

func (a *app) getState(e *engine.Engine, r *engine.StateRoot) error {
	if r.Model == authority.StateCRDT {
		m, err := e.ReadCRDT(r)
		if err != nil {
			return err
		}
		return a.printMerged(e, r, m)
	}
	s, err := e.HeadState(r)
	if err != nil {
		return err
	}
	if s == nil {
		return fcp.Errorf(fcp.CodeNotFound, "%s has no state yet", r.Connector).WithNext("write one with `" + a.command("state", "write", string(r.Connector), "PATH") + "`")
	}
	plain, err := e.OpenState(r, &s.State)
	if err != nil {
		return err
	}
	if !a.flags.format.structured() {
		_, err := a.out.Write(plain)
		a.answered(e.Position())
		return err
	}
	v := viewState(r, s)
	v.Value = &plain
	return a.record("State", e.Position(), v, v.State)
}

func (a *app) stateWriteCommand() *cobra.Command {
	var follow string
	dryRun := false
	cmd := &cobra.Command{
		Use: "write CONNECTOR PATH|-", Short: "Write the next state of a singleton writer", Args: args(2, 2),
		Long: `write appends a state behind the current one. This device must hold the lease on the
root for connector_state_write; a writer that lost it is refused with exit code 8.`,
		Example: "  fcpctl lease acquire ROOT --purpose connector_state_write\n  fcpctl state write mail:imap cursor.cbor",
	}
	o := stateFlags(cmd)
	cmd.Flags().StringVar(&follow, "follow", "", "id of the state that it follows; fails unless that is the current one, or one of two")
	dryRunFlag(cmd, &dryRun)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		plain, err := a.readInput(args[1], authority.MaxConnectorState, "a connector's state")
		if err != nil {
			return err
		}
		var id fcp.ObjectID
		if follow != "" {
			h, err := fcp.ParseHash(follow)
			if err != nil {
				return err
			}
			id = fcp.ObjectID(h)
		}
		return o.with(cmd.Context(), a, openMode(!dryRun), args[0], func(e *engine.Engine, r *engine.StateRoot) error {
			return a.writeState(cmd.Context(), e, r, plain, id, dryRun)
		})
	}
	return cmd
}

func (a *app) writeState(ctx context.Context, e *engine.Engine, r *engine.StateRoot, plain []byte, follow fcp.ObjectID, dryRun bool) error {
	var v stateView
	if dryRun {
		if _, err := e.OwnLease(r.Thing()); err != nil {
			return a.adviseLease(err, r)
		}
		v = stateView{stateRootView: viewRoot(r)}
		v.DryRun, v.Planned = true, []eventView{{Zone: r.Zone, Plane: fcp.PlaneControl.String(), Kind: fcp.KindStateWritten.String()}}
		if a.flags.format == formatTable {
			return a.printPlanned(v.Planned)
		}
	} else {
		s, err := e.WriteState(ctx, r, plain, follow)
		if err != nil {
			return a.adviseLease(err, r)
		}
		v = viewState(r, s)
	}
	return a.answer("State", e.Position(), v, v.State, v.fields()...)
}

// adviseLease names the command that gets the lease for writing a state.
func (a *app) adviseLease(err error, r *engine.StateRoot) error {
	if code := fcp.CodeOf(err); code == fcp.CodeNotFound || code == fcp.CodeFenced || code == fcp.CodeLeaseHeld {
		return advise(err, code, "get the lease with `"+a.command("lease", "acquire", r.ID.String(), "--purpose", string(authority.LeaseConnectorState), "--zone", r.Zone.String())+"`")
	}
	return err
}

func (a *app) stateChangeCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "change CONNECTOR set KEY VALUE | remove KEY | add ELEMENT|N", Short: "Change the state of a CRDT", Args: args(3, 4),
		Long: `change makes one change: "set KEY VALUE" and "remove KEY" of an lww_map, "add ELEMENT"
and "remove ELEMENT" of an or_set, "add N" of a counter, where N of a pn_counter may
be negative (write -- before it).`,
		Example: "  fcpctl state change mail:labels add urgent",
	}
	o := stateFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return o.with(cmd.Context(), a, openMode(true), args[0], func(e *engine.Engine, r *engine.StateRoot) error {
			m, err := e.ChangeState(cmd.Context(), r, func(s crdt.State, self fcp.WriterID, at fcp.Time) (crdt.State, error) {
				return change(s, args[1:], self, at)
			})
			if err != nil {
				return err
			}
			return a.printMerged(e, r, m)
		})
	}
	return cmd
}

// change makes the change that the words say. A delta of a type is nil only with an error.
func change(s crdt.State, words []string, self fcp.WriterID, at fcp.Time) (crdt.State, error) {
	verb, rest := words[0], words[1:]
	bad := fcp.Errorf(fcp.CodeInvalidArgument, "a %s has no change %q with %d arguments", s.Kind(), verb, len(rest))
	number := func() (int64, error) {
		n, err := strconv.ParseInt(rest[0], 10, 64)
		if err != nil || n == 0 {
			return 0, fcp.Errorf(fcp.CodeInvalidArgument, "%q is no number to add", rest[0])
		}
		return n, nil
	}
	switch s := s.(type) {
	case *crdt.LWWMap:
		switch {
		case verb == "set" && len(rest) == 2:
			return s.Set(rest[0], []byte(rest[1]), at, self)
		case verb == "remove" && len(rest) == 1:
			return s.Remove(rest[0], at, self)
		}
	case *crdt.ORSet:
		switch {
		case verb == "add" && len(rest) == 1:
			return s.Add([]byte(rest[0]), self)
		case verb == "remove" && len(rest) == 1:
			return s.Remove([]byte(rest[0]))
		}
	case *crdt.GCounter:
		if verb == "add" && len(rest) == 1 {
			n, err := number()
			if err != nil || n < 0 {
				return nil, fcp.Errorf(fcp.CodeInvalidArgument, "a g_counter only grows")
			}
			return s.Add(self, uint64(n))
		}
	case *crdt.PNCounter:
		if verb == "add" && len(rest) == 1 {
			n, err := number()
			if err != nil {
				return nil, err
			}
			return s.Add(self, n)
		}
	}
	return nil, bad
}

func (a *app) stateLogCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "log CONNECTOR", Short: "The states of a singleton writer, the current one first, stale ones too", Args: args(1, 1)}
	o := stateFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return o.with(cmd.Context(), a, reading, args[0], func(e *engine.Engine, r *engine.StateRoot) error {
			l := a.list("StateVersion", e.Position(), "NUMBER", "FENCE", "UPDATED", "CHAIN", "HOLDER", "STATE")
			err := e.EachState(r, func(s *engine.StateVersion, onChain bool) error {
				v := viewState(r, s)
				v.OnChain = &onChain
				chain := "current"
				if !onChain {
					chain = "stale"
				}
				return l.add(v, v.State, decimal(v.Number), decimal(v.LeaseSeq), v.Updated, chain, a.short(v.Holder), a.short(v.State))
			})
			if err != nil {
				return err
			}
			return l.end(e.Position())
		})
	}
	return cmd
}

func (a *app) stateSnapshotCommand() *cobra.Command {
	verify := false
	cmd := &cobra.Command{Use: "snapshot CONNECTOR", Short: "Write all of a CRDT down, so that reading it needs only later changes", Args: args(1, 1)}
	o := stateFlags(cmd)
	cmd.Flags().BoolVar(&verify, "verify", false, "write nothing; compare the snapshots with all changes")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return o.with(cmd.Context(), a, openMode(!verify), args[0], func(e *engine.Engine, r *engine.StateRoot) error {
			if r.Model != authority.StateCRDT {
				return fcp.Errorf(fcp.CodeInvalidArgument, "the state of %s is %s", r.Connector, r.Model).WithNext("only a CRDT has snapshots; see `fcpctl state get`")
			}
			if !verify {
				m, err := e.SnapshotState(cmd.Context(), r)
				if err != nil {
					return err
				}
				return a.printMerged(e, r, m)
			}
			if err := e.VerifyCRDT(r); err != nil {
				return err
			}
			m, err := e.ReadCRDT(r)
			if err != nil {
				return err
			}
			return a.printMerged(e, r, m)
		})
	}
	return cmd
}
