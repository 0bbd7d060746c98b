package engine

import (
	"bytes"
	"testing"
	"time"

	"fcp"
	"fcp/authority"
)

// mintLimited mints a token of one call from a grant without a limit.
func (s *entitled) mintLimited() *authority.Chain {
	s.t.Helper()
	c := notes()
	c.MaxCalls = 1
	chain, err := s.MintFrom(MintRequest{Zone: DefaultZone, Grant: s.grant, Confirm: s.holder.Public(), Constraints: &c, Depth: 1})
	s.must(err)
	return chain
}

// TestAChildWithItsParentsIDGivesNoCallBack has a holder narrow its token to a child
// that has the same id and ends soon: what was used of the parent is remembered
// until the parent ends.
func TestAChildWithItsParentsIDGivesNoCallBack(t *testing.T) {
	s := newEntitled(t, 510, notes())
	s.chain = s.mintLimited()
	parent, other := s.chain, s.mintLimited()
	info, err := authority.InspectToken(parent.Tokens()[0])
	s.must(err)
	now := s.clock.Now()
	child, err := authority.Attenuate(bytes.NewReader(info.ID[:]), now, s.holder, parent, authority.Narrowing{
		Principal: testPrincipal, Holder: s.Node().Writer(), Confirm: s.holder.Public(), NotBefore: info.NotBefore,
		Expires: info.NotBefore.Add(time.Minute), Grants: []fcp.Hash{s.grant}, Rights: info.Rights, Constraints: info.Constraints})
	s.must(err)
	s.chain = child
	s.must(s.putFor(s.caller(), "notes/1", "x"))
	s.clock.Advance(10 * time.Minute)
	s.chain = other
	s.must(s.putFor(s.caller(), "notes/2", "x")) // the file is written anew
	s.chain = parent
	wantReason(t, s.putFor(s.caller(), "notes/3", "x"), authority.ReasonLimitCalls)
}
