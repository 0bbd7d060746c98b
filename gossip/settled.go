package gossip

// Settled reports whether every peer that is there told all it has, and all of it is
// here. What nobody told of yet, or a peer cannot deliver, is not seen.
func (c *Core) Settled() bool {
	for _, p := range c.upPeers() {
		if !p.told {
			return false
		}
		for id, k := range p.heads {
			f := c.feeds[id]
			if f == nil || !f.frozen && f.head.Seq < k.seq {
				return false
			}
		}
	}
	return true
}
