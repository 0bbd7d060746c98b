package main

import (
	"fmt"
	"sync"
	"time"
)

const (
	progressOnTerminal = 100 * time.Millisecond
	progressOtherwise  = 10 * time.Second
	progressEvents     = time.Second // with -o ndjson

	inBytes = "bytes" // the unit that is shown in KiB, MiB and GiB
)

// progress shows how far long work has come: a line that is written over on a
// terminal, otherwise one line per 10 s, or JSON events with -o ndjson.
type progress struct {
	a     *app
	what  string
	unit  string // of what is counted: positions, bytes
	start time.Time

	mu    sync.Mutex
	stage string    // guarded by mu
	begun time.Time // of the stage; guarded by mu
	shown time.Time // guarded by mu
	drawn bool      // a line stands on the terminal; guarded by mu
}

func (a *app) progress(what, unit string) *progress {
	now := a.now()
	return &progress{a: a, what: what, unit: unit, start: now, begun: now, shown: now}
}

// progressView is one progress event as JSON.
type progressView struct {
	Schema string `json:"schema"`
	What   string `json:"what"`
	Stage  string `json:"stage,omitempty"`
	Done   uint64 `json:"done"`
	Total  uint64 `json:"total,omitempty"`
	Unit   string `json:"unit"`
	Millis int64  `json:"elapsed_ms"`
}

// tell may be called as often as one likes, from any goroutine.
func (p *progress) tell(stage string, done, total uint64) {
	a := p.a
	if a.flags.quiet || a.flags.format == formatJSON {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	now := a.now()
	if stage != p.stage {
		p.stage, p.begun = stage, now
	}
	every := progressOtherwise
	switch {
	case a.flags.format == formatNDJSON:
		every = progressEvents
	case a.stderrTTY:
		every = progressOnTerminal
	}
	if now.Sub(p.shown) < every {
		return
	}
	p.shown = now
	if a.flags.format == formatNDJSON {
		_ = a.printJSON(a.stderr, progressView{schemaName("Progress"), p.what, stage, done, total, p.unit, now.Sub(p.start).Milliseconds()})
		return
	}
	line := p.line(now, done, total)
	if a.stderrTTY {
		fmt.Fprintf(a.stderr, "\r\x1b[K%s", line)
		p.drawn = true
		return
	}
	fmt.Fprintln(a.stderr, line)
}

// line is "verify scan: 1200 of 4800 positions, 25 %, 600 positions/s, 6s left", of
// bytes "backup copy: 512.0 MiB of 2.0 GiB, 25 %, 64.0 MiB/s, 24s left".
func (p *progress) line(now time.Time, done, total uint64) string {
	s := p.what
	if p.stage != "" {
		s += " " + p.stage
	}
	s += ": "
	switch {
	case p.unit == inBytes && total > 0:
		s += sizeText(done) + " of " + sizeText(total)
	case total > 0:
		s += decimal(done) + " of " + decimal(total) + " " + p.unit
	default:
		s += p.amount(done)
	}
	if total > 0 && done <= total {
		s += fmt.Sprintf(", %d %%", done*100/total)
	}
	spent := now.Sub(p.begun)
	if ms := uint64(spent.Milliseconds()); ms > 0 && done > 0 {
		s += ", " + p.amount(done*1000/ms) + "/s"
		if total > done {
			left := time.Duration(float64(spent) * float64(total-done) / float64(done))
			s += ", " + left.Round(time.Second).String() + " left"
		}
	}
	return s
}

// amount is "1200 positions" or "1.5 MiB".
func (p *progress) amount(n uint64) string {
	if p.unit == inBytes {
		return sizeText(n)
	}
	return decimal(n) + " " + p.unit
}

// done takes the line off the terminal.
func (p *progress) done() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.drawn {
		fmt.Fprint(p.a.stderr, "\r\x1b[K")
		p.drawn = false
	}
}
