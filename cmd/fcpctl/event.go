package main

import (
	"encoding/hex"
	"strings"

	"fcp"
	"fcp/engine"
)

// eventView is one event as JSON.
type eventView struct {
	Position    uint64     `json:"position,omitempty"`
	Zone        fcp.ZoneID `json:"zone"`
	Plane       string     `json:"plane"`
	Writer      string     `json:"writer,omitempty"`
	Incarnation string     `json:"incarnation,omitempty"` // 16 hex digits: JSON numbers are not exact that far
	Seq         uint64     `json:"seq,omitempty"`
	Time        string     `json:"time,omitempty"`
	Kind        string     `json:"kind"`
	Key         string     `json:"key,omitempty"`
	Object      string     `json:"object,omitempty"`
	Generation  uint64     `json:"generation,omitempty"`
	Replaces    []string   `json:"replaces,omitempty"`
	Size        uint64     `json:"size,omitempty"`
	Body        int        `json:"body"` // bytes stored
	Hash        string     `json:"hash,omitempty"`
}

func viewEvent(r *engine.EventRow) eventView {
	v := eventView{Position: r.Position, Zone: r.Zone, Plane: r.Plane, Writer: r.Writer.String(), Incarnation: incarnationText(r.Incarnation),
		Seq: r.Seq, Time: timeText(r.Time), Kind: r.Kind, Key: r.Key, Object: hashText(r.Object), Generation: r.Generation,
		Size: r.Size, Body: r.Body, Hash: hashText(r.Hash)}
	for _, h := range r.Replaces {
		v.Replaces = append(v.Replaces, h.String())
	}
	return v
}

func viewPlanned(zone fcp.ZoneID, planned []engine.PlannedEvent) []eventView {
	var out []eventView
	for _, p := range planned {
		out = append(out, eventView{Zone: zone, Plane: p.Plane, Kind: p.Kind, Key: p.Key, Object: hashText(p.Object), Generation: p.Generation, Body: p.Body})
	}
	return out
}

// printPlanned prints the events a dry run would have written.
func (a *app) printPlanned(events []eventView) error {
	l := a.list("PlannedEvent", 0, "ZONE", "PLANE", "KIND", "GENERATION", "BODY", "KEY", "OBJECT")
	for _, v := range events {
		if err := l.add(v, v.Kind, v.Zone.String(), v.Plane, v.Kind, decimal(v.Generation), decimal(uint64(v.Body)), v.Key, a.short(v.Object)); err != nil {
			return err
		}
	}
	a.note("dry run: nothing was written")
	return l.close()
}

func incarnationText(n uint64) string {
	var b [8]byte
	for i := range b {
		b[i] = byte(n >> (56 - 8*i))
	}
	return hex.EncodeToString(b[:])
}

// hashText is the hex form, "" for none.
func hashText[H interface {
	String() string
	IsZero() bool
}](h H) string {
	if h.IsZero() {
		return ""
	}
	return h.String()
}

func joinZones(zones []fcp.ZoneID) string {
	var s []string
	for _, z := range zones {
		s = append(s, z.String())
	}
	return strings.Join(s, " ")
}
