package main

import (
	"math"
	"slices"
)

// median of v, 0 if v is empty; v stays as it is.
func median(v []float64) float64 {
	if len(v) == 0 {
		return 0
	}
	s := slices.Sorted(slices.Values(v))
	mid := len(s) / 2
	if len(s)%2 == 1 {
		return s[mid]
	}
	return (s[mid-1] + s[mid]) / 2
}

// pairwiseRatio is the median over the rounds of the share of the limit that
// was reached in that round: value/limit, or limit/value where lower is better.
func pairwiseRatio(values, limits []float64, lower bool) float64 {
	var ratios []float64
	for i := range min(len(values), len(limits)) {
		over, under := values[i], limits[i]
		if lower {
			over, under = under, over
		}
		if under > 0 {
			ratios = append(ratios, over/under)
		}
	}
	return median(ratios)
}

// better reports whether a beats b.
func better(a, b float64, lower bool) bool {
	if lower {
		return a < b
	}
	return a > b
}

// rounded keeps four significant digits: more would be noise in the report.
func rounded(x float64) float64 {
	if x == 0 || math.IsNaN(x) || math.IsInf(x, 0) {
		return 0
	}
	scale := math.Pow(10, 3-math.Floor(math.Log10(math.Abs(x))))
	return math.Round(x*scale) / scale
}
