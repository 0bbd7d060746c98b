package coding

import (
	"fmt"

	"fcp/coding/internal/gf256"
	"fcp/coding/internal/rfc6330"
)

// inactiveLimit bounds the inactive symbols, and with them the memory and time
// of elimination. Random symbol sets stay far below: at K = 56,403 about 620
// symbols are inactive and the limit is 3,160. Sets chosen to be dense are
// refused with a request for more symbols.
func inactiveLimit(b *rfc6330.Block) int {
	return int(min(b.L, b.P+1024+b.W/32))
}

// fewMost is the most lost symbols that are rebuilt without elimination.
const fewMost = 512

// DefaultDecoderLimit is the memory a decoder may take when its options do not
// say.
const DefaultDecoderLimit = 512 << 20

// DecoderBound returns how much memory, in octets, a decoder for blocks of k
// symbols of the given shape takes at most, whatever symbols it is given: the
// block, the repair symbols, and the working memory of Decode. The cached plans
// are not counted. Ordinary symbol sets need much less working memory.
func DecoderBound(k int, shape Shape, opt DecoderOptions) (int64, error) {
	b, err := blockFor(k)
	if err != nil {
		return 0, err
	}
	if shape, err = shape.normal(); err != nil {
		return 0, err
	}
	if opt, err = opt.normal(); err != nil {
		return 0, err
	}
	t := int64(shape.SymbolSize)
	store := (int64(k)+int64(opt.Slack)+int64(perSlab(k, shape.SymbolSize)))*t + 64*(int64(k)+int64(opt.Slack))
	parts := int64(shape.SubBlocks) * 256 // stripes and tiles
	parts += t / gf256.MinWidth * 256
	return int64(k)*t + store + parts + eliminationBound(&b, opt) + fewBound(&b, opt), nil
}

// appended is how much larger than its content a slice grown by append can be,
// counting the copy it is grown from, in quarters.
const appended = 10

// eliminationBound bounds the solver, its program, and the workspaces.
func eliminationBound(b *rfc6330.Block, opt DecoderOptions) int64 {
	var (
		limit = int64(inactiveLimit(b))
		words = (limit + 63) / 64
		l, w  = int64(b.L), int64(b.W)
		h     = int64(b.H)
		rows  = int64(b.KPrime) + int64(opt.Slack) + int64(b.S)
		terms = rfc6330.MaxRow*rows + 3*int64(b.B) + 3*int64(b.S)
		combs = (limit + 5) / 6 * 64 // slots of the combination tables
		pairs = int64(hdpcGroups(b.H))
	)
	matrix := 4 * (3*rows + terms*appended/4 + w + terms*9/8)
	peel := 4*(5*rows+2*l+6*w) + 8*w*appended/4
	dense := 8*(w*words+(limit+1)*2*words+(pairs+4)*8*words) + 2*l + 8*limit + h*(words*64+h) + h*words*8
	stream := 2*(w+limit) + terms + 2*w + // forward, horner
		h*(h+1) + 4*combs + limit*(3+limit/6) + // middle
		h*(3+h+limit) + // mul
		2*l + terms + limit*(3+h) + 2*rows // back, loads
	slots := l + pairs + h + 3 + limit + combs
	each := slots*gf256.MaxWidth + rows*(4*8+gf256.MinWidth) + 4096
	return (matrix+peel+dense)*9/8 + 4*stream*appended/4 + 4*combs + int64(opt.Workers)*each +
		int64(b.K)*(1+rfc6330.MaxRow)*4*appended/4
}

// fewBound bounds what rebuilding a few lost symbols takes.
func fewBound(b *rfc6330.Block, opt DecoderOptions) int64 {
	if opt.Plans == nil {
		return 0
	}
	most := min(int64(b.K), fewMost) + fewExtra
	batches := (most + 63) / 64
	slots := int64(b.L)*3/2 + 4096
	factors := batches*int64(b.KPrime)*64 + slots*64 + 16*int64(b.L)
	system := 2*most*(2*most+32) + batches*most*64 + most*(1+rfc6330.MaxRow)*4*appended/4
	each := most*(gf256.MaxWidth+fewWidth+16) + int64(b.KPrime)*(4*8+2*gf256.MinWidth) + slots*gf256.MaxWidth + 4096
	return (factors+system)*9/8 + int64(opt.Workers)*each
}

// normal fills in the defaults and checks the limits.
func (o DecoderOptions) normal() (DecoderOptions, error) {
	if o.Slack < 0 || o.Slack > maxSlack || o.Workers < 0 || o.Workers > maxWorkers || o.Limit < 0 {
		return o, fmt.Errorf("%w: slack %d, workers %d, limit %d", ErrParams, o.Slack, o.Workers, o.Limit)
	}
	if o.Slack == 0 {
		o.Slack = DefaultSlack
	}
	if o.Limit == 0 {
		o.Limit = DefaultDecoderLimit
	}
	o.Workers = max(1, o.Workers)
	return o, nil
}

const (
	maxSlack   = 1 << 16
	maxWorkers = 1 << 10
)
