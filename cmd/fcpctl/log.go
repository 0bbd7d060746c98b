package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"fcp"
	"fcp/engine"
	"fcp/log"
	"fcp/node/api"
)

func (a *app) logCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "log", Short: "The log of events: tail, follow, cat, verify"}
	group(cmd)
	cmd.AddCommand(a.logTailCommand(), a.logFollowCommand(), a.logCatCommand(), a.logVerifyCommand())
	return cmd
}

// eventOptions select events.
type eventOptions struct {
	zone  string
	key   string
	kinds []string
	at    *atFlag
}

func (a *app) eventFlags(cmd *cobra.Command) *eventOptions {
	o := &eventOptions{at: a.atOption(cmd)}
	a.selectionFlags(cmd, o)
	return o
}

// selectionFlags adds the flags that select events, but for --at.
func (a *app) selectionFlags(cmd *cobra.Command, o *eventOptions) {
	cmd.Flags().StringVar(&o.zone, "zone", "", "only events of this zone (default all)")
	cmd.Flags().StringVar(&o.key, "key", "", "only events of this object")
	cmd.Flags().StringSliceVar(&o.kinds, "kind", nil, "only events of these kinds")
	_ = cmd.RegisterFlagCompletionFunc("zone", completeZones)
	_ = cmd.RegisterFlagCompletionFunc("kind", func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		var out []string
		for _, k := range fcp.Kinds() {
			out = append(out, k.String())
		}
		return out, cobra.ShellCompDirectiveNoFileComp
	})
}

func (o *eventOptions) request() (r engine.TailRequest, err error) {
	if o.zone != "" {
		if r.Zone, err = fcp.ParseZoneID(o.zone); err != nil {
			return r, err
		}
	}
	for _, name := range o.kinds {
		k, err := fcp.ParseKind(name)
		if err != nil {
			return r, err
		}
		r.Kinds = append(r.Kinds, k)
	}
	r.Key = o.key
	return r, nil
}

func (a *app) logTailCommand() *cobra.Command {
	var (
		o      *eventOptions
		last   int
		follow bool
	)
	cmd := &cobra.Command{
		Use: "tail", Short: "The last events, and new ones as they come with -f", Args: args(0, 0),
		Example: "  fcpctl log tail -n 20\n  fcpctl log tail --key notes/today -o ndjson",
		RunE: func(cmd *cobra.Command, _ []string) error {
			req, err := o.request()
			if err != nil {
				return err
			}
			if last < 1 {
				return usagef("give a number from 1 on", "--last %d", last)
			}
			if follow && !o.at.IsNow() {
				return usagef("leave one of them out", "--follow and --at exclude each other")
			}
			if follow && a.flags.format == formatJSON {
				return usagef("use -o ndjson", "--follow has no end, one JSON object has")
			}
			req.Last, req.Follow = last, follow
			return a.withAny(cmd.Context(), reading, func(e api.Store) error { return a.printEvents(cmd.Context(), e, req, o.at.At) })
		},
	}
	o = a.eventFlags(cmd)
	cmd.Flags().IntVarP(&last, "last", "n", 10, "begin this many positions before the end")
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on with new events until interrupted")
	return cmd
}

func (a *app) printEvents(ctx context.Context, e api.Store, req engine.TailRequest, at engine.At) error {
	asOf, err := e.PositionAt(at)
	if err != nil {
		return err
	}
	if !req.Follow {
		if asOf == 0 {
			return a.list("Event", 0).close()
		}
		if req.To == 0 {
			req.To = asOf
		}
	}
	if req.Last > 0 && !at.IsNow() { // the end is asOf then
		req.From, req.Last = max(asOf, uint64(req.Last))-uint64(req.Last)+1, 0
	}
	l := a.list("Event", asOf, "POSITION", "TIME", "ZONE", "PLANE", "SEQ", "KIND", "GENERATION", "BODY", "KEY", "HASH")
	l.live = req.Follow
	err = e.Tail(ctx, req, func(r *engine.EventRow) error {
		v := viewEvent(r)
		return l.add(v, decimal(v.Position), decimal(v.Position), v.Time, v.Zone.String(), v.Plane, decimal(v.Seq), v.Kind,
			decimal(v.Generation), decimal(uint64(v.Body)), v.Key, a.short(v.Hash))
	})
	if err != nil {
		return err
	}
	return l.end(asOf)
}

func (a *app) logCatCommand() *cobra.Command {
	var (
		o   *eventOptions
		raw bool
	)
	cmd := &cobra.Command{
		Use: "cat [POSITION[-POSITION]]", Short: "Events of a range of positions; one event in full", Args: args(0, 1),
		Example: "  fcpctl log cat 17\n  fcpctl log cat 1-100 -o ndjson\n  fcpctl log cat 17 --raw > event.cbor",
		RunE: func(cmd *cobra.Command, args []string) error {
			req, err := o.request()
			if err != nil {
				return err
			}
			single, err := parseRange(optional(args, 0), &req)
			if err != nil {
				return err
			}
			if raw && !single {
				return usagef("give one position", "--raw prints one event")
			}
			return a.withStore(cmd.Context(), reading, func(e *engine.Engine) error {
				if !single {
					return a.catEvents(cmd.Context(), e, req, o.at.At)
				}
				return a.catEvent(cmd.Context(), e, req.From, o.at.At, raw)
			})
		},
	}
	o = a.eventFlags(cmd)
	cmd.Flags().BoolVar(&raw, "raw", false, "print the canonical bytes of one event")
	return cmd
}

// parseRange reads "", "17" or "17-30".
func parseRange(s string, r *engine.TailRequest) (single bool, err error) {
	if s == "" {
		return false, nil
	}
	from, to, ranged := strings.Cut(s, "-")
	if !ranged {
		to = from
	}
	r.From, err = strconv.ParseUint(from, 10, 64)
	if err == nil {
		r.To, err = strconv.ParseUint(to, 10, 64)
	}
	if err != nil || r.From == 0 || r.To < r.From {
		return false, usagef("give a position (17) or a range (17-30)", "%q is no position", s)
	}
	return !ranged, nil
}

func (a *app) catEvents(ctx context.Context, e *engine.Engine, req engine.TailRequest, at engine.At) error {
	asOf, err := e.PositionAt(at)
	if err != nil {
		return err
	}
	if req.From > asOf {
		return fcp.Errorf(fcp.CodeNotPosition, "position %d, the log ends at %d", req.From, asOf)
	}
	if req.To == 0 || req.To > asOf {
		req.To = asOf
	}
	return a.printEvents(ctx, api.Local{Engine: e}, req, at)
}

// catView is one event in full as JSON.
type catView struct {
	eventView
	Feed        string `json:"feed"`
	Prev        string `json:"prev,omitempty"`
	Under       string `json:"under,omitempty"`
	Idempotency bool   `json:"idempotency"` // written with an idempotency key
}

func (a *app) catEvent(_ context.Context, e *engine.Engine, position uint64, at engine.At, raw bool) error {
	asOf, err := e.PositionAt(at)
	if err != nil {
		return err
	}
	if position > asOf {
		return fcp.Errorf(fcp.CodeNotPosition, "position %d, the log ends at %d", position, asOf)
	}
	no, seq, err := e.Log().At(position)
	if err != nil {
		return err
	}
	ev, hash, err := e.Log().ReadFull(no, seq)
	if err != nil {
		return err
	}
	if raw {
		if _, err := a.out.Write(ev.AppendTo(nil)); err != nil {
			return err
		}
		a.answered(asOf)
		return nil
	}
	v := viewFull(&ev, hash, position)
	return a.answer("Event", asOf, v, decimal(position), field{"position", decimal(position)}, field{"zone", v.Zone.String()},
		field{"plane", v.Plane}, field{"writer", v.Writer}, field{"incarnation", v.Incarnation}, field{"seq", decimal(v.Seq)},
		field{"time", v.Time}, field{"kind", v.Kind}, field{"key", v.Key}, field{"generation", decimal(v.Generation)},
		field{"replaces", strings.Join(v.Replaces, " ")}, field{"object", v.Object}, field{"size", decimal(v.Size)},
		field{"body", decimal(uint64(v.Body))}, field{"hash", v.Hash}, field{"prev", v.Prev}, field{"under", v.Under}, field{"feed", v.Feed})
}

func viewFull(ev *fcp.Event, hash fcp.Hash, position uint64) catView {
	v := catView{Feed: ev.Feed.ID().String(), Prev: hashText(ev.Prev), Under: hashText(ev.Under), Idempotency: len(ev.Content.Idempotency) > 0}
	c := &ev.Content
	v.eventView = eventView{Position: position, Zone: ev.Feed.Zone, Plane: ev.Feed.Plane.String(), Writer: ev.Feed.Writer.String(),
		Incarnation: incarnationText(ev.Feed.Incarnation), Seq: ev.Seq, Time: timeText(ev.Time.Wall()), Kind: c.Kind.String(),
		Key: string(c.Key), Object: hashText(c.Object), Generation: c.Generation, Size: c.Size, Body: len(c.Body), Hash: hashText(hash)}
	for i := range c.Replaces.Len() {
		v.Replaces = append(v.Replaces, c.Replaces.At(i).String())
	}
	return v
}

func (a *app) logVerifyCommand() *cobra.Command {
	var at *atFlag
	cmd := &cobra.Command{
		Use: "verify", Short: "Check hashes, chains and Merkle trees of the log", Args: args(0, 0),
		Long: "verify reads the whole log and recomputes every hash, chain and Merkle tree. `fcpctl verify`\ndoes this too, and then checks bodies, segments and the state.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withStore(cmd.Context(), reading, func(e *engine.Engine) error { return a.verifyLog(cmd.Context(), e, at.At) })
		},
	}
	at = a.atOption(cmd)
	return cmd
}

// feedView is the head of a feed as JSON.
type feedView struct {
	Feed   string     `json:"feed"`
	Zone   fcp.ZoneID `json:"zone"`
	Plane  string     `json:"plane"`
	Own    bool       `json:"own"`
	Seq    uint64     `json:"seq"`
	Sealed uint64     `json:"sealed"`
	Hash   string     `json:"hash,omitempty"`
	Root   string     `json:"root,omitempty"`
}

func viewFeed(f *log.FeedState) feedView {
	return feedView{Feed: f.ID.String(), Zone: f.Feed.Zone, Plane: f.Feed.Plane.String(), Own: f.Own, Seq: f.Seq, Sealed: f.Sealed,
		Hash: hashText(f.Hash), Root: hashText(f.Root)}
}

type logReportView struct {
	Events uint64     `json:"events"`
	Feeds  []feedView `json:"feeds"`
}

func (a *app) verifyLog(ctx context.Context, e *engine.Engine, at engine.At) error {
	asOf, err := e.PositionAt(at)
	if err != nil {
		return err
	}
	p := a.progress("verify", "events")
	defer p.done()
	var v logReportView
	if asOf > 0 {
		err = e.Log().Scan(ctx, log.ScanOptions{To: asOf, Verify: log.VerifyTree}, func(events []log.Applied) error {
			v.Events += uint64(len(events))
			p.tell("log", v.Events, asOf)
			return nil
		})
	}
	if err != nil {
		return err
	}
	for _, f := range e.Log().Feeds() {
		v.Feeds = append(v.Feeds, viewFeed(&f))
	}
	p.done()
	err = a.record("LogReport", asOf, v, "ok", field{"events", decimal(v.Events)}, field{"feeds", strconv.Itoa(len(v.Feeds))}, field{"result", "every hash, chain and tree is right"})
	if err != nil {
		return err
	}
	a.answered(asOf, fmt.Sprintf("%d events", v.Events))
	return e.Log().Doubt()
}
