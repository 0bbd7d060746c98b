package authority

import (
	"math"

	"fcp"
)

// What a zone wants gone is gone everywhere only when every member knows of it. So
// members acknowledge: that they hold all that a retention mark covers, for which a
// collector waits, and that they destroyed the keys that a Forgetting names.

// DeletionAck is a member's word in its own control feed.
type DeletionAck struct {
	Zone    fcp.ZoneID
	Node    fcp.WriterID // the writer of the feed that it is in
	Subject fcp.Hash     // Checkpoint.Hash of a retention mark, or Forgetting.Ref
	Mark    uint64       // number of the retention mark, from 1; 0: the subject is a Forgetting
}

// ackObject is DeletionAck on the wire. It carries no signature of its own: it is an
// event of the member's feed, whose heads the member signs.
type ackObject struct {
	Format  uint64       `cbor:"format"`
	Zone    fcp.ZoneID   `cbor:"zone_id"`
	Node    fcp.WriterID `cbor:"node"`
	Subject fcp.Hash     `cbor:"subject"`
	Mark    uint64       `cbor:"mark,omitempty"` // format 1 alone
}

// EncodeDeletionAck returns the body of a deletion.acked event.
func EncodeDeletionAck(a DeletionAck) ([]byte, error) {
	o := ackObject{ackFormat(a.Mark), a.Zone, a.Node, a.Subject, a.Mark}
	if err := o.check(); err != nil {
		return nil, err
	}
	return fcp.MarshalPayload(fcp.SchemaDeletionAck, &o)
}

// DecodeDeletionAck decodes the body of a deletion.acked event. Errors:
// CodeMalformed, CodeNonCanonical, CodeSchema, CodeVersion, CodeZone, CodeTooLarge.
func DecodeDeletionAck(b []byte) (DeletionAck, error) {
	var o ackObject
	if len(b) > MaxSignedObject {
		return DeletionAck{}, fcp.Errorf(fcp.CodeTooLarge, "an acknowledgement of %d bytes", len(b))
	}
	if err := fcp.UnmarshalPayload(fcp.SchemaDeletionAck, b, &o); err != nil {
		return DeletionAck{}, err
	}
	if err := o.check(); err != nil {
		return DeletionAck{}, err
	}
	return DeletionAck{o.Zone, o.Node, o.Subject, o.Mark}, nil
}

// ackFormat is the format of an acknowledgement: 1 of a retention mark, 2 of a
// Forgetting.
func ackFormat(mark uint64) uint64 {
	if mark == 0 {
		return ObjectFormat + 1
	}
	return ObjectFormat
}

func (o *ackObject) check() error {
	if err := checkFormat(fcp.SchemaDeletionAck, o.Format, ackFormat(o.Mark), 0); err != nil {
		return err
	}
	switch {
	case !o.Zone.Valid():
		return fcp.Errorf(fcp.CodeZone, "an acknowledgement in zone %.64q", string(o.Zone))
	case o.Node.IsZero() || o.Subject.IsZero() || o.Mark > math.MaxInt64:
		return fcp.Errorf(fcp.CodeMalformed, "an acknowledgement of nothing, or by nobody")
	}
	return nil
}
