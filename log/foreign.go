package log

import "fcp"

// OpenForeign decrypts a segment that is not in the store and returns its events,
// checked against the card and against the head that its remainder names. It
// needs the zone key and writes nothing. The contents own their memory; Feed and
// Position of the events mean nothing.
func (l *Log) OpenForeign(rem *Remainder, ciphertext []byte) ([]Applied, error) {
	if l.opts.Sealer == nil {
		return nil, fcp.Errorf(fcp.CodeUnauthorized, "opening a segment needs its zone key")
	}
	if err := rem.check(); err != nil {
		return nil, err
	}
	card, err := CheckCiphertext(rem.Card, ciphertext)
	if err != nil {
		return nil, err
	}
	if card.Segment != fcp.SegmentID(rem.Segment) {
		return nil, fcp.Errorf(fcp.CodeCorrupt, "the remainder of segment %s carries the card of another", fcp.SegmentID(rem.Segment))
	}
	c, err := l.opts.Sealer.OpenSegment(rem.Run(), rem.Key, fcp.Hash(rem.ZoneKey))
	if err != nil {
		return nil, err
	}
	seg := &openSegment{rem: *rem, cipher: c}
	frames, err := seg.split(ciphertext)
	if err != nil {
		return nil, err
	}
	of := &feed{feed: rem.Feed(), id: rem.Feed().ID()}
	events, err := seg.events(of, frames)
	if err != nil {
		return nil, err
	}
	if n := len(events); n == 0 || events[n-1].Seq != rem.Last || events[n-1].Hash != fcp.Hash(rem.Head) {
		return nil, fcp.Errorf(fcp.CodeCorrupt, "segment %s does not hold the events its remainder names", card.Segment)
	}
	return events, nil
}
