package engine

import (
	"context"
	"encoding/hex"
	"errors"
	"slices"
	"strconv"
	"strings"

	"fcp"
	"fcp/log"
)

// MaxSubscription bounds a subscription's name, in bytes.
const MaxSubscription = 64

// Subscribe calls fn with every event from a position on, in position order, each
// once: first those in the log, then, with Live, new ones as the state shows
// them. It returns when the log's end is reached (without Live), with fn's error,
// with CodeInterrupted when ctx ends, or with CodeClosed when the engine closes.
// Of events that a compaction dropped only their place and hash come
// (log.Applied.Dropped). Slices are valid during the call only. fn runs in the caller's goroutine; a
// slow one only falls behind.
func (e *Engine) Subscribe(ctx context.Context, o SubscribeOptions, fn func([]log.Applied) error) error {
	next := max(o.From, 1)
	if o.Name != "" {
		done, err := e.checkpoint(o.Name)
		if err != nil {
			return err
		}
		next = max(next, done+1)
	}
	for {
		end := e.applied.Load()
		if end >= next {
			err := e.log.Scan(ctx, log.ScanOptions{From: next, To: end, Verify: o.Verify}, func(events []log.Applied) error {
				if err := fn(events); err != nil {
					return err
				}
				next = events[len(events)-1].Position + 1
				if o.Name == "" {
					return nil
				}
				return e.setCheckpoint(o.Name, next-1)
			})
			if err != nil {
				return err
			}
			continue
		}
		if !o.Live {
			return nil
		}
		if err := e.waitApplied(ctx, next); err != nil {
			return err
		}
	}
}

func checkpointName(name string) (string, error) {
	if name == "" || len(name) > MaxSubscription {
		return "", fcp.Errorf(fcp.CodeInvalidArgument, "a subscription's name has 1 to %d bytes", MaxSubscription)
	}
	return hex.EncodeToString([]byte(name)), nil
}

// checkpoint returns the last position a named subscription has seen, 0 for a new
// one.
func (e *Engine) checkpoint(name string) (uint64, error) {
	file, err := checkpointName(name)
	if err != nil {
		return 0, err
	}
	dir := e.env.FS.PathJoin(e.dir, dirCheckpoint)
	if _, err := e.env.FS.Stat(e.env.FS.PathJoin(dir, file)); err != nil {
		return 0, nil
	}
	b, err := readFile(e.env.FS, e.env.FS.PathJoin(dir, file), 32)
	if err != nil {
		return 0, fcp.Wrap(fcp.CodeDisk, err, "read a subscription's checkpoint")
	}
	return decodeCheckpoint(b)
}

// decodeCheckpoint reads a position in decimal and a newline.
func decodeCheckpoint(b []byte) (uint64, error) {
	n, err := strconv.ParseUint(strings.TrimSuffix(string(b), "\n"), 10, 64)
	if err != nil || decimal(n)+"\n" != string(b) {
		return 0, fcp.Errorf(fcp.CodeCorrupt, "a subscription's checkpoint does not decode")
	}
	return n, nil
}

func (e *Engine) setCheckpoint(name string, position uint64) error {
	file, err := checkpointName(name)
	if err != nil {
		return err
	}
	dir := e.env.FS.PathJoin(e.dir, dirCheckpoint)
	if err := makeDir(e.env.FS, dir); err != nil {
		return fcp.Wrap(fcp.CodeDisk, err, "make the subscriptions' directory")
	}
	return writeFile(e.env.FS, dir, file, []byte(decimal(position)+"\n"))
}

// errEnough ends a scan early.
var errEnough = errors.New("enough")

// Tail calls fn with events for people, in position order.
func (e *Engine) Tail(ctx context.Context, q TailRequest, fn func(*EventRow) error) error {
	from := q.From
	if end := e.applied.Load(); from == 0 && q.Last > 0 && end > uint64(q.Last) {
		from = end - uint64(q.Last) + 1
	}
	err := e.Subscribe(ctx, SubscribeOptions{From: from, Live: q.Follow, Verify: log.VerifyChain}, func(events []log.Applied) error {
		feed := e.log.Feed(events[0].Feed)
		for i := range events {
			a := &events[i]
			if q.To != 0 && a.Position > q.To {
				return errEnough
			}
			if a.Feed != events[0].Feed {
				feed = e.log.Feed(a.Feed)
			}
			if q.Zone != "" && q.Zone != feed.Zone || q.Key != "" && q.Key != string(a.Content.Key) ||
				q.Kinds != nil && !slices.Contains(q.Kinds, a.Content.Kind) {
				continue
			}
			row := eventRow(feed, a)
			if err := fn(&row); err != nil {
				return err
			}
		}
		return nil
	})
	if errors.Is(err, errEnough) {
		return nil
	}
	return err
}

func eventRow(feed fcp.Feed, a *log.Applied) EventRow {
	c := &a.Content
	row := EventRow{Position: a.Position, Zone: feed.Zone, Plane: feed.Plane.String(), Writer: feed.Writer,
		Incarnation: feed.Incarnation, Seq: a.Seq, Time: a.Time.Wall(), Kind: c.Kind.String(), Key: string(c.Key),
		Object: c.Object, Generation: c.Generation, Size: c.Size, Body: len(c.Body), Hash: a.Hash}
	if a.Dropped() {
		row.Kind = "dropped"
	}
	for i := range c.Replaces.Len() {
		row.Replaces = append(row.Replaces, c.Replaces.At(i))
	}
	return row
}
