package engine

import (
	"bufio"
	"encoding/binary"
	"errors"
	"io"

	"github.com/zeebo/blake3"

	"fcp"
	"fcp/log"
)

// The key table of a backup (docs/format.md "Backup key table"):
//
//	"FCPKEY01" | runs | 32 zero bytes | BLAKE3 of everything before[32]
//	run: feed id[32] | u64be first | u32be count, 1 to 1024 | count x salt[16]
//
// The runs of a feed stand together, ascending and without overlap; the order of
// feeds is the writer's. A salt of zeros says that there is none. The file is
// replaced by the next backup, so that a salt that was forgotten is gone.
const (
	keyTableMagic  = "FCPKEY01"
	maxSaltRun     = 1024
	maxSaltGap     = 32 // zero salts written rather than a new run
	maxKeyTableFed = 1 << 20
)

type saltRun struct {
	feed  fcp.FeedID
	first uint64
	salts []byte
}

// keyTableWriter joins runs and writes them.
type keyTableWriter struct {
	w       *bufio.Writer
	sum     *blake3.Hasher
	entries uint64
	cur     saltRun
	head    []byte
}

func newKeyTableWriter(w io.Writer) *keyTableWriter {
	k := &keyTableWriter{sum: blake3.New()}
	k.w = bufio.NewWriterSize(io.MultiWriter(w, k.sum), 64<<10)
	k.w.WriteString(keyTableMagic) // errors stick in bufio
	return k
}

// add takes the salts of a feed's events from first on. Runs of a feed come
// together and ascending.
func (k *keyTableWriter) add(feed fcp.FeedID, first uint64, salts []byte) error {
	for len(salts) > 0 {
		n := min(len(salts), log.SaltSize)
		if salt := [log.SaltSize]byte(salts[:n]); salt != [log.SaltSize]byte{} {
			if err := k.one(feed, first, salts[:n]); err != nil {
				return err
			}
		}
		first, salts = first+1, salts[n:]
	}
	return nil
}

func (k *keyTableWriter) one(feed fcp.FeedID, seq uint64, salt []byte) error {
	c := &k.cur
	next := c.first + uint64(len(c.salts)/log.SaltSize)
	if feed != c.feed || len(c.salts) == 0 || seq < next || seq-next > maxSaltGap || seq-c.first >= maxSaltRun {
		if err := k.flush(); err != nil {
			return err
		}
		c.feed, c.first, next = feed, seq, seq
	}
	c.salts = append(c.salts, make([]byte, (seq-next)*log.SaltSize)...)
	c.salts = append(c.salts, salt...)
	k.entries++
	return nil
}

func (k *keyTableWriter) flush() error {
	c := &k.cur
	if len(c.salts) == 0 {
		return nil
	}
	k.head = append(k.head[:0], c.feed[:]...)
	k.head = binary.BigEndian.AppendUint64(k.head, c.first)
	k.head = binary.BigEndian.AppendUint32(k.head, uint32(len(c.salts)/log.SaltSize))
	k.w.Write(k.head)
	_, err := k.w.Write(c.salts)
	c.salts = c.salts[:0]
	return err
}

func (k *keyTableWriter) finish() error {
	var zero fcp.FeedID
	err := k.flush()
	k.w.Write(zero[:])
	if err = errors.Join(err, k.w.Flush()); err != nil {
		return err
	}
	k.w.Write(k.sum.Sum(nil))
	return k.w.Flush()
}

// readKeyTable checks a key table and calls fn, unless nil, for each run. The
// salts are valid during the call. It returns the number of salts.
func readKeyTable(r io.Reader, fn func(saltRun) error) (entries uint64, err error) {
	bad := func(what string) error { return fcp.Errorf(fcp.CodeMalformed, "key table: %s", what) }
	sum := blake3.New()
	b := bufio.NewReaderSize(r, 64<<10)
	take := func(p []byte) error {
		if _, err := io.ReadFull(b, p); err != nil {
			if err == io.EOF || err == io.ErrUnexpectedEOF {
				return bad("it ends too early")
			}
			return err
		}
		sum.Write(p)
		return nil
	}
	var magic [len(keyTableMagic)]byte
	if err := take(magic[:]); err != nil {
		return 0, err
	}
	if string(magic[:]) != keyTableMagic {
		return 0, bad("it does not begin as one")
	}
	seen := map[fcp.FeedID]bool{}
	var last saltRun
	buf := make([]byte, maxSaltRun*log.SaltSize)
	for {
		var run saltRun
		if err := take(run.feed[:]); err != nil {
			return entries, err
		}
		if run.feed.IsZero() {
			break
		}
		var head [12]byte
		if err := take(head[:]); err != nil {
			return entries, err
		}
		run.first = binary.BigEndian.Uint64(head[:])
		count := uint64(binary.BigEndian.Uint32(head[8:]))
		end := last.first + uint64(len(last.salts)/log.SaltSize)
		switch {
		case run.first == 0 || count == 0 || count > maxSaltRun || run.first+count < run.first:
			return entries, bad("a run's place")
		case run.feed == last.feed && run.first < end:
			return entries, bad("runs overlap")
		case run.feed != last.feed && (seen[run.feed] || len(seen) >= maxKeyTableFed):
			return entries, bad("the runs of a feed are apart")
		}
		seen[run.feed] = true
		run.salts = buf[:count*log.SaltSize]
		if err := take(run.salts); err != nil {
			return entries, err
		}
		for i := 0; i < len(run.salts); i += log.SaltSize {
			if [log.SaltSize]byte(run.salts[i:]) != [log.SaltSize]byte{} {
				entries++
			}
		}
		if fn != nil {
			if err := fn(run); err != nil {
				return entries, err
			}
		}
		last = run
	}
	want := fcp.Hash(sum.Sum(nil))
	var got fcp.Hash
	if err := take(got[:]); err != nil {
		return entries, err
	}
	if got != want {
		return entries, fcp.Errorf(fcp.CodeChecksum, "the key table")
	}
	if _, err := b.ReadByte(); err != io.EOF {
		return entries, errors.Join(err, bad("bytes behind its end"))
	}
	return entries, nil
}
