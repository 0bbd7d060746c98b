package main

import (
	"fmt"
	"regexp"
	"slices"
)

// rowSources are all rows, one source per file, in the order of the report. A
// new file adds one line here.
func rowSources() []func() ([]Row, error) {
	return []func() ([]Row, error){
		plain(limitRows),
		plain(rawRows),
		plain(peerRows),
		func() ([]Row, error) { return appendRows(logTarget()) },
		func() ([]Row, error) { return appendRows(engineTarget()) },
		plain(logReplayRows),
		plain(scalingRows),
		plain(logSealRows),
		plain(logGetRows),
		engineRows,
		plain(largeRows),
		plain(overheadRows),
		plain(longRows),
		plain(atRows),
		plain(codecRows),
		plain(codecMemoryRows),
		plain(secretRows),
		plain(meshRows),
	}
}

func plain(f func() []Row) func() ([]Row, error) {
	return func() ([]Row, error) { return f(), nil }
}

// selectRows returns the rows whose name matches, and refuses two of one name.
func selectRows(match *regexp.Regexp) ([]Row, error) {
	var rows []Row
	seen := map[string]bool{}
	for _, source := range rowSources() {
		some, err := source()
		if err != nil {
			return nil, err
		}
		for _, r := range some {
			if seen[r.Name] {
				return nil, fmt.Errorf("two rows are called %s", r.Name)
			}
			seen[r.Name] = true
		}
		rows = append(rows, some...)
	}
	return slices.DeleteFunc(rows, func(r Row) bool { return !match.MatchString(r.Name) }), nil
}
