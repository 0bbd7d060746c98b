package fcp

import (
	"testing"
	"time"
)

func TestLimitsFitTogether(t *testing.T) {
	for what, ok := range map[string]bool{
		"the codec's cap is the specification's":  MaxCanonicalObject == 67_108_864,
		"an epoch is 300 s, the lead 120 s":       EpochLength == 300*time.Second && MaxClockLead == 120*time.Second,
		"a chunk fits an event":                   ChunkSize < MaxBody,
		"an event fits an open segment":           MaxBody < MaxSegment,
		"the target is below the maximum":         SegmentTarget <= MaxSegment,
		"a header fits an object":                 MaxHeader < MaxCanonicalObject,
		"symbols are aligned":                     SymbolSize%SymbolAlignment == 0,
		"a zone fits the one length byte of Feed": MaxZoneID < 256,
		"a plain header fits an inline body":      PlainHeaderSize(SchemaBlob)+HashSize <= BodyOverhead,
	} {
		if !ok {
			t.Errorf("not so: %s", what)
		}
	}
}
