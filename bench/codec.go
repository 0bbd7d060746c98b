package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/klauspost/reedsolomon"

	"fcp/coding"
)

// codecShape is one block size of the codec rows.
type codecShape struct {
	k, t, cores int
}

func (s codecShape) String() string {
	name := fmt.Sprintf("K=%d/T=%d", s.k, s.t)
	if s.cores > 1 {
		name += fmt.Sprintf("/cores=%d", s.cores)
	}
	return name
}

func (s codecShape) octets() int         { return s.k * s.t }
func (s codecShape) shape() coding.Shape { return coding.Shape{SymbolSize: s.t, Alignment: 8} }

// codecPlans keeps plans for the rows that may have one.
var codecPlans coding.PlanCache

// codecRows are the RaptorQ rows, in MB/s (10^6 bytes) of source data. Their
// limit is XOR-accumulate of symbols that stay in a second-level cache.
func codecRows() []Row {
	var rows []Row
	add := func(name string, s codecShape, session func(codecShape) (Session, error), peers ...Subject) {
		limit := xorLimit(s.t)
		if s.cores > 1 {
			peers = append(peers, codecSubject("one-core", codecShape{s.k, s.t, 1}, session))
		}
		rows = append(rows, Row{Name: fmt.Sprintf("codec/%s/%s", name, s), Unit: "MB/s", Limit: &limit, Peers: peers,
			Subjects: []Subject{codecSubject("coding", s, session)}})
	}
	for _, t := range []int{1280, 1024} {
		for _, k := range []int{10, 100, 1000, 5000, 10000, 50000} {
			for _, cores := range []int{1, 2} {
				s := codecShape{k, t, cores}
				if cores == 2 {
					add("encode-plan", s, encodePlan, codecSubject("two-apart", s, encodeApart))
				} else {
					add("encode-plan", s, encodePlan)
					add("encode-cold", s, encodeCold)
					add("repair", s, repairOnly)
				}
				var peers []Subject
				if k <= 10000 {
					peers = append(peers, reedSolomonEncode(s, k/5))
				}
				add("encode-20", s, encodeTwenty, peers...)
				add("decode-all-repair", s, decodeLost(k))
				for _, percent := range []int{50, 20, 5, 1, 0} {
					lost := k * percent / 100
					if percent > 0 && lost == 0 {
						continue
					}
					peers = nil
					if percent == 20 && k <= 10000 { // the peer takes no more shards
						peers = append(peers, reedSolomonRebuild(s, lost))
					}
					add(fmt.Sprintf("decode-%d-lost", percent), s, decodeLost(lost), peers...)
				}
			}
		}
	}
	return rows
}

func codecSubject(name string, s codecShape, session func(codecShape) (Session, error)) Subject {
	return Subject{Name: name, Open: func(context.Context, Dirs) (Session, error) {
		inner, err := session(s)
		if err != nil {
			return nil, err
		}
		return onCores{s.cores, inner}, nil
	}}
}

// xorLimit adds symbols to symbols, one octet at a time in the field, in a working
// set of 1 MiB.
func xorLimit(t int) Subject {
	return Subject{Name: "xor-accumulate", Open: func(context.Context, Dirs) (Session, error) {
		n := (1 << 20) / (2 * t)
		b := randomBytes(1, 2*n*t)
		return onCores{1, megabytes(func() (int64, int64, error) {
			for i := range n {
				coding.XORAccumulate(b[i*t:(i+1)*t], b[(n+i)*t:(n+i+1)*t])
			}
			return 1, int64(n * t), nil
		})}, nil
	}}
}

// newCodecEncoder is an encoder with its plan, and its block.
func newCodecEncoder(s codecShape) (*coding.Encoder, []byte, error) {
	plan, err := codecPlans.Get(context.Background(), s.k)
	if err != nil {
		return nil, nil, err
	}
	e, err := coding.NewEncoder(plan, s.k, s.shape(), coding.EncoderOptions{Workers: s.cores})
	if err != nil {
		return nil, nil, err
	}
	block := randomBytes(uint64(s.k), s.octets())
	return e, block, errors.Join(e.Reset(block), e.Encode(context.Background()))
}

// encodePlan computes the intermediate symbols and one repair symbol.
func encodePlan(s codecShape) (Session, error) {
	e, block, err := newCodecEncoder(s)
	if err != nil {
		return nil, err
	}
	out, rng := make([]byte, s.t), rand.New(rand.NewPCG(1, 2))
	return megabytes(func() (int64, int64, error) {
		err := errors.Join(e.Reset(block), e.Encode(context.Background()), e.Repair(out, uint32(s.k)+rng.Uint32N(1<<20)))
		return 1, int64(len(block)), err
	}), nil
}

// encodeApart is encodePlan of as many blocks at once as there are cores, each
// on one, added up: what the machine lets two cores do that share nothing.
func encodeApart(s codecShape) (Session, error) {
	each := make([]Session, s.cores)
	for i := range each {
		var err error
		if each[i], err = encodePlan(codecShape{s.k, s.t, 1}); err != nil {
			return nil, err
		}
	}
	return sessionFunc(func(ctx context.Context, d time.Duration) (Sample, error) {
		samples, errs := make([]Sample, len(each)), make([]error, len(each))
		var all sync.WaitGroup
		for i := range each {
			all.Go(func() { samples[i], errs[i] = each[i].Run(ctx, d) })
		}
		all.Wait()
		var sum Sample
		for _, x := range samples {
			sum.Value += x.Value
			sum.Ops += x.Ops
			sum.Bytes += x.Bytes
		}
		return sum, errors.Join(errs...)
	}), nil
}

// encodeCold is encodePlan without a plan to begin with.
func encodeCold(s codecShape) (Session, error) {
	block := randomBytes(uint64(s.k), s.octets())
	out, rng := make([]byte, s.t), rand.New(rand.NewPCG(1, 2))
	return megabytes(func() (int64, int64, error) {
		plan, err := coding.NewPlan(context.Background(), s.k)
		if err != nil {
			return 0, 0, err
		}
		e, err := coding.NewEncoder(plan, s.k, s.shape(), coding.EncoderOptions{})
		if err != nil {
			return 0, 0, err
		}
		err = errors.Join(e.Reset(block), e.Encode(context.Background()), e.Repair(out, uint32(s.k)+rng.Uint32N(1<<20)))
		return 1, int64(len(block)), err
	}), nil
}

// repairOnly makes 64 repair symbols of a block that is encoded already.
func repairOnly(s codecShape) (Session, error) {
	e, _, err := newCodecEncoder(s)
	if err != nil {
		return nil, err
	}
	const n = 64
	out, rng := make([]byte, n*s.t), rand.New(rand.NewPCG(1, 2))
	return megabytes(func() (int64, int64, error) {
		return 1, int64(len(out)), e.Repairs(out, uint32(s.k)+rng.Uint32N(1<<23), n)
	}), nil
}

// encodeTwenty encodes and makes K/5 repair symbols.
func encodeTwenty(s codecShape) (Session, error) {
	e, block, err := newCodecEncoder(s)
	if err != nil {
		return nil, err
	}
	n := max(1, s.k/5)
	out, rng := make([]byte, n*s.t), rand.New(rand.NewPCG(1, 2))
	return megabytes(func() (int64, int64, error) {
		err := errors.Join(e.Reset(block), e.Encode(context.Background()), e.Repairs(out, uint32(s.k)+rng.Uint32N(1<<23), n))
		return 1, int64(len(block)), err
	}), nil
}

// decodeLost rebuilds a block of which that many source symbols are lost, from
// the others and as many repair symbols (more only where the code's own failure
// probability asks for it). Losses and repair ids are new in every pass; every
// result is compared with the block. Preparing and comparing are not timed.
func decodeLost(lost int) func(codecShape) (Session, error) {
	return func(s codecShape) (Session, error) {
		e, block, err := newCodecEncoder(s)
		if err != nil {
			return nil, err
		}
		d, err := coding.NewDecoder(s.k, s.shape(), coding.DecoderOptions{Plans: &codecPlans, Workers: s.cores})
		if err != nil {
			return nil, err
		}
		x := &decodeCase{s: s, e: e, d: d, block: block, lost: lost, rng: rand.New(rand.NewPCG(uint64(s.k), uint64(lost))),
			repair: make([]byte, (lost+spareRepair)*s.t), dst: make([]byte, len(block)), gone: make([]bool, s.k)}
		return sessionFunc(func(ctx context.Context, d time.Duration) (Sample, error) {
			var sample Sample
			var timed time.Duration
			for begin := time.Now(); time.Since(begin) < 4*d && timed < d; {
				took, err := x.pass(ctx)
				if err != nil {
					return sample, err
				}
				timed += took
				sample.Ops++
				sample.Bytes += int64(len(block))
			}
			sample.Value = float64(sample.Bytes) / 1e6 / timed.Seconds()
			return sample, nil
		}), nil
	}
}

// spareRepair is how many repair symbols beyond the lost ones a pass has ready.
const spareRepair = 8

type decodeCase struct {
	s      codecShape
	e      *coding.Encoder
	d      *coding.Decoder
	block  []byte
	lost   int
	rng    *rand.Rand
	repair []byte
	dst    []byte
	gone   []bool
}

func (x *decodeCase) pass(ctx context.Context) (time.Duration, error) {
	clear(x.gone)
	for n := 0; n < x.lost; {
		if i := x.rng.IntN(x.s.k); !x.gone[i] {
			x.gone[i] = true
			n++
		}
	}
	first := uint32(x.s.k) + x.rng.Uint32N(1<<23)
	if err := x.e.Repairs(x.repair, first, x.lost+spareRepair); err != nil {
		return 0, err
	}
	clear(x.dst)
	start := time.Now()
	err := x.decode(ctx, first)
	took := time.Since(start)
	if err == nil && !bytes.Equal(x.dst, x.block) {
		err = errors.New("the decoded block differs")
	}
	return took, err
}

func (x *decodeCase) decode(ctx context.Context, first uint32) error {
	t := x.s.t
	if err := x.d.Reset(x.dst); err != nil {
		return err
	}
	for i := range x.s.k {
		if x.gone[i] {
			continue
		}
		if _, err := x.d.Add(uint32(i), x.block[i*t:(i+1)*t]); err != nil {
			return err
		}
	}
	for n := 0; !x.d.Complete(); n++ {
		if n >= x.lost+spareRepair {
			return errors.New("the spare repair symbols did not suffice")
		}
		if _, err := x.d.Add(first+uint32(n), x.repair[n*t:(n+1)*t]); err != nil {
			return err
		}
		if x.d.Ready() {
			if err := x.d.Decode(ctx); err != nil && !errors.Is(err, coding.ErrNeedMore) {
				return err
			}
		}
	}
	return nil
}

// reedSolomon makes shards of a block and an encoder at the same redundancy.
func reedSolomon(s codecShape, parity int) (reedsolomon.Encoder, [][]byte, error) {
	opts := []reedsolomon.Option{reedsolomon.WithMaxGoroutines(s.cores)}
	if s.k+parity > 256 {
		opts = append(opts, reedsolomon.WithLeopardGF16(true))
	}
	rs, err := reedsolomon.New(s.k, parity, opts...)
	if err != nil {
		return nil, nil, err
	}
	block := randomBytes(uint64(s.k), (s.k+parity)*s.t)
	shards := make([][]byte, s.k+parity)
	for i := range shards {
		shards[i] = block[i*s.t : (i+1)*s.t]
	}
	return rs, shards, rs.Encode(shards)
}

func reedSolomonEncode(s codecShape, parity int) Subject {
	return Subject{Name: "reedsolomon", Open: func(context.Context, Dirs) (Session, error) {
		rs, shards, err := reedSolomon(s, max(1, parity))
		if err != nil {
			return nil, err
		}
		return onCores{s.cores, megabytes(func() (int64, int64, error) { return 1, int64(s.octets()), rs.Encode(shards) })}, nil
	}}
}

func reedSolomonRebuild(s codecShape, lost int) Subject {
	return Subject{Name: "reedsolomon", Open: func(context.Context, Dirs) (Session, error) {
		rs, shards, err := reedSolomon(s, lost)
		if err != nil {
			return nil, err
		}
		rng := rand.New(rand.NewPCG(3, 4))
		return onCores{s.cores, megabytes(func() (int64, int64, error) {
			for n := 0; n < lost; {
				if i := rng.IntN(s.k); len(shards[i]) > 0 {
					shards[i] = shards[i][:0]
					n++
				}
			}
			return 1, int64(s.octets()), rs.ReconstructData(shards)
		})}, nil
	}}
}
