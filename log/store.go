package log

import (
	"errors"

	"github.com/cockroachdb/pebble/v2"

	"fcp"
)

// get returns a copy of a value.
func (l *Log) get(key []byte) (value []byte, ok bool, err error) {
	if !l.life.Enter() {
		return nil, false, l.errClosed()
	}
	defer l.life.Leave()
	v, closer, err := l.db.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, readError(err)
	}
	value = append([]byte(nil), v...)
	return value, true, readError(closer.Close())
}

func (l *Log) errClosed() error { return fcp.Errorf(fcp.CodeClosed, "%s", l.dir) }

// iterator is an iterator over the store that keeps it open until it is closed.
type iterator struct {
	*pebble.Iterator
	l *Log
}

func (it *iterator) Close() error {
	defer it.l.life.Leave()
	return it.Iterator.Close()
}

func (l *Log) iter(lower, upper []byte) (*iterator, error) {
	if !l.life.Enter() {
		return nil, l.errClosed()
	}
	it, err := l.db.NewIter(&pebble.IterOptions{LowerBound: lower, UpperBound: upper})
	if err != nil {
		l.life.Leave()
		return nil, readError(err)
	}
	return &iterator{it, l}, nil
}

// readError classifies an error of reading the store.
func readError(err error) error {
	switch {
	case err == nil:
		return nil
	case pebble.IsCorruptionError(err):
		return fcp.Errorf(fcp.CodeCorrupt, "%w", err)
	case errors.Is(err, pebble.ErrClosed):
		return fcp.Errorf(fcp.CodeClosed, "the log")
	}
	return fcp.Wrap(fcp.CodeDisk, err, "reading the log")
}

func iterError(it interface{ Error() error }) error { return readError(it.Error()) }

// scanPrefix calls fn for every key with the prefix, in order. Slices are valid
// during the call only.
func (l *Log) scanPrefix(prefix []byte, fn func(k, v []byte) error) error {
	it, err := l.iter(prefix, prefixEnd(prefix))
	if err != nil {
		return err
	}
	for ok := it.First(); ok; ok = it.Next() {
		if err := fn(it.Key(), it.Value()); err != nil {
			return errors.Join(err, it.Close())
		}
	}
	return readError(errors.Join(it.Error(), it.Close()))
}

// prefixEnd returns the first key behind all keys with the prefix.
func prefixEnd(prefix []byte) []byte {
	end := append([]byte(nil), prefix...)
	for i := len(end) - 1; i >= 0; i-- {
		if end[i]++; end[i] != 0 {
			return end[:i+1]
		}
	}
	return nil
}

// scanHot calls fn with the position and block of every hot block of the feed
// that reaches seq from or beyond.
func (l *Log) scanHot(no FeedNo, from uint64, fn func(position uint64, block []byte) error) error {
	it, err := l.iter(keyOfSeq(keyHot, no, 0), keyOfSeq(keyHot, no+1, 0))
	if err != nil {
		return err
	}
	ok := it.SeekLT(keyOfSeq(keyHot, no, from+1))
	if !ok {
		ok = it.First()
	}
	for ; ok; ok = it.Next() {
		pos, block, err := splitHot(it.Value())
		if err == nil {
			err = fn(pos, block)
		}
		if err != nil {
			return errors.Join(err, it.Close())
		}
	}
	return readError(errors.Join(it.Error(), it.Close()))
}
