package node

import (
	"context"
	"slices"
	"strings"
	"sync"

	"fcp"
)

// FetchReport says where the symbols came from that a read needed. Safe for
// concurrent use.
type FetchReport struct {
	mu       sync.Mutex
	segments int
	from     map[fcp.WriterID]*FetchedFrom
}

// FetchedFrom is what one member gave.
type FetchedFrom struct {
	Writer  fcp.WriterID
	Name    string
	Symbols uint64 // good ones that came, used or not
}

type fetchReportKey struct{}

// WithFetchReport returns a context that collects what fetches under it got.
func WithFetchReport(ctx context.Context) (context.Context, *FetchReport) {
	r := &FetchReport{from: map[fcp.WriterID]*FetchedFrom{}}
	return context.WithValue(ctx, fetchReportKey{}, r), r
}

// From returns what each member gave, the most first. A segment that was in memory
// already needed nobody.
func (r *FetchReport) From() (out []FetchedFrom) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, f := range r.from {
		out = append(out, *f)
	}
	slices.SortFunc(out, func(a, b FetchedFrom) int {
		if a.Symbols != b.Symbols {
			return int(int64(b.Symbols) - int64(a.Symbols))
		}
		return strings.Compare(a.Name, b.Name)
	})
	return out
}

// Segments returns how many segments were rebuilt.
func (r *FetchReport) Segments() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.segments
}

// report tells whoever reads under ctx what this rebuild got from whom.
func (f *rebuilding) report(ctx context.Context) {
	r, ok := ctx.Value(fetchReportKey{}).(*FetchReport)
	if !ok {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.segments++
	for _, p := range f.parts {
		w, name := f.node.self, f.node.id.self.Name
		if p.session != nil {
			w, name = p.session.peer.Writer, p.session.peer.Name
		}
		if r.from[w] == nil {
			r.from[w] = &FetchedFrom{Writer: w, Name: name}
		}
		r.from[w].Symbols += p.got.GetCardinality()
	}
}
