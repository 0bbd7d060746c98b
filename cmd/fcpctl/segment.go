package main

import (
	"context"
	"errors"
	"strings"

	"github.com/spf13/cobra"

	"fcp"
	"fcp/engine"
	"fcp/log"
)

func (a *app) segmentCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "segment", Short: "Sealed segments: list, seal, print, compact"}
	group(cmd)
	cmd.AddCommand(a.segmentLsCommand(), a.segmentSealCommand(), a.segmentCatCommand(), a.segmentCompactCommand())
	cmd.AddCommand(a.segmentSymbolCommands()...)
	cmd.AddCommand(a.segmentFileCommands()...)
	return cmd
}

// segmentView is a sealed segment as JSON.
type segmentView struct {
	Segment string     `json:"segment"`
	No      uint64     `json:"no"`
	Zone    fcp.ZoneID `json:"zone"`
	Plane   string     `json:"plane"`
	First   uint64     `json:"first"` // sequence numbers in the feed
	Last    uint64     `json:"last"`
	Bytes   uint64     `json:"bytes"` // of ciphertext
	Symbols int        `json:"symbols"`
	Root    string     `json:"root"` // Merkle root of the feed at last
	Signer  string     `json:"signer"`
}

func viewSegment(s *log.SegmentInfo) (segmentView, error) {
	t, err := s.Card.Transmission()
	r := &s.Remainder
	v := segmentView{Segment: s.Card.Segment.String(), No: s.No, Zone: r.Zone, Plane: fcp.Plane(r.Plane).String(), First: r.First, Last: r.Last,
		Bytes: t.F, Symbols: t.Symbols(), Signer: fcp.KidOf(s.Card.Signer[:]).String()}
	if len(r.Root) == fcp.HashSize {
		v.Root = fcp.Hash(r.Root).String()
	}
	return v, err
}

func (a *app) addSegment(l *list, s *log.SegmentInfo) error {
	v, err := viewSegment(s)
	if err != nil {
		return err
	}
	return l.add(v, v.Segment, decimal(v.No), v.Zone.String(), v.Plane, decimal(v.First), decimal(v.Last), decimal(v.Bytes), decimal(uint64(v.Symbols)), a.short(v.Segment))
}

var segmentColumns = []string{"NO", "ZONE", "PLANE", "FIRST", "LAST", "BYTES", "SYMBOLS", "SEGMENT"}

func (a *app) segmentLsCommand() *cobra.Command {
	var at *atFlag
	cmd := &cobra.Command{
		Use: "ls", Short: "List sealed segments, in sealing order", Args: args(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withStore(cmd.Context(), reading, func(e *engine.Engine) error { return a.listSegments(e, at.At) })
		},
	}
	at = a.atOption(cmd)
	return cmd
}

func (a *app) listSegments(e *engine.Engine, at engine.At) error {
	asOf, err := e.PositionAt(at)
	if err != nil {
		return err
	}
	l := a.list("Segment", asOf, segmentColumns...)
	err = e.Log().Segments(func(s log.SegmentInfo) error {
		if !at.IsNow() {
			sealed, err := sealedBy(e, &s, asOf)
			if err != nil || !sealed {
				return err
			}
		}
		return a.addSegment(l, &s)
	})
	if err != nil {
		return err
	}
	return l.end(asOf)
}

// sealedBy reports whether the last event of the segment was there at a position:
// the earliest a segment can have been sealed.
func sealedBy(e *engine.Engine, s *log.SegmentInfo, position uint64) (bool, error) {
	no, ok := e.Log().FeedNo(s.Remainder.Feed())
	if !ok {
		return false, nil
	}
	p, err := e.Log().PositionOf(no, s.Remainder.Last)
	return p <= position, err
}

func (a *app) segmentSealCommand() *cobra.Command {
	var dryRun bool
	cmd := &cobra.Command{
		Use: "seal", Short: "Seal all open runs now", Args: args(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			mode := writing
			if dryRun {
				mode = reading
			}
			return a.withStore(cmd.Context(), mode, func(e *engine.Engine) error {
				if dryRun {
					return a.planSeal(cmd.Context(), e)
				}
				return a.seal(cmd.Context(), e)
			})
		},
	}
	dryRunFlag(cmd, &dryRun)
	return cmd
}

func (a *app) seal(ctx context.Context, e *engine.Engine) error {
	sealed, err := e.Log().Seal(ctx, log.SealOptions{All: true})
	if err != nil {
		return err
	}
	asOf := e.Log().Durable()
	l := a.list("Segment", asOf, segmentColumns...)
	for i := range sealed {
		if err := a.addSegment(l, &sealed[i]); err != nil {
			return err
		}
	}
	return l.end(asOf, decimal(uint64(len(sealed)))+" segments sealed")
}

// openRun is a run of events that a seal would turn into one segment or more.
type openRun struct {
	Zone   fcp.ZoneID `json:"zone"`
	Plane  string     `json:"plane"`
	Kind   string     `json:"kind"` // of the event that would be appended
	First  uint64     `json:"first"`
	Last   uint64     `json:"last"`
	Events uint64     `json:"events"`
}

// openRuns finds the runs that a seal would seal: those that hold more than
// segment.sealed events.
func openRuns(ctx context.Context, e *engine.Engine) (runs []openRun, err error) {
	for _, f := range e.Log().Feeds() {
		if !f.Own || !f.Feed.Plane.Chained() || f.Seq == f.Sealed {
			continue
		}
		due := false
		err := e.Log().ScanFeed(ctx, f.No, f.Sealed+1, f.Seq, log.VerifyNone, func(events []log.Applied) error {
			for i := range events {
				due = due || events[i].Content.Kind != fcp.KindSegmentSealed
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
		if due {
			runs = append(runs, openRun{f.Feed.Zone, f.Feed.Plane.String(), fcp.KindSegmentSealed.String(), f.Sealed + 1, f.Seq, f.Seq - f.Sealed})
		}
	}
	return runs, nil
}

func (a *app) planSeal(ctx context.Context, e *engine.Engine) error {
	runs, err := openRuns(ctx, e)
	if err != nil {
		return err
	}
	l := a.list("OpenRun", e.Position(), "ZONE", "PLANE", "KIND", "FIRST", "LAST", "EVENTS")
	for _, v := range runs {
		if err := l.add(v, v.Zone.String(), v.Zone.String(), v.Plane, v.Kind, decimal(v.First), decimal(v.Last), decimal(v.Events)); err != nil {
			return err
		}
	}
	if err := l.close(); err != nil {
		return err
	}
	a.note("dry run: nothing was written")
	a.answered(e.Position())
	return nil
}

func (a *app) segmentCatCommand() *cobra.Command {
	var card, events bool
	cmd := &cobra.Command{
		Use: "cat SEGMENT", Short: "Print a segment: its ciphertext, its card or its events", Args: args(1, 1),
		Long: `cat writes the ciphertext of a segment to stdout: the bytes whose BLAKE3 is the
segment's id and that symbols are made of. SEGMENT is a number or the first hex
digits of an id.`,
		ValidArgsFunction: a.completeSegments,
		RunE: func(cmd *cobra.Command, args []string) error {
			if card && events {
				return usagef("choose one", "--card and --events exclude each other")
			}
			return a.withStore(cmd.Context(), reading, func(e *engine.Engine) error {
				s, err := findSegment(e, args[0])
				if err != nil {
					return err
				}
				return a.catSegment(cmd.Context(), e, s, card, events)
			})
		},
	}
	cmd.Flags().BoolVar(&card, "card", false, "the signed public card instead")
	cmd.Flags().BoolVar(&events, "events", false, "the events inside instead")
	return cmd
}

func (a *app) catSegment(ctx context.Context, e *engine.Engine, s *log.SegmentInfo, card, events bool) error {
	if events {
		return a.segmentEvents(ctx, e, s)
	}
	b := s.CardBytes
	if !card {
		var err error
		if b, err = e.Log().Ciphertext(s.No); err != nil {
			return err
		}
	}
	if _, err := a.out.Write(b); err != nil {
		return err
	}
	a.answered(e.Position())
	return nil
}

func (a *app) segmentEvents(ctx context.Context, e *engine.Engine, s *log.SegmentInfo) error {
	no, ok := e.Log().FeedNo(s.Remainder.Feed())
	if !ok {
		return fcp.Errorf(fcp.CodeNotFound, "the feed of segment %s", s.Card.Segment)
	}
	l := a.list("Event", e.Position(), "POSITION", "TIME", "SEQ", "KIND", "BODY", "KEY", "HASH")
	err := e.Log().ScanFeed(ctx, no, s.Remainder.First, s.Remainder.Last, log.VerifyChain, func(batch []log.Applied) error {
		for i := range batch {
			ev := fcp.Event{Feed: s.Remainder.Feed(), Seq: batch[i].Seq, Time: batch[i].Time, Under: batch[i].Under, Content: batch[i].Content}
			v := viewFull(&ev, batch[i].Hash, batch[i].Position).eventView
			if batch[i].Dropped() {
				v.Kind = "dropped"
			}
			if err := l.add(v, decimal(v.Seq), decimal(v.Position), v.Time, decimal(v.Seq), v.Kind, decimal(uint64(v.Body)), v.Key, a.short(v.Hash)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	return l.end(e.Position())
}

// findSegment finds a segment by number or by the first digits of its id.
func findSegment(e *engine.Engine, name string) (*log.SegmentInfo, error) {
	var found []log.SegmentInfo
	err := e.Log().Segments(func(s log.SegmentInfo) error {
		if decimal(s.No) == name {
			found = []log.SegmentInfo{s}
			return errFound
		}
		if len(name) >= engine.MinHashPrefix && strings.HasPrefix(s.Card.Segment.String(), strings.ToLower(name)) {
			found = append(found, s)
		}
		return nil
	})
	next := "list them with `fcpctl segment ls`"
	switch {
	case err != nil && !errors.Is(err, errFound):
		return nil, err
	case len(found) == 0:
		return nil, fcp.Errorf(fcp.CodeNotFound, "no segment %q", name).WithNext(next)
	case len(found) > 1:
		return nil, fcp.Errorf(fcp.CodeGuess, "%d segments begin with %q", len(found), name).WithNext(next)
	}
	return &found[0], nil
}

// errFound ends a walk early.
var errFound = errors.New("found")

func (a *app) completeSegments(cmd *cobra.Command, args []string, _ string) (out []string, _ cobra.ShellCompDirective) {
	if len(args) > 0 || a.bindEnvironment(cmd) != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	a.flags.quiet = true
	a.guessing = true
	_ = a.withStore(cmd.Context(), reading, func(e *engine.Engine) error {
		return e.Log().Segments(func(s log.SegmentInfo) error {
			out = append(out, decimal(s.No))
			return nil
		})
	})
	return out, cobra.ShellCompDirectiveNoFileComp
}
