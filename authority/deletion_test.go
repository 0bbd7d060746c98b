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
	b, err := EncodeDeletionAck(testAck())
	must(t, b, err)
	got, err := DecodeDeletionAck(b)
	if must(t, got, err); got != testAck() {
		t.Fatal(got)
	}
	for name, a := range map[string]DeletionAck{
		"no zone":    {Node: fcp.WriterID{1}, Subject: fcp.Hash{2}, Mark: 1},
		"no node":    {Zone: fcp.ZoneWork, Subject: fcp.Hash{2}, Mark: 1},
		"no subject": {Zone: fcp.ZoneWork, Node: fcp.WriterID{1}, Mark: 1},
		"no number":  {Zone: fcp.ZoneWork, Node: fcp.WriterID{1}, Subject: fcp.Hash{2}},
	} {
		if _, err := EncodeDeletionAck(a); err == nil {
			t.Error(name)
		}
	}
}

func FuzzDeletionAck(f *testing.F) {
	b, err := EncodeDeletionAck(testAck())
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
