package placement

import (
	"bytes"
	"fmt"
	"slices"
	"time"

	"fcp"
)

// Summary is the state of all segments at one time.
type Summary struct {
	Segments    int
	Unreadable  int // cannot be rebuilt from what is online
	Lost        int // cannot be rebuilt from all that is not lost
	BelowPolicy int // fewer shares present than the policy asks
	Online      int // devices
	CoverageBPS int // Segment.CoverageBPS of what is online, all segments together
	MayLose     int // devices that may be lost, whichever, with every segment readable; -1: one is lost already
	MayGo       int // the same of what is online; -1: one is unreadable now
	Weak        []WeakLink
	Domains     []string // failure domains whose loss would leave a segment unreadable
	Score       int      // 0 (something is lost) to 100
	Reasons     []string // why it is not 100, the gravest first
	Advice      []string // what to do about it, in that order

	asked int // devices by the policies of segments that are below them
}

// WeakLink is a device that something depends on alone.
type WeakLink struct {
	Device   fcp.WriterID
	Segments int // that do not rebuild without it
}

// Summarize looks at all segments. name gives the name of a device for people.
func Summarize(p *Policy, segments []Segment, devices []Device, now time.Time, name func(fcp.WriterID) string) Summary {
	state := make(map[fcp.WriterID]*Device, len(devices))
	online, left := 0, 0
	for i := range devices {
		d := &devices[i]
		state[d.ID] = d
		if !d.Lost {
			left++
			if d.Online {
				online++
			}
		}
	}
	isOnline := func(id fcp.WriterID) bool { d := state[id]; return d != nil && d.Online && !d.Lost }
	present := func(id fcp.WriterID) bool { d := state[id]; return d != nil && d.Present(now) }
	notLost := func(id fcp.WriterID) bool { d := state[id]; return d != nil && !d.Lost }

	sum := Summary{Segments: len(segments), Online: online, MayLose: left - 1, MayGo: online - 1}
	weak := map[fcp.WriterID]int{}
	fatal := map[string]bool{}
	var have, sources int64
	for i := range segments {
		s := &segments[i]
		sources += int64(s.K)
		have += int64(s.placed(p, isOnline)) * bps
		if !s.Rebuilds(isOnline) {
			sum.Unreadable++
		}
		may := s.MayLose(notLost)
		if may < 0 {
			sum.Lost++
		}
		sum.MayLose = min(sum.MayLose, may)
		sum.MayGo = min(sum.MayGo, s.MayLose(isOnline))
		sp, holders := s.policy(p), s.holders(p, present)
		if holders < sp.Devices() {
			sum.BelowPolicy++
			sum.asked = max(sum.asked, sp.Devices())
		}
		for _, id := range s.WeakLinks(notLost) {
			weak[id]++
		}
		for _, d := range s.DomainLosses(devices, notLost) {
			fatal[d] = true
		}
	}
	if sources > 0 {
		sum.CoverageBPS = int((have + sources/2) / sources)
	}
	for id, n := range weak {
		sum.Weak = append(sum.Weak, WeakLink{id, n})
	}
	slices.SortFunc(sum.Weak, func(a, b WeakLink) int {
		if a.Segments != b.Segments {
			return b.Segments - a.Segments
		}
		return bytes.Compare(a.Device[:], b.Device[:])
	})
	for d := range fatal {
		sum.Domains = append(sum.Domains, d)
	}
	slices.Sort(sum.Domains)
	sum.judge(online, left, name)
	return sum
}

// judge gives the score. What cannot be read weighs most, then what a single loss
// would take, then what the policy asks; each in proportion to the segments that it
// concerns, and at least one point.
func (s *Summary) judge(online, left int, name func(fcp.WriterID) string) {
	s.Score = 100
	if s.Segments == 0 {
		return
	}
	take := s.Take
	if s.Lost > 0 {
		take(100, s.Segments, fmt.Sprintf("%d of %d segments cannot be rebuilt from all devices that are left", s.Lost, s.Segments),
			"restore them from a backup: fcpctl restore")
	}
	if n := s.Unreadable - s.Lost; n > 0 {
		take(40, n, fmt.Sprintf("%d of %d segments cannot be rebuilt from the devices that are online", n, s.Segments),
			"bring a device back that holds symbols of them: fcpctl node ls")
	}
	if len(s.Weak) > 0 {
		w := s.Weak[0]
		take(30, w.Segments, fmt.Sprintf("%d of %d segments depend on %s alone", w.Segments, s.Segments, name(w.Device)),
			"let repair finish, or add a device: fcpctl repair --now")
	}
	if s.BelowPolicy > 0 {
		advice := "let repair finish: fcpctl repair --now"
		if left < s.asked {
			advice = fmt.Sprintf("add a device: the policy asks for %d, there are %d", s.asked, left)
		} else if online < s.asked {
			advice = fmt.Sprintf("bring devices back: the policy asks for %d, %d are online", s.asked, online)
		}
		take(20, s.BelowPolicy, fmt.Sprintf("%d of %d segments have fewer shares than the policy asks", s.BelowPolicy, s.Segments), advice)
	}
	for _, d := range s.Domains {
		take(5, s.Segments, fmt.Sprintf("losing %s whole would leave segments unreadable", d),
			fmt.Sprintf("add a device outside %s", d))
	}
}

// Take lowers the score by weight for each segment that a reason concerns, over all
// segments, and at least by one point. Without segments there is nothing to score.
func (s *Summary) Take(weight, of int, reason, advice string) {
	if s.Segments == 0 {
		return
	}
	s.Score = max(0, s.Score-max(1, weight*min(of, s.Segments)/s.Segments))
	s.Reasons = append(s.Reasons, reason)
	s.Advice = append(s.Advice, advice)
}
