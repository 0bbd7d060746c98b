package authority

import (
	"slices"
	"strings"

	"fcp"
)

// PlacementRules say how the symbols of a zone's segments are spread over its devices
// (50-mesh "Placement, coverage, repair"). They ride in the zone's policy, format 2.
// Fractions are basis points, 10000 = 1.0. The zero value of every field but Need and
// Of asks for nothing.
type PlacementRules struct {
	Need              uint64 `cbor:"need"`                          // any so many of the devices rebuild; 1 to Of
	Of                uint64 `cbor:"of"`                            // devices that hold a share; 1 to MaxPlacementDevices
	MinNodes          uint64 `cbor:"min_nodes,omitempty"`           // devices at least, where more than Of
	MaxFractionBPS    uint64 `cbor:"max_fraction_bps,omitempty"`    // of all symbols on one device, at most
	TargetCoverageBPS uint64 `cbor:"target_coverage_bps,omitempty"` // symbols over source symbols, at least
	Domains           uint64 `cbor:"domains,omitempty"`             // failure domains that may be lost whole; below Of
	MinSources        uint64 `cbor:"min_sources,omitempty"`         // devices that symbols of a rebuild come from, at least, where so many are there
	LowMark           uint64 `cbor:"low_mark,omitempty"`            // shares left below which repair begins; 0: with the first that is lost
	ControlCopies     uint64 `cbor:"control_copies,omitempty"`      // devices that have every control event; 0: DefaultControlCopies

	// Selectors of devices, strictly ascending canonical ids: "device:" and the writer id
	// in hex, or a tag of their enrollment ("class:nas", "site:home").
	Preferred []string `cbor:"preferred,omitempty"` // chosen before others
	Excluded  []string `cbor:"excluded,omitempty"`  // never chosen
}

// Limits and defaults of PlacementRules.
const (
	MaxPlacementDevices   = 64
	MaxPlacementSelectors = 64
	// DefaultControlCopies: audit and control data at 3.0x.
	DefaultControlCopies = 3

	// SelectDevice begins a selector of one device.
	SelectDevice = "device:"

	maxBPS = 10000
)

func (p *PlacementRules) check(zone fcp.ZoneID) error {
	bad := func(what string) error {
		return fcp.Errorf(fcp.CodeInvalidArgument, "placement of %s: %s", zone, what)
	}
	switch {
	case p.Need == 0 || p.Need > p.Of || p.Of > MaxPlacementDevices:
		return bad("any need of n devices takes 1 <= need <= n <= 64")
	case p.MinNodes > MaxPlacementDevices || p.ControlCopies > MaxPlacementDevices || p.MinSources > MaxPlacementDevices:
		return bad("a number of devices above 64")
	case p.MaxFractionBPS > maxBPS || p.MaxFractionBPS > 0 && p.MaxFractionBPS*MaxPlacementDevices < maxBPS:
		return bad("the largest fraction of one device is 157 to 10000 basis points")
	case p.TargetCoverageBPS > MaxPlacementDevices*maxBPS:
		return bad("the coverage asked for is above 64.0x")
	case p.Domains >= p.Of:
		return bad("as many failure domains may be lost as devices hold a share")
	case p.LowMark > 0 && (p.LowMark <= p.Need || p.LowMark > p.Of):
		return bad("the low mark is above the devices that are enough, and not above those that hold a share")
	}
	for _, list := range [][]string{p.Preferred, p.Excluded} {
		if len(list) > MaxPlacementSelectors {
			return fcp.Errorf(fcp.CodeTooLarge, "placement of %s with more than %d selectors", zone, MaxPlacementSelectors)
		}
		for i, s := range list {
			if _, err := fcp.ParseCanonicalID(s); err != nil {
				return fcp.Wrap(fcp.CodeMalformed, err, "placement of %s: selector %d", zone, i)
			}
			if id, ok := strings.CutPrefix(s, SelectDevice); ok {
				if h, err := fcp.ParseHash(id); err != nil || h.String() != id {
					return fcp.Errorf(fcp.CodeMalformed, "placement of %s: selector %d names no device", zone, i)
				}
			}
		}
		if !slices.IsSorted(list) || len(slices.Compact(slices.Clone(list))) != len(list) {
			return fcp.Errorf(fcp.CodeMalformed, "placement of %s with selectors that are not strictly ascending", zone)
		}
	}
	for _, s := range p.Preferred {
		if slices.Contains(p.Excluded, s) {
			return bad("a selector is both preferred and excluded")
		}
	}
	return nil
}

// Selects reports whether a selector of a placement names a device with these tags.
func Selects(selector string, writer fcp.WriterID, tags []string) bool {
	if id, ok := strings.CutPrefix(selector, SelectDevice); ok {
		return id == writer.String()
	}
	return slices.Contains(tags, selector)
}
