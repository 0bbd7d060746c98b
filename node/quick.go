package node

import (
	"sync"
	"time"
)

// Whom a rebuild asks. Any symbols do, so who is slow is never waited for while
// somebody else can give as many: others are asked for what a peer is late with, and
// whoever was slow lately is asked only for what the quick ones do not have.
const (
	lateTimes  = 4                     // a peer is late after so many times what the quickest takes,
	lateLeast  = 10 * time.Millisecond // but not before
	dripTimes  = 8                     // a block of firstBlock may take so many times longer than its beginning
	answerLife = 30 * time.Second      // after which a peer's pace is not known any more
)

// answerTime is how long a peer takes to give what it is asked for at once, as it was
// seen lately. The zero value knows nothing. Safe for concurrent use.
type answerTime struct {
	mu   sync.Mutex
	mean time.Duration // guarded by mu
	at   time.Time     // of mean; guarded by mu
}

// expect returns how long the next answer may take; 0 when nothing is known.
func (a *answerTime) expect(now time.Time) time.Duration {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.expectLocked(now)
}

func (a *answerTime) expectLocked(now time.Time) time.Duration {
	if now.Sub(a.at) >= answerLife {
		return 0
	}
	return a.mean
}

// saw takes in how long an answer took.
func (a *answerTime) saw(now time.Time, d time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if was := a.expectLocked(now); was > 0 {
		d = (3*was + d) / 4
	}
	a.mean, a.at = max(d, 1), now
}

// waited takes in that there was no answer for so long.
func (a *answerTime) waited(now time.Time, d time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.mean, a.at = max(a.expectLocked(now), d), now
}

// slower reports whether an answer that is expected to take d is worth no waiting
// beside one that takes quick.
func slower(d, quick time.Duration) bool { return quick > 0 && d > max(lateTimes*quick, lateLeast) }

// worthAsking reports whether an answer that is expected to take d comes before one who
// takes quick for a block, with two on their way, could have given all that is needed.
func worthAsking(d, quick time.Duration, need int) bool {
	return d <= quick || quick == 0 || d < quick*time.Duration(need)/(2*firstBlock)
}

// worthAsking is that for a part. While liars are looked for everybody is asked, and over
// the lane, where each gives a part of it for as long as it takes, so is everybody.
func (f *rebuilding) worthAsking(p *part, now time.Time, quick time.Duration, need int) bool {
	return f.judging || p.carrier == carrierLane || worthAsking(p.session.answers.expect(now), quick, need)
}

// quickest returns the shortest time that an answer takes of those for whom ok holds; 0
// when nothing is known.
func (f *rebuilding) quickest(now time.Time, ok func(*part) bool) (quick time.Duration) {
	for _, p := range f.parts {
		if p.dead || p.session == nil {
			continue
		}
		if d := p.session.answers.expect(now); d > 0 && (quick == 0 || d < quick) && ok(p) {
			quick = d
		}
	}
	return quick
}

// canGive reports whether a peer that is not late, and did not refuse just now, has more
// symbols to give.
func (f *rebuilding) canGive(p *part, now time.Time) bool {
	return !p.late && !now.Before(p.again) && f.room(p.session) > 0 && f.hasLeft(p)
}

// findLate looks for peers that are late with what they were asked for. It may be asked
// of others from then on, and is still welcome.
func (f *rebuilding) findLate(now time.Time) {
	quick := f.quickest(now, func(*part) bool { return true })
	for _, p := range f.parts {
		if p.dead || p.late || len(p.asked) == 0 || p.carrier == carrierLane || !p.lateAt(now, quick) {
			continue // the lane repeats what it asks
		}
		p.late = true
		p.session.answers.waited(now, now.Sub(p.heard))
		for _, a := range p.asked {
			f.asked.AndNot(a.left)
		}
	}
}

// lateAt reports whether a part gave nothing for too long, or gives too little.
func (p *part) lateAt(now time.Time, quick time.Duration) bool {
	if slower(now.Sub(p.heard), quick) {
		return true
	}
	for _, a := range p.asked {
		if blocks := time.Duration(1 + a.count/firstBlock); slower(now.Sub(a.at)/(dripTimes*blocks), quick) {
			return true
		}
	}
	return false
}

// answered notes that something came of a part.
func (c *collector) answered(p *part) {
	if !p.late {
		return
	}
	p.late = false
	for _, a := range p.asked {
		c.asked.Or(a.left)
	}
}
