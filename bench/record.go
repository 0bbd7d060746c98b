package main

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// Record is a measured row, one JSON object. README.md explains each field.
type Record struct {
	Name   string   `json:"name"`
	Value  float64  `json:"value"`
	Unit   string   `json:"unit"`
	Better string   `json:"better"` // "higher" or "lower"
	Limit  *float64 `json:"limit"`
	Ratio  *float64 `json:"ratio"`
	// Peers holds the medians of the peers measured in the same run, by name.
	Peers map[string]float64 `json:"peers"`

	LimitIs string  `json:"limit_is,omitempty"`
	Variant string  `json:"variant,omitempty"`
	Min     float64 `json:"min"`
	Max     float64 `json:"max"`
	Count   int     `json:"count"`

	Ops         int64    `json:"ops"`
	EventBytes  int64    `json:"event_bytes,omitempty"`
	P50         float64  `json:"p50_us,omitempty"`
	P99         float64  `json:"p99_us,omitempty"`
	WriteBytes  int64    `json:"write_bytes"`
	DeviceBytes int64    `json:"device_write_bytes"`
	WriteAmp    *float64 `json:"write_amp,omitempty"`
	CPU         float64  `json:"cpu_s"`
	CPUPerOp    float64  `json:"cpu_us_per_op"`
	Allocs      float64  `json:"allocs_per_op"`
	PeakRSS     int64    `json:"peak_rss_bytes"`

	Load     float64   `json:"load1"`
	Time     time.Time `json:"time"`
	Revision string    `json:"revision,omitempty"`
	Machine  Machine   `json:"machine"`
}

// newRecord sums up a row from the samples of its subjects, limit (may be nil)
// and peers. Machine, Load, Time and Revision are left to the caller.
func newRecord(row Row, subjects []*result, limit *result, peers []*result) Record {
	best := subjects[0]
	for _, r := range subjects[1:] {
		if better(median(r.values()), median(best.values()), row.Lower) {
			best = r
		}
	}
	values := best.values()
	rec := Record{
		Name: row.Name, Unit: row.Unit, Better: "higher", Count: len(values),
		Value: rounded(median(values)), Min: rounded(slices.Min(values)), Max: rounded(slices.Max(values)),
		Peers: map[string]float64{},
	}
	if row.Lower {
		rec.Better = "lower"
	}
	if len(subjects) > 1 {
		rec.Variant = best.subject.Name
	}
	if limit != nil {
		rec.LimitIs = limit.subject.Name
		rec.Limit = new(rounded(median(limit.values())))
		rec.Ratio = new(rounded(pairwiseRatio(values, limit.values(), row.Lower)))
	}
	for _, p := range peers {
		name, v := p.subject.family(), rounded(median(p.values()))
		if old, ok := rec.Peers[name]; !ok || better(v, old, row.Lower) {
			rec.Peers[name] = v
		}
	}
	rec.addUsage(best.samples)
	return rec
}

// addUsage adds what the subject itself consumed: sums over its rounds, the
// median of the latencies, the highest memory.
func (rec *Record) addUsage(samples []Sample) {
	var p50, p99 []float64
	var bytes, allocs int64
	for _, s := range samples {
		rec.Ops += s.Ops
		bytes += s.Bytes
		rec.WriteBytes += s.used.written
		rec.DeviceBytes += s.used.device
		allocs += s.used.allocs
		rec.CPU += s.used.cpu.Seconds()
		rec.PeakRSS = max(rec.PeakRSS, s.used.peakRSS)
		p50 = append(p50, float64(s.P50)/1e3)
		p99 = append(p99, float64(s.P99)/1e3)
	}
	rec.P50, rec.P99 = rounded(median(p50)), rounded(median(p99))
	if rec.Ops > 0 {
		rec.Allocs = rounded(float64(allocs) / float64(rec.Ops))
		rec.CPUPerOp = rounded(rec.CPU * 1e6 / float64(rec.Ops))
		rec.EventBytes = bytes / rec.Ops
	}
	rec.CPU = rounded(rec.CPU)
	if bytes > 0 {
		rec.WriteAmp = new(rounded(float64(rec.WriteBytes) / float64(bytes)))
	}
}

// output receives the records one by one.
type output interface {
	put(Record) error
	end() error
}

// jsonLines writes one object per line as soon as it is there.
type jsonLines struct{ w io.Writer }

func (j jsonLines) put(r Record) error { return json.NewEncoder(j.w).Encode(r) }
func (j jsonLines) end() error         { return nil }

// table aligns all rows at the end.
type table struct {
	w    *tabwriter.Writer
	last Machine
}

func newTable(w io.Writer) *table {
	return &table{w: tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)}
}

const tableHead = "name\tvalue\tunit\tmin..max\tlimit\tratio\tp99 us\tcpu us/op\twrite amp\tpeers\n"

func (t *table) put(r Record) error {
	if t.last == (Machine{}) {
		fmt.Fprint(t.w, tableHead) // tabwriter keeps a write error for Flush
	}
	t.last = r.Machine
	_, err := fmt.Fprintf(t.w, "%s\t%s\t%s\t%s..%s\t%s\t%s\t%s\t%s\t%s\t%s\n",
		r.Name, number(r.Value), r.Unit, number(r.Min), number(r.Max), optional(r.Limit), optional(r.Ratio),
		number(r.P99), number(r.CPUPerOp), optional(r.WriteAmp), peerList(r))
	return err
}

func (t *table) end() error {
	if t.last != (Machine{}) {
		fmt.Fprintf(t.w, "\n%s\n", t.last)
	}
	return t.w.Flush()
}

func number(x float64) string {
	switch {
	case x == 0:
		return "-"
	case x >= 1000:
		return fmt.Sprintf("%.0f", x)
	default:
		return fmt.Sprintf("%.3g", x)
	}
}

func optional(x *float64) string {
	if x == nil {
		return "-"
	}
	return number(*x)
}

func peerList(r Record) string {
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(r.Peers)) {
		parts = append(parts, name+" "+number(r.Peers[name]))
	}
	if r.Variant != "" {
		parts = append(parts, "("+r.Variant+")")
	}
	return strings.Join(parts, ", ")
}
