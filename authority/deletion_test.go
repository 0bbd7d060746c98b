package authority

import (
	"bytes"
	"testing"

	"fcp"
)

func testAck() DeletionAck {
	return DeletionAck{Zone: fcp.ZoneWork, Node: fcp.WriterID{1}, Subject: fcp.Hash{2}, Mark: 7}
}

func TestDeletionAck(t *testing.T) {
	ofMark, ofForgetting := testAck(), testAck()
	ofForgetting.Mark = 0
	for _, a := range []DeletionAck{ofMark, ofForgetting} {
		b, err := EncodeDeletionAck(a)
		must(t, b, err)
		got, err := DecodeDeletionAck(b)
		if must(t, got, err); got != a {
			t.Fatal(got)
		}
	}
	for format, mark := range map[uint64]uint64{1: 0, 2: 7, 3: 0} {
		o := ackObject{format, ofMark.Zone, ofMark.Node, ofMark.Subject, mark}
		b, err := fcp.MarshalPayload(fcp.SchemaDeletionAck, &o)
		must(t, b, err)
		if _, err := DecodeDeletionAck(b); err == nil {
			t.Errorf("format %d with mark %d is accepted", format, mark)
		}
	}
	for name, a := range map[string]DeletionAck{
		"no zone":    {Node: fcp.WriterID{1}, Subject: fcp.Hash{2}, Mark: 1},
		"no node":    {Zone: fcp.ZoneWork, Subject: fcp.Hash{2}, Mark: 1},
		"no subject": {Zone: fcp.ZoneWork, Node: fcp.WriterID{1}, Mark: 1},
		"too high":   {Zone: fcp.ZoneWork, Node: fcp.WriterID{1}, Subject: fcp.Hash{2}, Mark: 1 << 63},
	} {
		if _, err := EncodeDeletionAck(a); err == nil {
			t.Error(name)
		}
	}
}

func FuzzDeletionAck(f *testing.F) {
	b, err := EncodeDeletionAck(testAck())
	f.Add(must(f, b, err))
	b, err = EncodeDeletionAck(DeletionAck{Zone: fcp.ZoneWork, Node: fcp.WriterID{1}, Subject: fcp.Hash{2}})
	f.Add(must(f, b, err))
	f.Fuzz(func(t *testing.T, b []byte) {
		a, err := DecodeDeletionAck(b)
		if err != nil {
			return
		}
		if again, err := EncodeDeletionAck(a); err != nil || !bytes.Equal(again, b) {
			t.Errorf("%x is not the one form: %v", b, err)
		}
	})
}
