package wire

import "fcp"

// Reasons for refusing a frame, found with errors.Is below any number of wraps.
const (
	ReasonShort      fcp.Reason = "too_short"
	ReasonMTU        fcp.Reason = "exceeds_mtu"
	ReasonMagic      fcp.Reason = "bad_magic"
	ReasonVersion    fcp.Reason = "unsupported_version"
	ReasonSymbolSize fcp.Reason = "invalid_symbol_size"
	ReasonLength     fcp.Reason = "length_mismatch"
	ReasonChecksum   fcp.Reason = "checksum_mismatch"
	ReasonFlags      fcp.Reason = "unknown_flags"
	ReasonTooLarge   fcp.Reason = "too_large"
	ReasonPayload    fcp.Reason = "payload_too_large"
	ReasonReplay     fcp.Reason = "replay"
	ReasonAEAD       fcp.Reason = "aead_invalid"
	ReasonSuite      fcp.Reason = "no_mutual_suite"
	ReasonSignature  fcp.Reason = "missing_signature"
	ReasonSkew       fcp.Reason = "timestamp_skew"
	ReasonPeer       fcp.Reason = "wrong_peer"
)

func refuse(code fcp.Code, what string, r fcp.Reason) error {
	return fcp.Errorf(code, "%s: %w", what, r)
}
