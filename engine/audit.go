package engine

import (
	"context"

	"fcp"
	"fcp/authority"
	"fcp/log"
)

// EachHead calls fn with each signed head of a zone's feeds that is on record. Heads
// of which a signature does not verify are left out; VerifyAudit names them.
func (e *Engine) EachHead(zone fcp.ZoneID, fn func(*authority.AuditHead) error) error {
	signers, err := e.signers()
	if err != nil {
		return err
	}
	return e.records(zone, projHeads, func(body []byte) error {
		h, err := authority.VerifyHead(body, signers)
		if err != nil {
			return nil
		}
		return fn(h)
	})
}

func (e *Engine) signers() (authority.Signers, error) {
	keys, err := e.signingKeys()
	if err != nil {
		return nil, err
	}
	return func(w fcp.WriterID) (authority.SigningPublic, bool) {
		k, ok := keys[w]
		return k, ok
	}, nil
}

// RecordHeads signs the head of each of this node's control feeds as it is on disk
// and appends it, for others to cosign. It returns the heads.
func (e *Engine) RecordHeads(ctx context.Context) (out []*authority.AuditHead, err error) {
	for _, f := range e.log.Feeds() {
		if !f.Own || f.Feed.Plane != fcp.PlaneControl || f.Seq == 0 {
			continue
		}
		h, err := e.FeedHead(f.Feed)
		if err != nil {
			return out, err
		}
		if err := e.RecordHead(ctx, h); err != nil {
			return out, err
		}
		out = append(out, h)
	}
	return out, nil
}

// AuditReport says what VerifyAudit checked.
type AuditReport struct {
	Feeds    int
	Events   uint64 // of control feeds, whose hash chain was followed
	Entries  uint64 // audit entries among them
	Heads    int    // signed heads that fit the log
	Findings []Finding
}

// VerifyAudit follows the hash chain of every control feed and compares each signed
// head on record with what the log holds: a feed that was written anew contradicts a
// head that its writer, or a witness, signed before.
func (e *Engine) VerifyAudit(ctx context.Context) (r AuditReport, err error) {
	for _, f := range e.log.Feeds() {
		if f.Feed.Plane != fcp.PlaneControl || f.Seq == 0 {
			continue
		}
		r.Feeds++
		err := e.log.ScanFeed(ctx, f.No, 1, 0, log.VerifyChain, func(events []log.Applied) error {
			for i := range events {
				r.Events++
				if events[i].Content.Kind == fcp.KindAuditEntry {
					r.Entries++
				}
			}
			return nil
		})
		if ctx.Err() != nil {
			return r, interrupted(ctx)
		}
		if err != nil {
			r.Findings = append(r.Findings, Finding{Code: fcp.CodeOf(err), Feed: f.No, What: err.Error()})
		}
	}
	signers, err := e.signers()
	if err != nil {
		return r, err
	}
	for _, zone := range e.Zones() {
		err := e.records(zone, projHeads, func(body []byte) error {
			h, err := authority.VerifyHead(body, signers)
			if err == nil {
				err = e.headFits(h)
			}
			if err == nil {
				r.Heads++
				return nil
			}
			r.Findings = append(r.Findings, Finding{Code: fcp.CodeOf(err), What: "audit head in " + zone.String() + ": " + err.Error()})
			return nil
		})
		if err != nil {
			return r, err
		}
	}
	return r, nil
}

// headFits compares a head with the feed as it is here; a feed that has not come so
// far yet says nothing.
func (e *Engine) headFits(h *authority.AuditHead) error {
	s := h.Spec()
	no, ok := e.log.FeedNo(s.Feed)
	if !ok {
		return nil
	}
	if mine, _ := e.log.Head(no); mine.Seq < s.Size {
		return nil
	}
	p, err := e.log.Prove(no, s.Size, s.Size)
	if err != nil {
		return err
	}
	if p.Root != s.Root || p.Leaf != s.Hash {
		return fcp.Errorf(fcp.CodeEquivocation, "the feed of %.16s has another event %d: %w", s.Feed.Writer, s.Size, authority.ReasonHeadFork)
	}
	return nil
}
