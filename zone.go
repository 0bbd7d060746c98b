package fcp

// ZoneID names a zone: 1 to 64 bytes, prefix "z:", then [a-z0-9:_-]
// (spec/wire.md section 3.1). Make one with ParseZoneID.
type ZoneID string
