package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
)

// maxPlotRows bounds a picture.
const maxPlotRows = 500

// Measures of the picture, in pixels.
const (
	plotWidth  = 960
	plotLabel  = 300 // left of the bars
	plotBar    = 14  // of one bar
	plotGap    = 16  // between rows
	plotValue  = 190 // right of the bars
	plotHeader = 56
)

// plotFile draws the rows of a report whose names match.
func plotFile(path, match string, w io.Writer) (err error) {
	re, err := regexp.Compile(match)
	if err != nil {
		return fmt.Errorf("-run: %w", err)
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	var records []Record
	for dec := json.NewDecoder(f); ; {
		var r Record
		if err := dec.Decode(&r); err == io.EOF {
			break
		} else if err != nil {
			return fmt.Errorf("%s is no report made with -o json: %w", path, err)
		}
		if re.MatchString(r.Name) {
			records = append(records, r)
		}
		if len(records) > maxPlotRows {
			return fmt.Errorf("more than %d rows; choose some with -run", maxPlotRows)
		}
	}
	if len(records) == 0 {
		return fmt.Errorf("no row of %s matches %q", path, match)
	}
	_, err = io.WriteString(w, plot(records))
	return err
}

// bar is one bar of a row.
type bar struct {
	name   string
	value  float64
	colour string
}

// bars of a record: the product first, then its limit, then the peers by name.
func (rec *Record) bars() []bar {
	out := []bar{{"fcp", rec.Value, "#2563a8"}}
	if rec.Limit != nil {
		out = append(out, bar{"limit", *rec.Limit, "#9aa3ad"})
	}
	for _, name := range slices.Sorted(maps.Keys(rec.Peers)) {
		out = append(out, bar{name, rec.Peers[name], "#c98a2b"})
	}
	return out
}

// plot draws horizontal bars, each row on a scale of its own from zero to its
// longest bar, because rows have different units.
func plot(records []Record) string {
	var b strings.Builder
	y := plotHeader
	for i := range records {
		rec := &records[i]
		bars := rec.bars()
		longest := 0.0
		for _, x := range bars {
			longest = max(longest, x.value)
		}
		note := rec.Unit
		if rec.Better == "lower" {
			note += ", lower is better"
		}
		if rec.Ratio != nil {
			note += fmt.Sprintf(", %.2f of the limit", *rec.Ratio)
		}
		text(&b, 8, y+11, "start", "bold", rec.Name)
		text(&b, 8, y+25, "start", "normal", note)
		for _, x := range bars {
			width := 0.0
			if longest > 0 {
				width = x.value / longest * (plotWidth - plotLabel - plotValue)
			}
			fmt.Fprintf(&b, "<rect x=\"%d\" y=\"%d\" width=\"%.1f\" height=\"%d\" fill=\"%s\"/>\n", plotLabel, y, width, plotBar-2, x.colour)
			text(&b, plotLabel+int(width)+6, y+10, "start", "normal", fmt.Sprintf("%s %.4g", x.name, x.value))
			y += plotBar
		}
		y += max(plotGap, 2*plotBar+plotGap-len(bars)*plotBar)
	}
	m := records[0].Machine
	var head strings.Builder
	fmt.Fprintf(&head, "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" font-family=\"sans-serif\" font-size=\"11\">\n", plotWidth, y)
	head.WriteString("<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n")
	text(&head, 8, 20, "start", "bold", fmt.Sprintf("%s, medians of %d", records[0].Time.Format("2006-01-02"), records[0].Count))
	text(&head, 8, 38, "start", "normal", fmt.Sprintf("%s, %d cores, %s, %s on %s; each row has its own scale", m.CPU, m.Cores, m.Go, m.FS, m.Device))
	return head.String() + b.String() + "</svg>\n"
}

var svgEscape = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;", `"`, "&quot;")

func text(b *strings.Builder, x, y int, anchor, weight, s string) {
	fmt.Fprintf(b, "<text x=\"%d\" y=\"%d\" text-anchor=\"%s\" font-weight=\"%s\">%s</text>\n", x, y, anchor, weight, svgEscape.Replace(s))
}
