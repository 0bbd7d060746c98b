package main

import (
	"context"
	"os"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"fcp"
	"fcp/authority/keystore"
	"fcp/engine"
	"fcp/log"
)

// scriptMeet lets two closed stores exchange their events, as two nodes that meet do.
func scriptMeet(ts *testscript.TestScript, neg bool, args []string) {
	var stores [2]*engine.Engine
	for i := range stores {
		e, err := engine.Open(context.Background(), ts.MkAbs(args[i]), engine.Options{})
		ts.Check(err)
		defer func() { ts.Check(e.Close()) }()
		stores[i] = e
	}
	for i := range stores {
		ts.Check(pull(stores[i], stores[1-i]))
	}
}

// scriptLie makes a signature share one of somebody who lies.
func scriptLie(ts *testscript.TestScript, neg bool, args []string) {
	b, err := os.ReadFile(ts.MkAbs(args[0]))
	ts.Check(err)
	part, draft, err := keystore.DecodePart(keystore.PartSignature, b, nil)
	ts.Check(err)
	part[1] ^= 1
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), keystore.EncodePart(keystore.PartSignature, draft, part), 0o600))
}

func pull(to, from *engine.Engine) error {
	for _, f := range from.Log().Feeds() {
		have := uint64(0)
		if no, ok := to.Log().FeedNo(f.Feed); ok {
			mine, _ := to.Log().Head(no)
			have = mine.Seq
		}
		if !f.Feed.Plane.Chained() {
			continue
		}
		var events []fcp.Event
		var salts [][log.SaltSize]byte
		for seq := have + 1; seq <= f.Seq; seq++ {
			ev, _, err := from.Log().ReadFull(f.No, seq)
			if err != nil {
				return err
			}
			salt, err := from.Log().Salt(f.No, seq)
			if err != nil {
				return err
			}
			events, salts = append(events, ev), append(salts, salt)
		}
		if len(events) == 0 {
			continue
		}
		if _, err := to.ImportEvents(context.Background(), events, salts); err != nil {
			return err
		}
	}
	return nil
}

func TestSharesOfPaperAreReadStrictly(t *testing.T) {
	for s, want := range map[string][2]int{"1-of-1": {1, 1}, "2-of-3": {2, 3}, "32-of-32": {32, 32}, "0-of-1": {}, "2-of-1": {}, "1-of-33": {},
		"2-of-3 ": {}, "02-of-3": {}, "2of3": {}, "": {}} {
		k, n, err := parseShares(s)
		if (err == nil) != (want != [2]int{}) || [2]int{k, n} != want {
			t.Errorf("%q: %d of %d, %v", s, k, n, err)
		}
	}
}
