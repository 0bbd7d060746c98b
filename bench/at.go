package main

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"fcp"
	"fcp/engine"
)

// atNames is over how many names the puts of the time travel row go: each has five
// versions.
const atNames = scaleEvents / 5

// atRows read whole objects, inline bodies, as of random positions and, every other
// time, as of random moments of a store of five million puts. A name that had no
// version yet is an answer too.
func atRows() []Row {
	return []Row{{Name: "get/engine/at/5M", Unit: "gets/s", Long: true, Subjects: []Subject{{Name: "engine",
		Setup: func(ctx context.Context, dirs Dirs) (err error) {
			e, err := newEngine(ctx, storeDir(dirs))
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, e.Close()) }()
			return putOver(ctx, e, scaleEvents, 256, atNames)
		},
		Open: func(ctx context.Context, dirs Dirs) (Session, error) {
			e, err := engine.Open(ctx, storeDir(dirs), engine.Options{})
			if err != nil {
				return nil, err
			}
			session, err := randomAtSession(ctx, e)
			return closingEngine{e, session}, err
		}}}}}
}

func randomAtSession(ctx context.Context, e *engine.Engine) (Session, error) {
	end := e.Position()
	first, last, err := timesOf(e, end)
	if err != nil {
		return nil, err
	}
	rng := rand.New(rand.NewPCG(1, 1))
	byTime := false
	return timed(func() error {
		q := engine.GetRequest{Key: benchKeyOf(1 + rng.Uint64N(atNames)), At: engine.At{Position: 1 + rng.Uint64N(end)}}
		if byTime = !byTime; byTime {
			q.At = engine.At{Time: first.Add(time.Duration(rng.Int64N(int64(last.Sub(first)))))}
		}
		r, err := e.Get(ctx, q)
		if errors.Is(err, fcp.CodeNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		return r.Close()
	}), nil
}

// timesOf returns when the first and the last event were written.
func timesOf(e *engine.Engine, end uint64) (first, last time.Time, err error) {
	at := func(position uint64) (time.Time, error) {
		no, seq, err := e.Log().At(position)
		if err != nil {
			return time.Time{}, err
		}
		ev, _, err := e.Log().Read(no, seq)
		return ev.Time.Wall(), err
	}
	if first, err = at(1); err != nil {
		return first, last, err
	}
	last, err = at(end)
	return first, last, err
}
