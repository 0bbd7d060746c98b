package coding

import "errors"

// The errors of this package, wrapped with what was being done. Tell them apart
// with errors.Is.
var (
	// ErrParams: a parameter outside the limits of RFC 6330.
	ErrParams = errors.New("coding: parameter out of range")
	// ErrSize: a buffer whose length does not fit the parameters.
	ErrSize = errors.New("coding: wrong buffer size")
	// ErrESI: an encoding symbol id above 2^24-1.
	ErrESI = errors.New("coding: encoding symbol id out of range")
	// ErrNeedMore: the symbols at hand do not determine the block yet.
	ErrNeedMore = errors.New("coding: more symbols needed")
	// ErrFull: the decoder holds as many symbols as its bound allows.
	ErrFull = errors.New("coding: decoder holds its limit of symbols")
	// ErrMemory: decoding could take more memory than the caller allows.
	ErrMemory = errors.New("coding: memory limit exceeded")
	// ErrNotDecoded: the block was asked for before it was decoded.
	ErrNotDecoded = errors.New("coding: block not decoded")
)

// errTooDense: elimination would need more memory than the stated bound. Only
// symbol sets chosen for it get there; other or more symbols help.
var errTooDense = errors.New("coding: symbols too dense for the memory bound")
