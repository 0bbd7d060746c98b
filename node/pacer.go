package node

import (
	"math"
	"sync"
	"time"
)

// pacer says when the next packet of the lane may go to a peer. It is a congestion
// control by delay, not by loss, for the lane is used where packets get lost for
// other reasons: the window follows the queue that its own packets find, as LEDBAT
// does (RFC 6817), so it gives way to TCP. Time is given to it. Safe for concurrent
// use.
//
// It starts like TCP, by a packet for each that is settled, arrived or lost, and
// stops at the first sign of a queue, or when what arrives no longer grows with what
// is sent. From then on the window grows by a 32nd in each round trip while the queue
// is below its target, 8 to 20 ms, and shrinks in proportion above. Loss beyond what the path
// always shows shrinks it too: a short queue overflows before it delays. Where others
// fill the queue the window keeps leastShare of what is under way there, so the lane is
// never starved: that is what the highest rate that the path gave of late makes of
// that share of the round trip, or of the target where that is more, but at most of
// leastMost.
type pacer struct {
	mu      sync.Mutex
	changed chan struct{} // closed when a wait may be over; guarded by mu

	window  float64       // packets; guarded by mu
	startup bool          // guarded by mu
	rtt     time.Duration // smoothed; guarded by mu
	due     time.Time     // of the next packet; guarded by mu
	flight  []flown       // sent and not settled, oldest first; guarded by mu
	arrived uint64        // packets, as the peer counts them; guarded by mu
	heard   time.Time     // last status; guarded by mu
	loss    float64       // smoothed share of packets that are lost; guarded by mu
	base    [2]baseDelay  // shortest one-way delay of this minute and the last; guarded by mu
	round   paceRound     // guarded by mu
	best    struct {
		arrived float64 // most packets that arrived in a round of the start
		window  float64 // in that round
		stale   int     // rounds since without a quarter more
	} // guarded by mu
	floors [8]float64 // share lost in the last rounds; guarded by mu
	peak   float64    // packets per second that the path gave, fading; guarded by mu
	peaked time.Time  // when peak was last looked at; guarded by mu
}

// flown is a packet on its way.
type flown struct {
	seq uint64
	at  time.Time
}

// baseDelay is the shortest delay within a minute, and the deepest queue. The clocks of
// both ends differ by an unknown constant, so only differences mean something.
type baseDelay struct {
	since time.Time
	delay time.Duration
	most  time.Duration // beyond the shortest
	some  bool
}

// paceRound is one round trip.
type paceRound struct {
	until         uint64    // ends with the settling of this frame
	began         time.Time // when the frame before it was sent
	arrived, lost float64
	queue         time.Duration // least found
	some, filled  bool          // filled: the window was used
	count         int
}

// paceReport is what a status says about packets.
type paceReport struct {
	seq    uint64        // newest frame that arrived
	frames uint64        // packets that arrived since the session began
	at     time.Duration // when the newest arrived, by the receiver's clock
	held   time.Duration // between that and the status
}

const (
	paceFirst   = 16.0                  // packets of the first round trip
	paceLeast   = 4.0                   // window
	peakFades   = 0.01                  // of the peak, in a second
	paceMost    = 8192.0                // window
	queueTarget = 20 * time.Millisecond // queueing that the lane causes, at most
	queueSign   = 8 * time.Millisecond  // that ends the start; and the least target
	leastShare  = 0.4                   // of the round trip
	leastMost   = 2 * queueTarget
	paceBurst   = 2 * time.Millisecond // what a late timer may send at once
	paceIdle    = time.Second
	baseLife    = time.Minute
	excessLoss  = 0.25 // of a round beyond that of the best of the last ones
)

func newPacer(rtt time.Duration) *pacer {
	p := &pacer{changed: make(chan struct{}), window: paceFirst, startup: true, rtt: max(rtt, 100*time.Microsecond)}
	for i := range p.floors {
		p.floors[i] = 1
	}
	return p
}

// next returns 0 when a packet may go now. Else the caller waits so long, or until
// changed is closed, and asks again.
func (p *pacer) next(now time.Time) (wait time.Duration, changed <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.flight) > 0 && now.Sub(p.flight[len(p.flight)-1].at) > paceIdle {
		p.flight, p.round = nil, paceRound{} // the last words of a transfer that is over
	}
	if float64(len(p.flight)) >= p.window {
		p.round.filled = true
		if silent := now.Sub(p.lastLocked()) - p.patienceLocked(); silent < 0 {
			return -silent, p.changed
		}
		// Nothing is heard of what is under way: it is lost, and the path may be gone.
		p.flight, p.window, p.startup = nil, max(p.window/2, p.leastLocked()), false
		p.round = paceRound{}
	}
	if early := p.due.Sub(now); early > 0 {
		return early, p.changed
	}
	interval := time.Duration(float64(p.rtt) / (1.25 * p.window))
	if p.due.Before(now.Add(-paceBurst)) {
		p.due = now.Add(-paceBurst)
	}
	p.due = p.due.Add(interval)
	return 0, nil
}

// lastLocked is when something was last heard, or sent after a silence.
func (p *pacer) lastLocked() time.Time {
	if len(p.flight) > 0 && p.flight[0].at.After(p.heard) {
		return p.flight[0].at
	}
	return p.heard
}

func (p *pacer) patienceLocked() time.Duration { return max(4*p.rtt, 100*time.Millisecond) }

// resend is after what time without a word a packet counts as lost.
func (p *pacer) resend() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.rtt*3/2 + 10*time.Millisecond
}

// lossRate returns the share of packets that gets lost, 0 to 1.
func (p *pacer) lossRate() float64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.loss
}

func (p *pacer) sent(seq uint64, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.round.until == 0 {
		p.round = paceRound{until: seq}
	}
	p.flight = append(p.flight, flown{seq, now})
}

// report takes a status in. One that is older than the last says nothing new.
func (p *pacer) report(r paceReport, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.heard = now
	n := 0
	for n < len(p.flight) && p.flight[n].seq <= r.seq {
		n++
	}
	if n == 0 {
		return
	}
	last := p.flight[n-1]
	p.flight = p.flight[n:]
	arrived := float64(min(r.frames-min(p.arrived, r.frames), uint64(n)))
	p.arrived = max(p.arrived, r.frames)
	p.round.arrived += arrived
	p.round.lost += float64(n) - arrived
	weight := 1 - math.Pow(63.0/64, float64(n))
	p.loss += weight * ((float64(n)-arrived)/float64(n) - p.loss)
	var queue time.Duration
	if last.seq == r.seq {
		if rtt := now.Sub(last.at) - r.held; rtt > 0 {
			p.rtt += (rtt - p.rtt) / 8
		}
		queue = p.queueLocked(r.at-time.Duration(last.at.UnixNano()), now)
		if !p.round.some || queue < p.round.queue {
			p.round.queue, p.round.some = queue, true
		}
		p.round.count++
	}
	if p.startup {
		p.window = min(p.window+float64(n), paceMost)
		if queue > queueSign && p.round.count > 1 {
			p.startup = false
			p.window = max(p.window*0.6, p.leastLocked())
			p.round = paceRound{}
		}
	}
	if r.seq >= p.round.until {
		p.endRoundLocked(now)
	}
	close(p.changed)
	p.changed = make(chan struct{})
}

// queueLocked returns how much longer than the shortest delay this one is.
func (p *pacer) queueLocked(delay time.Duration, now time.Time) time.Duration {
	b := &p.base
	if !b[0].some || now.Sub(b[0].since) > baseLife {
		b[1], b[0] = b[0], baseDelay{since: now, delay: delay, some: true}
	}
	b[0].delay = min(b[0].delay, delay)
	least := b[0].delay
	if b[1].some {
		least = min(least, b[1].delay)
	}
	b[0].most = max(b[0].most, delay-least)
	return delay - least
}

// leastLocked is the least window: see pacer.
func (p *pacer) leastLocked() float64 {
	hold := min(max(time.Duration(float64(p.rtt)*leastShare), p.targetLocked()), leastMost)
	return min(max(p.peak*hold.Seconds(), paceLeast), paceMost)
}

// targetLocked is the queue that the window makes: half of the deepest of late, so that
// where the queue is short others find room in it too.
func (p *pacer) targetLocked() time.Duration {
	return min(max(max(p.base[0].most, p.base[1].most)/2, queueSign), queueTarget)
}

// endRoundLocked decides about the window after a round trip.
func (p *pacer) endRoundLocked(now time.Time) {
	r := p.round
	p.round = paceRound{began: now}
	if n := len(p.flight); n > 0 {
		p.round.until = p.flight[n-1].seq
	}
	total := r.arrived + r.lost
	if total == 0 {
		return
	}
	if took := now.Sub(r.began); !r.began.IsZero() && r.arrived >= 16 && took >= time.Millisecond {
		p.peak *= 1 - min(peakFades*now.Sub(p.peaked).Seconds(), 1)
		p.peaked = now
		p.peak = max(p.peak, r.arrived/took.Seconds())
	}
	lost, floor := r.lost/total, 1.0
	for _, f := range p.floors {
		floor = min(floor, f)
	}
	copy(p.floors[1:], p.floors[:])
	p.floors[0] = lost
	switch {
	case p.startup:
		if !r.filled {
			return
		}
		if r.arrived >= 1.25*p.best.arrived {
			p.best.arrived, p.best.window, p.best.stale = r.arrived, total, 0
		} else if p.best.stale++; p.best.stale >= 3 {
			p.startup = false
			p.window = max(p.best.window, p.leastLocked())
		}
	case total >= 32 && floor < 1 && lost > floor+excessLoss:
		p.window = max(p.window*0.85, p.leastLocked())
	case r.some:
		off := max(-1, 1-float64(r.queue)/float64(p.targetLocked()))
		if off < 0 {
			p.window = max(p.window*(1+off/4), p.leastLocked())
		} else if r.filled {
			p.window = min(p.window+off*max(1, p.window/32), paceMost)
		}
	}
}
