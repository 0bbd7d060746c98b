package fcp

import (
	"bytes"
	"encoding/json"
	"errors"
	"testing"
)

func TestVectorsRateLimit(t *testing.T) {
	for _, v := range vectors(t, "ratelimit") {
		t.Run(v.Name, func(t *testing.T) {
			want := unhex(t, v.Expect["cbor_canonical"].(string))
			var out any = new(Backpressure)
			if value := v.Input["value"].(map[string]any); value["violation_id"] != nil {
				out = new(ThrottleViolation)
			}
			if err := Unmarshal(want, out); err != nil {
				t.Fatal(err)
			}
			again, err := Marshal(out)
			if err != nil || !bytes.Equal(again, want) {
				t.Errorf("%x %v, want %x", again, err, want)
			}
			declared := unhex(t, v.Expect["cbor_declaration_order"].(string))
			if !bytes.Equal(declared, want) && !errors.Is(Unmarshal(declared, out), CodeNonCanonical) {
				t.Error("the declaration order passes")
			}
		})
	}
}

func TestThrottleViolationUnderAnotherID(t *testing.T) {
	v := ThrottleViolation{Zone: ZoneWork, Limit: ThrottleBurst, LimitValue: 3}
	b, err := Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	var back ThrottleViolation
	if err := Unmarshal(b, &back); err != nil || back != v {
		t.Errorf("%+v %v", back, err)
	}
	for i := range b {
		bad := bytes.Clone(b)
		bad[i] ^= 1
		if err := Unmarshal(bad, &back); err == nil {
			t.Errorf("byte %d does not matter", i)
		}
	}
	if _, err := Marshal(ThrottleViolation{Zone: ZoneWork}); err == nil {
		t.Error("a violation of no limit is encoded")
	}
}

// TestVectorsErrorCodes holds the codes to the reference's names.
func TestVectorsErrorCodes(t *testing.T) {
	names := map[string]Code{
		"ChecksumMismatch": CodeChecksum, "VersionMismatch": CodeVersion, "UnsupportedVersion": CodeVersion, "MissingField": CodeMissingField,
		"TokenExpired": CodeTokenExpired, "InvalidSignature": CodeSignature, "CapabilityDenied": CodeDenied, "RateLimited": CodeRateLimited,
		"OperationNotGranted": CodeOperation, "OperationNotAllowed": CodeOperation, "ResourceNotAllowed": CodeResource, "ResourceDenied": CodeResource,
		"ZoneViolation": CodeZone, "TaintViolation": CodeTaint, "ElevationRequired": CodeElevation,
		"NotConfigured": CodeNotConfigured, "NotHandshaken": CodeNotHandshaken, "HealthCheckFailed": CodeHealth, "StreamingNotSupported": CodeNoStreaming,
		"NotFound": CodeNotFound, "ResourceNotFound": CodeNotFound, "ResourceExhausted": CodeExhausted, "Conflict": CodeConflict, "BudgetExceeded": CodeBudget,
		"External": CodeExternal, "ExternalService": CodeExternal, "Timeout": CodeTimeout, "UpstreamTimeout": CodeTimeout,
		"DependencyUnavailable": CodeDependency, "Internal": CodeInternal,
	}
	for _, v := range vectors(t, "error_codes") {
		t.Run(v.Name, func(t *testing.T) {
			code, ok := names[v.Input["error"].(string)]
			if !ok {
				t.Fatalf("no code for %v", v.Input["error"])
			}
			if n, _ := v.Expect["numeric"].(json.Number).Int64(); Code(n) != code || code.String() != v.Expect["code"] || code.Sentence() == "" {
				t.Errorf("%s, want %v", code, v.Expect)
			}
		})
	}
}
