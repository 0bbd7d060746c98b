// Package engine is the store: the log, the state folded from it, and the
// objects people put, get and list.
//
// # Purpose
//
// An Engine owns one store directory. A write becomes one atomic append to the
// log (package log), which is the only commit point; the same events are folded
// by projections into keyed state (engine/internal/state) that answers reads. At
// open, everything behind the state's cursor is folded again by the same code
// that runs live, that rebuilds, and that takes events of other nodes.
//
// # Exported operations
//
//	Init(ctx, dir, InitOptions) (InitResult, error)       make a store
//	Join(ctx, dir, JoinOptions) error                     make a store for another node of an existing one
//	Open(ctx, dir, Options) (*Engine, error)              open it; one process at a time
//	Rebuild(ctx, dir, Options) error                      fold a closed store's state anew
//	(*Engine).Close() error                               flush the state and close
//
//	Put(ctx, PutRequest) (PutResult, error)               write a version
//	Remove(ctx, RemoveRequest) (PutResult, error)         write a tombstone
//	Get(ctx, GetRequest) (*Reader, error)                 read; Reader: Info, Read, ReadRange, WriteTo, Close
//	Stat(ctx, zone, key, At) (Entry, error)               the heads of a name, no body
//	List(ctx, ListRequest, func(*Entry) error) error      names in byte order
//	History(ctx, zone, key, func(*Entry) error) error     head sets of a name, newest first
//
//	Subscribe(ctx, SubscribeOptions, func([]log.Applied) error) error
//	Tail(ctx, TailRequest, func(*EventRow) error) error
//	Projections() []ProjectionInfo
//	QueryProjection(ctx, name, zone, prefix, At, func(*Row) error) error
//
//	ZoneRoot(zone) (fcp.Hash, error); StateRoot() (fcp.Hash, error)
//	Replay(ctx, ReplayOptions) (ReplayReport, error)
//	Verify(ctx, VerifyOptions) (VerifyReport, error)
//	Status() Status; Position() uint64; Zones() []fcp.ZoneID
//	PositionAt(At) (uint64, error)
//	Log() *log.Log                                        proofs, segments, seal
//	AppendSigned(ctx, zone, kind, body) (log.Receipt, error)  an owner-signed governance object
//	Enroll(ctx, EnrollOptions) ([][]byte, error)          take another node in; its manifests
//	ImportEvents(ctx, events, salts) (int, error)         events of another node's feed, verbatim
//	GenesisBytes, ManifestBytes                           what a backup needs of dir/keys
//
//	ZoneFacts(zone) (*ZoneFacts, error)                   what governs a zone now; (*ZoneFacts).Facts for Decide
//	DefineZone, SetPolicy, RollbackPolicy, DefineIssuers, BindPrincipal, Grant, Delegate, Attest
//	Revoke, RotateZoneKey, DeviceLost                     the owner's acts, each with its audit entry
//	ProposeCheckpoint, CosignCheckpoint, AppendCheckpoint, SettleCheckpoint
//	FeedHead, CosignHead, RecordHead, Branch, ProveFork   witnesses and proofs of forks
//	PutSecret, RotateSecret, ReshareSecret, RemoveSecret, Secrets
//	UseSecret(ctx, SecretUse, func([]byte) error); GatherShares(ctx, SecretUse, take); AnswerShareAsk(ctx, device, ask)
//	Audit(ctx, authority.AuditEvent) error; MintToken(spec) ([]byte, error)
//
// # Invariants
//
//   - State neither leads nor contradicts the log: it reflects exactly the events
//     up to its applied position, each once.
//   - The order in which events arrive never decides a zone's root.
//   - No payload, name's body or key appears in an error or a log line.
//
// Byte layouts: docs/format.md, sections "State keys", "Name record", "Zone root".
package engine
