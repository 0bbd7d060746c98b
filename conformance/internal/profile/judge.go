package profile

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
)

// Row is a judged requirement.
type Row struct {
	Requirement
	Holds    bool               `json:"holds"`
	Why      string             `json:"why"`
	Outcomes map[string]Outcome `json:"outcomes,omitempty"`
}

// Judged is a profile with its rows.
type Judged struct {
	Name   string `json:"name"`
	Source string `json:"source"`
	Holds  bool   `json:"holds"` // every row does
	Rows   []Row  `json:"rows"`
}

// Report is all profiles, judged.
type Report []Judged

// Judge holds the requirements against results. A row without tests does not hold,
// nor does one of whose tests any did not run, was skipped or failed.
func Judge(profiles []Profile, results Results) Report {
	out := Report{}
	for _, p := range profiles {
		j := Judged{Name: p.Name, Source: p.Source, Holds: len(p.Requirements) > 0}
		for _, r := range p.Requirements {
			row := judge(r, results)
			j.Holds = j.Holds && row.Holds
			j.Rows = append(j.Rows, row)
		}
		out = append(out, j)
	}
	return out
}

func judge(r Requirement, results Results) Row {
	row := Row{Requirement: r, Outcomes: map[string]Outcome{}}
	if len(r.Tests) == 0 {
		row.Why = "no test shows it"
		return row
	}
	var against []string
	for _, t := range r.Tests {
		o, ok := results[t]
		if !ok {
			o = Missing
		}
		row.Outcomes[t] = o
		if o != Passed {
			against = append(against, fmt.Sprintf("%s %s", t, o))
		}
	}
	if row.Holds = len(against) == 0; !row.Holds {
		row.Why = strings.Join(against, "; ")
		return row
	}
	row.Why = fmt.Sprintf("%d of %d tests passed", len(r.Tests), len(r.Tests))
	return row
}

// Summary says in one line how many rows of each profile hold.
func (r Report) Summary() string {
	var parts []string
	for _, p := range r {
		n := 0
		for _, row := range p.Rows {
			if row.Holds {
				n++
			}
		}
		parts = append(parts, fmt.Sprintf("%s: %d of %d requirements hold", p.Name, n, len(p.Rows)))
	}
	return strings.Join(parts, "; ")
}

// Markdown returns the report for a person.
func (r Report) Markdown() []byte {
	var b bytes.Buffer
	b.WriteString("# Profiles\n\nGenerated from test results; a row holds only when each of its tests ran and passed.\n")
	for _, p := range r {
		verdict := "does not hold"
		if p.Holds {
			verdict = "holds"
		}
		fmt.Fprintf(&b, "\n## %s: %s\n\n%s\n\n| | requirement | holds | shown by |\n|---|---|---|---|\n", p.Name, verdict, p.Source)
		for _, row := range p.Rows {
			holds, by := "does not hold", row.Why
			if row.Holds {
				holds, by = "yes", strings.Join(row.Tests, ", ")
			}
			if row.Note != "" {
				by += ". " + row.Note
			}
			fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", row.ID, row.Text, holds, by)
		}
	}
	return b.Bytes()
}

// JSON returns the report for a program.
func (r Report) JSON() ([]byte, error) {
	b, err := json.MarshalIndent(r, "", " ")
	return append(b, '\n'), err
}
