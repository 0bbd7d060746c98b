package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"fcp"
	"fcp/engine"
	"fcp/node/api"
)

func (a *app) logFollowCommand() *cobra.Command {
	var (
		o     = &eventOptions{at: &atFlag{}}
		from  string
		limit int
	)
	cmd := &cobra.Command{
		Use: "follow", Short: "Events from a position on, and new ones as they come", Args: args(0, 0),
		Long: `follow prints every event once, in the order of positions, and goes on with new ones
until it is interrupted. Each has a resume token; --from with the last one seen goes
on behind it. A position works too, but belongs to this store: a token of another
store, or of this one before a restore, is refused. A slow reader falls behind and
loses nothing; memory stays constant.`,
		Example: "  fcpctl log follow -o ndjson\n  fcpctl log follow --from 1200 --kind object.put -o ndjson\n  fcpctl log follow --from 6a01f3c9d2b4e857-1200 -o ndjson",
		RunE: func(cmd *cobra.Command, _ []string) error {
			req, err := o.request()
			if err != nil {
				return err
			}
			if a.flags.format == formatJSON {
				return usagef("use -o ndjson", "following has no end, one JSON object has")
			}
			if limit < 0 {
				return usagef("give a number from 1 on, or 0 for all", "--limit %d", limit)
			}
			req.Follow = true
			return a.withAny(cmd.Context(), reading, func(e api.Store) error {
				if req.From, err = resumeFrom(e, from); err != nil {
					return err
				}
				return a.followEvents(cmd.Context(), e, req, limit)
			})
		},
	}
	a.selectionFlags(cmd, o)
	cmd.Flags().StringVar(&from, "from", "", "a position to begin with, or a resume token to go on behind (default the end)")
	cmd.Flags().IntVar(&limit, "limit", 0, "end after this many events; 0 is never")
	return cmd
}

// followView is one event of a stream as JSON.
type followView struct {
	eventView
	Resume string `json:"resume"` // token: --from goes on behind this event
}

// resumeToken names a position of one store in one incarnation.
func resumeToken(e api.Store, position uint64) string {
	return fmt.Sprintf("%016x-%d", e.Incarnation(), position)
}

// resumeFrom returns the first position wanted.
func resumeFrom(e api.Store, s string) (uint64, error) {
	end := e.Position()
	if s == "" {
		return end + 1, nil
	}
	incarnation, position, token := strings.Cut(s, "-")
	if !token {
		position = s
	}
	n, err := strconv.ParseUint(position, 10, 64)
	if err != nil || n == 0 {
		return 0, usagef("give a position (17) or the `resume` of an event", "%.60q is neither", s)
	}
	if token {
		if incarnation != fmt.Sprintf("%016x", e.Incarnation()) {
			return 0, fcp.Errorf(fcp.CodeNotPosition, "the token is of another store, or of this one before it was restored").
				WithNext("begin again with --from 1, or find the position with `fcpctl log tail`")
		}
		n++
	}
	if n > end+1 {
		return 0, fcp.Errorf(fcp.CodeNotPosition, "position %d, the log ends at %d", n, end)
	}
	return n, nil
}

func (a *app) followEvents(ctx context.Context, e api.Store, req engine.TailRequest, limit int) error {
	l := a.list("Event", e.Position(), "POSITION", "TIME", "ZONE", "PLANE", "SEQ", "KIND", "GENERATION", "BODY", "KEY", "HASH", "RESUME")
	l.live = true
	enough := errors.New("enough")
	err := e.Tail(ctx, req, func(r *engine.EventRow) error {
		v := followView{viewEvent(r), resumeToken(e, r.Position)}
		l.asOf = r.Position
		err := l.add(v, v.Resume, decimal(v.Position), v.Time, v.Zone.String(), v.Plane, decimal(v.Seq), v.Kind,
			decimal(v.Generation), decimal(uint64(v.Body)), v.Key, a.short(v.Hash), v.Resume)
		if err == nil && l.count == limit {
			err = enough
		}
		return err
	})
	if err != nil && !errors.Is(err, enough) {
		return err
	}
	a.answered(l.asOf)
	return nil
}
