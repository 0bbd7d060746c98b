package symbols

import (
	"fcp"
)

// MaxPath is the most bytes of an audit path in a share: its tree has fewer than 2^13
// leaves.
const MaxPath = 13 * fcp.HashSize

// Path returns the RFC 6962 audit path of a symbol's commitment in the tree over the
// share's commitments, from left to right, and false when the share is cut or does not
// have the symbol.
func (s *Share) Path(esi uint32) (path []byte, ok bool) {
	if !s.whole() || esi < s.First || esi >= s.End() {
		return nil, false
	}
	i := int(esi - s.First)
	path = []byte{}
	for _, h := range newTree(s.commits).proof(i, i+1) {
		path = append(path, h[:]...)
	}
	return path, true
}

// Proves reports whether symbol is the one with this id of the share for which a minter
// signed root: whoever shows it had it when asked.
func (r *Ref) Proves(root fcp.Hash, esi uint32, symbol, path []byte) bool {
	if !r.Valid() || esi < r.First || esi >= r.End() || len(symbol) != fcp.SymbolSize || len(path) > MaxPath {
		return false
	}
	var h hasher
	c := h.commit(r, esi, symbol)
	return zero(symbol[paddedFrom(r, esi):]) && proves(root, c[:], int(esi-r.First), int(r.Count), path)
}
