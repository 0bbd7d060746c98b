package engine

import (
	"io"
	"strings"
	"testing"

	"fcp"
)

// hookReader runs a function before it gives its last part.
type hookReader struct {
	parts []io.Reader
	hook  func()
}

func (h *hookReader) Read(p []byte) (int, error) {
	for len(h.parts) > 0 {
		n, err := h.parts[0].Read(p)
		if n > 0 || err != io.EOF {
			return n, err
		}
		if h.parts = h.parts[1:]; len(h.parts) == 1 {
			h.hook()
		}
	}
	return 0, io.EOF
}

// TestForgettingSparesChunksOfAnUploadUnderWay: a chunk that an upload found in the
// store keeps its key although nothing names it yet but what is forgotten.
func TestForgettingSparesChunksOfAnUploadUnderWay(t *testing.T) {
	s := newStore(t, 15)
	first := strings.Repeat("0123456789abcdef", fcp.ChunkSize/16)
	s.put("one", first+strings.Repeat("one ", 1000))
	r := &hookReader{parts: []io.Reader{strings.NewReader(first + first), strings.NewReader("two")}}
	r.hook = func() {
		for held := false; !held; { // the chunk was looked up
			s.holds.mu.Lock()
			held = len(s.holds.held) > 0
			s.holds.mu.Unlock()
		}
		if r := s.forget(ForgetRequest{Key: "one"}); r.Shared != 1 {
			t.Errorf("%d shared chunks", r.Shared)
		}
	}
	if _, err := s.Put(t.Context(), PutRequest{Key: "two", Body: r}); err != nil {
		t.Fatal(err)
	}
	if s.get("two", At{}) != first+first+"two" {
		t.Fatal("the upload lost a chunk")
	}
}
