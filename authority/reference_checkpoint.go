package authority

import (
	"slices"

	"fcp"
)

// The checkpoint proposal and the fork evidence of the reference profile, in JSON
// (spec/wire.md section 12). For interchange; neither carries authority here.

// ReferenceSignature is a node signature in JSON: hex text.
type ReferenceSignature struct {
	Node      string `json:"node_id"`
	Signature string `json:"signature"`
	SignedAt  uint64 `json:"signed_at"`
}

// ReferenceTrigger says why a checkpoint was proposed.
type ReferenceTrigger struct {
	Type      string  `json:"type"` // time_elapsed, audit_chain_growth, revocation_chain_growth, policy_change, manual
	Elapsed   *uint64 `json:"elapsed_secs,omitempty"`
	Threshold *uint64 `json:"threshold_secs,omitempty"`
	Events    *uint64 `json:"new_events,omitempty"`
	Reason    *string `json:"reason,omitempty"`
}

// ReferenceProposal is a proposed checkpoint. Optional fields are null when absent.
type ReferenceProposal struct {
	Zone          fcp.ZoneID         `json:"zone_id"`
	Seq           uint64             `json:"proposed_seq"`
	Prev          *string            `json:"prev_checkpoint_id"`
	AuditHead     *string            `json:"audit_head_id"`
	AuditSeq      uint64             `json:"audit_head_seq"`
	RevHead       *string            `json:"revocation_head_id"`
	RevSeq        uint64             `json:"revocation_head_seq"`
	Definition    string             `json:"zone_definition_head"`
	Policy        string             `json:"zone_policy_head"`
	Manifest      string             `json:"active_zone_key_manifest"`
	Epoch         string             `json:"epoch_id"`
	ProposedAt    uint64             `json:"proposed_at"` // unix seconds
	Coordinator   string             `json:"coordinator"`
	CoordinatorBy ReferenceSignature `json:"coordinator_signature"`
	Triggers      []ReferenceTrigger `json:"triggers"`
}

// ReferenceForkEvidence is two checkpoints with one number.
type ReferenceForkEvidence struct {
	Zone       fcp.ZoneID `json:"zone_id"`
	Seq        uint64     `json:"conflicting_seq"`
	A          string     `json:"checkpoint_a"`
	B          string     `json:"checkpoint_b"`
	DetectedAt uint64     `json:"detected_at"` // unix seconds
	DetectedBy string     `json:"detected_by"`
	SignersA   []string   `json:"signers_a"`
	SignersB   []string   `json:"signers_b"`
}

// DoubleSigners returns who signed both, in the order of SignersA.
func (e *ReferenceForkEvidence) DoubleSigners() []string {
	var out []string
	for _, s := range e.SignersA {
		if slices.Contains(e.SignersB, s) {
			out = append(out, s)
		}
	}
	return out
}
