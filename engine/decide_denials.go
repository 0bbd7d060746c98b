package engine

import (
	"bytes"
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	"fcp"
	"fcp/authority"
)

// How many denials are put on record one by one, for each pair of device and reason:
// DenialBurst at once, and one more for each DenialEvery that passes. A flood of
// denied requests so adds at most a few events a minute to the log, and does not
// hide a denial for another reason or of another device.
const (
	DenialBurst = 8
	DenialEvery = time.Minute
)

// maxDenialBuckets bounds the pairs that are remembered. Devices come from sessions
// and reasons are a closed set; a caller that makes devices up shares one bucket.
const maxDenialBuckets = 4096

// denialKey is what denials are counted by.
type denialKey struct {
	zone   fcp.ZoneID
	device fcp.WriterID
	reason fcp.Reason
}

// denialBucket is a token bucket and what it did not let through.
type denialBucket struct {
	left    int
	since   time.Time // when left was right
	counted uint64    // not on record yet
}

// denials is guarded by decisions.mu.
type denials struct{ buckets map[denialKey]*denialBucket }

// admitDenial says whether a denial is put on record by itself, and how many like it
// went by unrecorded before; else it counts it.
func (s *decisions) admitDenial(device fcp.WriterID, reason fcp.Reason, zone fcp.ZoneID, now time.Time) (before uint64, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.denials.bucket(denialKey{zone, device, reason}, now)
	if b.left == 0 {
		b.counted++
		s.counts.Denied++
		s.counts.Counted++
		return 0, false
	}
	b.left--
	before, b.counted = b.counted, 0
	return before, true
}

func (d *denials) bucket(k denialKey, now time.Time) *denialBucket {
	if d.buckets == nil {
		d.buckets = map[denialKey]*denialBucket{}
	}
	b := d.buckets[k]
	if b == nil {
		if len(d.buckets) >= maxDenialBuckets {
			for x, old := range d.buckets { // those that are as good as new
				if old.refill(now); old.left == DenialBurst && old.counted == 0 {
					delete(d.buckets, x)
				}
			}
		}
		if len(d.buckets) >= maxDenialBuckets {
			k.device = fcp.WriterID{}
		}
		if b = d.buckets[k]; b == nil {
			b = &denialBucket{left: DenialBurst, since: now}
			d.buckets[k] = b
		}
	}
	b.refill(now)
	return b
}

// refill gives back what time gives. A clock that was set back gives nothing.
func (b *denialBucket) refill(now time.Time) {
	switch n := now.Sub(b.since) / DenialEvery; {
	case now.Before(b.since):
		b.since = now
	case int64(n) >= int64(DenialBurst-b.left):
		b.left, b.since = DenialBurst, now
	default:
		b.left, b.since = b.left+int(n), b.since.Add(n*DenialEvery)
	}
}

// takeCounted returns the denials that are on record nowhere and takes them as
// recorded.
func (s *decisions) takeCounted() map[denialKey]uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := map[denialKey]uint64{}
	for k, b := range s.denials.buckets {
		if b.counted > 0 {
			out[k], b.counted = b.counted, 0
		}
	}
	return out
}

// RecordDenials appends an audit entry for each device and reason with the number of
// denials that were not put on record one by one, and returns how many entries. Call it
// before Close.
func (e *Engine) RecordDenials(ctx context.Context) (entries int, err error) {
	counted := e.decisions.takeCounted()
	keys := make([]denialKey, 0, len(counted))
	for k := range counted {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, func(a, b denialKey) int {
		return cmp.Or(strings.Compare(string(a.zone), string(b.zone)), bytes.Compare(a.device[:], b.device[:]), strings.Compare(string(a.reason), string(b.reason)))
	})
	for i, k := range keys {
		// The entry stands for one denial itself.
		err := e.Audit(ctx, authority.AuditEvent{Zone: k.zone, Type: authority.AuditDenied, Actor: "device:" + k.device.String()[:16], Reason: k.reason, More: counted[k] - 1})
		if err != nil {
			for _, k := range keys[i:] {
				e.decisions.countDenials(k, counted[k], e.env.Now())
			}
			return entries, err
		}
		entries++
	}
	return entries, nil
}

// countDenials counts what could not be put on record.
func (s *decisions) countDenials(k denialKey, n uint64, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.denials.bucket(k, now).counted += n
}
